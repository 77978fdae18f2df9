"""The server beside Flask-SocketIO: its test client, its emit, and the order of a connect."""

import flask
import flask_socketio
import pytest

from grid_node.errors import InvalidKey
from grid_node.wire.events import Events
from grid_node.wire.server import WireServer, attach, build_server


@pytest.fixture
def seen() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def app(seen) -> flask.Flask:
    app = flask.Flask(__name__)
    extension = flask_socketio.SocketIO(app, async_mode="threading")
    server = build_server(async_mode="threading", observe=lambda name, seconds: seen.append((name, seconds)))
    attach(extension, server)
    return app


@pytest.fixture
def server(app) -> WireServer:
    return app.extensions["socketio"].server


@pytest.fixture
def events(server) -> Events:
    return Events(server)


def client_of(app, **options) -> flask_socketio.SocketIOTestClient:
    return app.extensions["socketio"].test_client(app, **options)


def test_flask_socketio_test_client_gets_acks(app, events):
    events.on("echo", lambda sid, payload: {"payload": payload})
    events.on("later", lambda sid, payload: {"payload": payload}, waits=True)
    client = client_of(app)
    assert client.emit("echo", 1, callback=True) == {"payload": 1}
    assert client.emit("later", callback=True) == {"payload": {}}
    assert client.emit("nobody", callback=True)["code"] == "unknown_event"


def test_an_emit_of_the_extension_reaches_the_client(app, events):
    client = client_of(app)
    app.extensions["socketio"].emit("news", {"n": 1})
    assert [(event["name"], event["args"]) for event in client.get_received()] == [("news", [{"n": 1}])]


def test_a_handler_that_returns_nothing_is_acknowledged(app, events):
    events.on("quiet", lambda sid, payload: None)
    assert client_of(app).emit("quiet", callback=True) == {"success": True}


def test_the_fallback_gets_the_name(app, events):
    events.fallback(lambda sid, name, payload: {"name": name, "payload": payload})
    assert client_of(app).emit("/get_model/7", None, callback=True) == {"name": "/get_model/7", "payload": {}}


def test_a_connect_handler_refuses_by_raising(app, events):
    def refuse(sid, environ, auth):
        raise InvalidKey

    events.on_connect(refuse)
    assert not client_of(app).is_connected()


def test_a_type_error_in_a_connect_handler_is_no_second_call(app, events, caplog):
    calls = []

    def broken(sid, environ, auth):
        calls.append(auth)
        raise TypeError

    events.on_connect(broken)
    assert not client_of(app, auth={"api_key": "x"}).is_connected()
    assert calls == [{"api_key": "x"}]


def test_a_socket_that_has_joined_can_be_greeted(app, server, events):
    events.on_joined(lambda sid: server.emit("challenge", {"nonce": 1}, to=sid))
    assert [event["name"] for event in client_of(app).get_received()] == ["challenge"]


def test_the_observer_hears_registered_names_only(app, events, seen):
    events.on("echo", lambda sid, payload: payload)
    client = client_of(app)
    client.emit("echo", 1, callback=True)
    client.emit("made up by a client", 1, callback=True)
    assert [name for name, _seconds in seen] == ["echo", "*"]


def test_each_server_keeps_its_own_handlers_and_json(app, events):
    events.on("echo", lambda sid, payload: payload)
    other = flask.Flask("other")
    extension = flask_socketio.SocketIO(other, async_mode="threading")
    attach(extension, build_server(async_mode="threading"))
    assert client_of(other).emit("echo", 1, callback=True)["code"] == "unknown_event"
    assert client_of(app).emit("echo", 1, callback=True) == 1


@pytest.mark.parametrize("name", ["connect", "disconnect", "*"])
def test_reserved_names_cannot_be_registered(events, name):
    with pytest.raises(ValueError, match="reserved"):
        events.on(name, lambda sid, payload: payload)
