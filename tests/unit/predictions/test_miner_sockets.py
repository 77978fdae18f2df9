"""Sessions of miners and the task that looks after them, on a clock that is moved by hand."""

import json
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from events.miner_watch import MinerWatch
from events.miners import FAULTS, FAULTS_SECONDS, Flow, MinerSession, MinerSessions, State
from grid_node.clock import ManualClock
from grid_node.errors import (
    AlreadyAuthenticated,
    AuthFailed,
    Blacklisted,
    NotAuthenticated,
    NotRegistered,
    RegistrationUnknown,
    ServerFull,
)
from grid_node.metrics import Metrics
from grid_node.predictions.broadcast import Follower, Place
from grid_node.predictions.ports import Miner
from grid_node.predictions.update_log import Position, Snapshot
from grid_node.settings import Settings

SETTINGS = Settings()
NOWHERE = Position("a" * 16, 7)


class FakeLog:
    newest = NOWHERE

    def follow(self, wake):
        pass

    def snapshot(self):
        return Snapshot(NOWHERE, [SimpleNamespace(canonical_size=10)])


class Registry:
    """Says of a hotkey what it is told to say."""

    def __init__(self):
        self.errors = {}

    def admit(self, public_key):
        if public_key in self.errors:
            raise self.errors[public_key]


class Publisher:
    """Notes what would be sent."""

    def __init__(self):
        self.ended = {}
        self.heartbeats = Counter()

    def hang_up(self, sid, closing):
        assert sid not in self.ended
        self.ended[sid] = closing["code"]

    def heartbeat(self, sid, text):
        assert json.loads(text)["seq"] == NOWHERE.seq
        self.heartbeats[sid] += 1

    def game_update(self, sid, compressed, update):
        return True


class House:
    """The watch with everything around it."""

    def __init__(self):
        self.clock = ManualClock()
        self.registry = Registry()
        self.publisher = Publisher()
        self.sessions = MinerSessions(1000, 1000)
        signer = SimpleNamespace(base_fields=lambda message_type: {"message_type": message_type})
        services = SimpleNamespace(
            settings=SETTINGS,
            clock=self.clock,
            metrics=Metrics(),
            predicting=SimpleNamespace(log=FakeLog(), registry=self.registry, signer=signer),
        )
        server = SimpleNamespace(sleep=lambda _seconds: None)
        self.watch = MinerWatch(services, server, self.publisher, self.sessions)
        self.broadcast = self.watch.broadcast

    def connect(self, sid, ip="10.0.0.1"):
        follower = Follower(lambda update: self.watch.send_update(sid, update))
        session = MinerSession(sid, ip, None, self.clock.steady(), Flow(2), follower)
        self.sessions.add(session)
        return session

    def open(self, sid, miner=None):
        session = self.connect(sid)
        session.heard_at = self.clock.steady()
        session.heartbeat_at = self.clock.steady() + SETTINGS.websocket_heartbeat_interval
        self.sessions.let_in(session, miner or miner_of(sid))
        self.broadcast.join(session.follower, NOWHERE)
        return session

    def pass_time(self, seconds):
        """In steps of one second, as the loop takes them."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.watch.tick()


def miner_of(name):
    key = name.encode().ljust(32, b"\0")
    return Miner(key.hex(), f"address of {name}", key)


@pytest.fixture
def house():
    return House()


def test_who_does_not_authenticate_in_ten_seconds_is_cut(house):
    house.connect("slow")
    house.clock.advance(9.999)
    house.watch.tick()
    assert house.publisher.ended == {}
    house.clock.advance(0.001)
    house.watch.tick()
    assert house.publisher.ended == {"slow": 4402}
    assert house.watch.counts() == {"connections": 0, "active": 0, "pending": 0}


def test_each_socket_gets_a_heartbeat_in_each_interval(house):
    house.open("first")
    house.pass_time(30)
    house.open("second")
    house.pass_time(90)
    assert house.publisher.heartbeats == {"first": 2, "second": 1}


def test_silence_makes_inactive_after_two_intervals_and_ends_the_socket_after_the_timeout(house):
    house.open("silent")
    house.open("alive")
    for _ in range(4):
        house.watch.heard("alive")
        house.pass_time(30)
    assert house.watch.counts() == {"connections": 2, "active": 2, "pending": 0}
    house.pass_time(1)
    assert house.watch.counts() == {"connections": 2, "active": 1, "pending": 0}
    for _ in range(6):
        house.watch.heard("alive")
        house.pass_time(29)
    assert house.publisher.ended == {}
    house.watch.heard("alive")
    house.pass_time(5)
    assert house.publisher.ended == {"silent": 4408}


def test_a_reader_that_acknowledges_nothing_is_cut_although_it_is_alive(house):
    session = house.open("deaf")
    house.broadcast.join(session.follower, None)
    house.pass_time(SETTINGS.websocket_slow_timeout)
    assert house.publisher.ended == {}
    house.pass_time(1)
    assert house.publisher.ended == {"deaf": 4430}
    assert session.follower.place is Place.GONE
    assert len(house.broadcast) == 0


def test_a_recheck_ends_who_may_no_longer_be_here_and_nobody_else(house):
    sessions = {name: house.open(name) for name in ("gone", "bad", "unknown", "good")}
    errors = {"gone": NotRegistered(), "bad": Blacklisted(), "unknown": RegistrationUnknown()}
    house.registry.errors = {miner_of(name).public_key: error for name, error in errors.items()}
    house.watch.recheck()
    assert house.publisher.ended == {"gone": 4405, "bad": 4404}
    refused = {name: type(session.refused()) for name, session in sessions.items()}
    assert refused == {"gone": NotRegistered, "bad": Blacklisted, "unknown": type(None), "good": type(None)}


def test_a_key_that_is_gone_ends_its_sockets(house):
    house.open("keyed", Miner("key:abc", "key:abc", None))
    house.open("other", Miner("key:abcd", "key:abcd", None))
    house.open("hotkey")
    assert house.watch.keys() == {"abc", "abcd"}
    house.watch.drop_key("abc", {"code": 4401, "error": "Invalid API Key"})
    assert house.publisher.ended == {"keyed": 4401}
    house.watch.recheck()
    assert house.publisher.ended == {"keyed": 4401}


def test_every_socket_is_told_once_that_the_node_ends(house):
    house.open("open")
    house.connect("pending")
    house.watch.shut_down()
    house.watch.shut_down()
    assert house.publisher.ended == {"open": 4503, "pending": 4503}


# --- sessions


def test_the_newer_session_of_a_miner_takes_over_and_outlives_the_older(house):
    older = house.open("older", miner_of("same"))
    newer = house.connect("newer")
    assert house.sessions.let_in(newer, miner_of("same")) is older
    assert house.sessions.remove(older)
    third = house.connect("third")
    assert house.sessions.let_in(third, miner_of("same")) is newer


def test_a_socket_that_ended_while_it_authenticated_does_not_come_in(house):
    session = house.connect("hasty")
    house.watch.forget(session)
    with pytest.raises(NotAuthenticated):
        house.sessions.let_in(session, miner_of("hasty"))
    assert house.sessions.let_in(house.connect("again"), miner_of("hasty")) is None


def test_a_socket_has_one_try(house):
    house.connect("one")
    house.sessions.attempt("one")
    with pytest.raises(AuthFailed):
        house.sessions.attempt("one")
    house.open("open")
    with pytest.raises(AlreadyAuthenticated):
        house.sessions.attempt("open")
    with pytest.raises(NotAuthenticated):
        house.sessions.attempt("nobody")


def test_limits_hold_for_all_and_for_the_pending_of_one_address():
    sessions = MinerSessions(most=3, most_pending=2)

    def connect(sid, ip):
        session = MinerSession(sid, ip, None, 0.0, Flow(1), Follower(lambda update: True))
        sessions.add(session)
        return session

    first = connect("1", "a")
    connect("2", "a")
    with pytest.raises(ServerFull):
        connect("3", "a")
    sessions.let_in(first, miner_of("x"))
    connect("3", "a")
    with pytest.raises(ServerFull):
        connect("4", "b")
    sessions.remove(first)
    connect("4", "b")


def test_counts_equal_the_sockets_after_any_series_of_connects_ends_and_replacements(house):
    chance = random.Random(5)
    there = {}
    for number in range(2000):
        what = chance.random()
        if what < 0.4 or not there:
            sid = str(number)
            there[sid] = house.connect(sid, ip=str(chance.randrange(5)))
        elif what < 0.75:
            session = chance.choice(list(there.values()))
            if session.state is State.PENDING:
                older = house.sessions.let_in(session, miner_of(str(chance.randrange(20))))
                if older is not None:
                    house.watch.close(older, {"code": 4409})
                    del there[older.sid]
        else:
            house.watch.forget(there.pop(chance.choice(list(there))))
        states = Counter(session.state for session in there.values())
        counts = house.watch.counts()
        assert (counts["connections"], counts["pending"]) == (states[State.OPEN], states[State.PENDING])
    miners = [session.miner.identity for session in there.values() if session.miner]
    assert len(miners) == len(set(miners))


# --- flow


def test_one_message_more_than_the_window_is_refused_until_one_is_answered():
    flow = Flow(2)
    assert [flow.take() for _ in range(3)] == [True, True, False]
    flow.free()
    assert [flow.take() for _ in range(2)] == [True, False]


def test_three_times_the_window_without_an_answer_is_a_violation():
    flow = Flow(2)
    for _ in range(5):
        flow.take()
    assert not flow.is_violated
    flow.free()
    for _ in range(4):
        assert not flow.is_violated
        flow.take()
    assert not flow.is_violated
    flow.take()
    assert flow.is_violated


def test_faults_count_for_a_minute():
    flow = Flow(1)
    assert not any(flow.fault(float(second)) for second in range(FAULTS - 1))
    assert not flow.fault(FAULTS_SECONDS)
    assert not Flow(1).fault(0.0, FAULTS - 1)
    assert Flow(1).fault(0.0, FAULTS)
    quick = Flow(1)
    assert [quick.fault(1.0) for _ in range(FAULTS)] == [False] * (FAULTS - 1) + [True]
