"""The way from a route into a raw WebSocket, and out of the WSGI call afterwards."""

from typing import Any

from flask import Flask, Response, request

from grid_node.errors import GridError, InvalidMessage, UpgradeRequired
from grid_node.http.auth import address_of
from grid_node.http.errors import error_answer
from grid_node.http.generate_socket import GenerateSockets
from grid_node.wire.handshake import HandshakeError, check_upgrade, end_response

PATH = "/ws/generate"
_REFUSALS: dict[str, type[GridError]] = {"426": UpgradeRequired}


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
    """Werkzeug keeps rules for upgrades and for plain requests apart: the address has one of each."""

    def upgrade() -> Response:
        try:
            check_upgrade(request.environ)
        except HandshakeError as error:
            return _refused(_REFUSALS.get(error.status[:3], InvalidMessage)())
        return _Upgraded(sockets, address_of(request))

    def plain() -> Response:
        return _refused(UpgradeRequired())

    app.add_url_rule(PATH, "generate_socket", upgrade, methods=["GET"], websocket=True)
    app.add_url_rule(PATH, "generate_plain", plain, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


def _refused(error: GridError) -> Response:
    answer = error_answer(error)
    answer.headers["Upgrade"] = "websocket"
    return answer
