"""The way from a route into a raw WebSocket, and out of the WSGI call afterwards."""

from typing import Any

from flask import Flask, Response, request

from grid_node.errors import GridError, InvalidMessage, MethodNotAllowed, UpgradeRequired
from grid_node.http.auth import address_of
from grid_node.http.errors import error_answer
from grid_node.http.generate_socket import GenerateSockets
from grid_node.wire.handshake import HandshakeError, check_upgrade, end_response

PATH = "/ws/generate"
_REFUSALS: dict[str, type[GridError]] = {"426": UpgradeRequired, "405": MethodNotAllowed}


class _Upgraded(Response):
    """The answer of a route that becomes a WebSocket: the conversation runs where a body would be sent."""

    def __init__(self, sockets: GenerateSockets, address: str) -> None:
        super().__init__(status=101)
        self._sockets = sockets
        self._address = address

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self._sockets.serve(environ, self._address)
        return end_response(environ)


def register_socket(app: Flask, sockets: GenerateSockets) -> None:
    def generate() -> Response:
        try:
            check_upgrade(request.environ)
        except HandshakeError as error:
            answer = error_answer(_REFUSALS.get(error.status[:3], InvalidMessage)())
            answer.headers["Upgrade"] = "websocket"
            return answer
        return _Upgraded(sockets, address_of(request))

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.add_url_rule(PATH, "generate_socket", generate, methods=methods)
