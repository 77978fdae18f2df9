"""Flask-SocketIO on eventlet as its documentation shows it."""

import eventlet

eventlet.monkey_patch()

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, async_mode="eventlet")


@socketio.on("echo")
def echo(payload):
    return payload
