"""The node's own server set-up with one event, for gunicorn's eventlet worker."""

import eventlet

eventlet.monkey_patch()

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402

from grid_node.wire.events import Events  # noqa: E402
from grid_node.wire.server import attach, build_server  # noqa: E402

app = Flask(__name__)
extension = SocketIO(app, async_mode="eventlet")
server = build_server(async_mode="eventlet")
attach(extension, server)
Events(server).on("echo", lambda sid, payload: payload)
