"""A small application on the wire alone, for `gunicorn tests.integration.wire.wire_app:app`.

WIRE_MODE is `eventlet` or `threading`; WIRE_LIMITS is a JSON object of WireLimits members.
"""

import json
import logging
import os
import threading

if os.environ["WIRE_MODE"] == "eventlet":
    import eventlet

    eventlet.monkey_patch()

from flask import Flask
from flask_socketio import SocketIO

from grid_node.errors import InvalidKey
from grid_node.wire.events import Events
from grid_node.wire.handshake import HandshakeError, end_response
from grid_node.wire.limits import WireLimits
from grid_node.wire.outbox import ConnectionClosed
from grid_node.wire.server import attach, build_server
from grid_node.wire.websocket import WebSocket

logging.basicConfig()
MODE = os.environ["WIRE_MODE"]
app = Flask(__name__)
socketio = SocketIO(app, async_mode=MODE)
server = build_server(
    async_mode=MODE,
    cors_allowed_origins="*",
    ping_interval=2,  # a python-socketio client that leaves while polling may hang until the next ping
    ping_timeout=5,
    limits=WireLimits(**json.loads(os.environ.get("WIRE_LIMITS", "{}"))),
)
attach(socketio, server)
events = Events(server)
release = threading.Event()


def let_in(sid, environ, auth):
    if auth == {"api_key": "wrong"}:
        raise InvalidKey


def echo(sid, payload):
    return {"payload": payload}


def hold(sid, payload):
    release.wait(30)
    return {"held": True}


def let_go(sid, payload):
    release.set()


def flood(sid, payload):
    for _ in range(payload["times"]):
        server.emit("flood", "x" * payload["size"], to=sid)


def broken(sid, payload):
    raise RuntimeError("a secret of ours")


events.on_connect(let_in)
events.on("echo", echo)
events.on("echo_later", echo, waits=True)
events.on("hold", hold, waits=True)
events.on("let_go", let_go)
events.on("flood", flood, waits=True)
events.on("broken", broken)


@app.get("/state")
def state():
    with open("/proc/self/status", encoding="ascii") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return {
        "rss_kib": rss,
        "sessions": len(server.eio.sockets),
        "pending": server.eio.pending,
        "counts": server.eio.counts,
    }


def raw_face(environ, start_response):
    """Sends a message of `?pieces` fragments of 192 KiB, then echoes until the peer closes."""
    try:
        ws = WebSocket.accept(environ, max_bytes=256 * 1024, stall_seconds=server.limits.stall_seconds)
    except HandshakeError as error:
        start_response(error.status, [("Content-Type", "text/plain")])
        return [str(error).encode()]
    try:
        pieces = int(environ.get("QUERY_STRING") or 0)
        if pieces:
            ws.send_fragments(bytes([97 + n % 26]) * 196_608 for n in range(pieces))
        while True:
            ws.send_text(str(ws.recv(30)))
    except (ConnectionClosed, TimeoutError):
        return end_response(environ)


flask_app = app.wsgi_app
app.wsgi_app = lambda environ, start_response: (raw_face if environ["PATH_INFO"] == "/raw" else flask_app)(
    environ, start_response
)
