"""A scripted node's server on loopback, in a thread of the test."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import socketio
from werkzeug.serving import WSGIRequestHandler, make_server


class Scripted(Protocol):
    """Socket.IO beside plain WSGI; `url` is set when it is served."""

    sio: socketio.Server
    url: str

    def wsgi(self, environ: Any, start_response: Any) -> Any: ...


S = TypeVar("S", bound=Scripted)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: the test's output is not a server log."""


@contextmanager
def serving(scripted: S, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[S]:
    app = socketio.WSGIApp(scripted.sio, scripted.wsgi)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet, ssl_context=tls)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    scripted.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield scripted
    finally:
        scripted.sio.shutdown()
        server.shutdown()
        server.server_close()
        thread.join(5)
