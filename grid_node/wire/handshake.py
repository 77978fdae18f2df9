"""The opening handshake of RFC 6455 on the socket that a WSGI server hands over, and the way out of its response."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sys
from typing import Any

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Environ = dict[str, Any]


class HandshakeError(Exception):
    """The request is no WebSocket upgrade that this server can answer; `status` is the HTTP status line."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def raw_socket(environ: Environ) -> Any:
    """The connection behind a WSGI request, under gunicorn, Werkzeug and eventlet's own server."""
    for key in ("gunicorn.socket", "werkzeug.socket"):
        if environ.get(key) is not None:
            return environ[key]
    if "eventlet.input" in environ:
        return environ["eventlet.input"].get_socket()
    raise HandshakeError("501 NOT IMPLEMENTED", "this WSGI server does not hand over its socket")


def early_bytes(environ: Environ) -> bytes:
    """What the peer sent right behind its request, without waiting for our 101: gunicorn has read it already."""
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    held = getattr(getattr(reader, "unreader", None), "buf", None)
    return bytes(held.getvalue()) if held is not None else b""


def end_response(environ: Environ) -> list[bytes]:
    """Leave the WSGI call after the socket was used directly: the server must write no response of its own."""
    if "gunicorn.socket" in environ:
        raise StopIteration  # gunicorn's sign for "already handled", in every worker class
    if "werkzeug.socket" in environ:
        raise ConnectionError  # Werkzeug drops the connection without a word
    server = sys.modules[type(environ["eventlet.input"]).__module__]
    server.WSGI_LOCAL.already_handled = True
    return []


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept of RFC 6455 4.2.2."""
    return base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_GUID, usedforsecurity=False).digest()).decode()


def check_upgrade(environ: Environ) -> str:
    """The client's key, or HandshakeError with the status that RFC 6455 4.2 asks for."""
    tokens = [part.strip() for part in environ.get("HTTP_CONNECTION", "").lower().split(",")]
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket" or "upgrade" not in tokens:
        raise HandshakeError("426 UPGRADE REQUIRED", "expected a WebSocket upgrade")
    if environ.get("REQUEST_METHOD") != "GET":
        raise HandshakeError("405 METHOD NOT ALLOWED", "expected GET")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise HandshakeError("426 UPGRADE REQUIRED", "expected Sec-WebSocket-Version 13")
    key = str(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")).strip()
    try:
        sixteen = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        sixteen = False
    if not sixteen:
        raise HandshakeError("400 BAD REQUEST", "Sec-WebSocket-Key is not valid")
    return key


def switching_protocols(key: str) -> bytes:
    """The 101 answer. It names no extension, so nothing is ever compressed."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
    )
