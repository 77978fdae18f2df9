"""The one timer of all sessions: stepped by hand, on polling sessions that need no socket."""

import pytest

from grid_node.wire.engine import Deadlines
from grid_node.wire.events import Events
from grid_node.wire.limits import WireLimits
from grid_node.wire.server import build_server
from grid_node.wire.session import WireSocket

CONNECT = {"REQUEST_METHOD": "GET", "QUERY_STRING": "EIO=4&transport=polling"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock):
    limits = WireLimits(join_seconds=10, backlog_items=5)
    server = build_server(
        async_mode="threading", limits=limits, clock=clock, ping_interval=25, ping_timeout=20, monitor_clients=False
    )
    server.eio.start_service_task = False  # the test is the timer
    server.eio.start_background_task = lambda target, *args, **kwargs: target(*args, **kwargs)
    return server


@pytest.fixture
def engine(server):
    return server.eio


@pytest.fixture
def session(engine) -> WireSocket:
    engine.handle_request(dict(CONNECT), lambda status, headers: None)
    (session,) = engine.sockets.values()
    return session


def step(engine, clock, seconds: float) -> None:
    clock.now += seconds
    engine.keep_deadlines(clock.now)


def test_items_fall_due_in_order_and_once():
    deadlines = Deadlines(10)
    deadlines.add(0, "a")
    deadlines.add(5, "b")
    assert [deadlines.due(9), deadlines.due(10), deadlines.due(20), deadlines.due(30)] == [[], ["a"], ["b"], []]


def test_a_session_that_joins_nothing_is_cut(engine, clock, session):
    step(engine, clock, 10)
    assert session.closed
    assert (engine.sockets, engine.pending, engine.counts) == ({}, 0, {"join_timeout": 1})


def test_a_session_that_left_its_last_namespace_is_cut(engine, clock, session):
    engine.mark_joined(session)
    step(engine, clock, 10)
    engine.mark_left(session)
    assert engine.pending == 1

    step(engine, clock, 9)
    assert not session.closed
    step(engine, clock, 1)
    assert session.closed
    assert (engine.pending, engine.counts) == (0, {"join_timeout": 1})


def test_a_session_that_joined_again_stays(engine, clock, session):
    for _ in range(2):
        engine.mark_joined(session)
        step(engine, clock, 10)
        engine.mark_left(session)
    engine.mark_joined(session)
    step(engine, clock, 10)
    assert not session.closed


@pytest.mark.parametrize("who", ["client", "server"])
def test_leaving_one_namespace_of_two_is_not_leaving(engine, session, server, who):
    for name in ("/", "/other"):
        Events(server, name)
    session.receive_encoded("40")
    session.receive_encoded("40/other,")

    leave(server, session, "/", who)
    assert session.joined
    leave(server, session, "/other", who)
    assert not session.joined


def leave(server, session, namespace, who):
    if who == "client":
        session.receive_encoded("41" if namespace == "/" else f"41{namespace},")
    else:
        server.disconnect(server.manager.sid_from_eio_sid(session.sid, namespace), namespace)


def test_a_session_that_answers_pings_lives(engine, clock, session):
    engine.mark_joined(session)
    for _ in range(10):
        step(engine, clock, 25)
        session.poll()
        session.receive_encoded("3")
    assert not session.closed


def test_a_session_that_answers_no_ping_is_cut(engine, clock, session):
    engine.mark_joined(session)
    step(engine, clock, 25)
    step(engine, clock, 20)
    assert session.closed
    assert engine.counts == {"ping_timeout": 1}


def test_pongs_that_nobody_asked_for_schedule_nothing(engine, clock, session):
    engine.mark_joined(session)
    for _ in range(100):
        session.receive_encoded("3")
    step(engine, clock, 25)
    assert len(session.poll()) == 1


def test_a_polling_session_that_is_not_polled_is_cut(engine, session):
    for _ in range(6):
        session.send_text('2["news"]')
    assert session.closed
    assert engine.counts["slow_reader"] == 1


def test_a_shutdown_ends_every_session_and_tells_the_application(engine, session):
    engine.close_all()
    assert session.closed
    assert engine.sockets == {}
