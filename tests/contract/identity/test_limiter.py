"""What a limiter promises: the database's on every store, and Redis's."""

import contextlib
import itertools
import math
import os
import socket
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from grid_node.clock import ManualClock
from grid_node.errors import InvalidKey, RateLimited, StoreUnavailable
from grid_node.identity import limits
from grid_node.identity.limits import DatabaseLimiter, Window, headers
from grid_node.identity.redis_limits import RedisLimiter
from grid_node.identity.service import KeyService, NewKey
from grid_node.settings import Settings

KEY = "EWJzrqUL94r5BEz0ZLPUbEwD8qdQX18dCUF9B7C2e0"
REDIS = "redis://127.0.0.1:6379/9"


def redis_limiter():
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(0.5)
        if probe.connect_ex(("127.0.0.1", 6379)) != 0:
            pytest.skip("no Redis on 127.0.0.1:6379")
    return RedisLimiter(REDIS, prefix=f"grid-test-{os.getpid()}-{uuid.uuid4().hex[:8]}")


class Door:
    """One key before one limiter, as an accept transaction uses them."""

    def __init__(self, store, limiter):
        self.store = store
        self.limiter = limiter
        self.clock = ManualClock()
        self.began = self.clock.now()
        self.service = KeyService(store, self.clock, Settings())
        self.key_id = None

    def key(self, max_requests, period):
        self.key_id = self.service.add(NewKey(KEY, "one", max_requests, period)).id

    def ask(self, at=None):
        """Seconds to wait, 0 when accepted."""
        try:
            self.charge(at)
        except RateLimited as refusal:
            return refusal.retry_after
        return 0

    def charge(self, at=None):
        return self.store.write(lambda tx: self._charge(tx, at))

    def _charge(self, tx, at):
        now = self.clock.now() if at is None else self.began + at
        caller = self.service.require(tx, self.key_id, "client", now)
        return self.limiter.charge(tx, caller, now)

    def window(self):
        return self.store.read(self._window)

    def _window(self, tx):
        caller = self.service.require(tx, self.key_id, None, self.clock.now())
        return self.limiter.window(tx, caller, self.clock.now())

    def purge(self):
        return self.store.write(lambda tx: self.limiter.purge(tx, self.clock.now()))


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def store_kind(kind):
    return "postgresql" if kind == "postgresql" else "sqlite-group"


@pytest.fixture
def door(kind, store):
    if kind != "redis":
        yield Door(store, DatabaseLimiter())
        return
    limiter = redis_limiter()
    yield Door(store, limiter)
    limiter._redis.reset()
    limiter.close()


in_the_database = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
on_sqlite = pytest.mark.parametrize("kind", ["sqlite"])


def test_exactly_the_limit_is_accepted(door):
    door.key(5, 60)
    assert [door.ask() for _ in range(8)] == [0] * 5 + [60] * 3


def test_the_next_one_is_accepted_exactly_a_period_after_the_oldest(door):
    door.key(2, 60)
    assert door.ask(0) == 0
    assert door.ask(10) == 0
    assert door.ask(59.999) == 1
    assert door.ask(60) == 0
    assert door.ask(60) == 10
    assert door.ask(70) == 0


def test_retry_after_is_right_to_a_second_rounded_up(door):
    door.key(1, 60)
    door.ask(0)
    assert [door.ask(at) for at in (0, 0.5, 1, 1.5, 58.9, 59.5)] == [60, 60, 59, 59, 2, 1]


def test_no_interval_holds_twice_the_limit_across_an_edge(door):
    door.key(10, 60)
    assert [door.ask(59 + n / 100) for n in range(10)] == [0] * 10
    assert all(door.ask(61 + n) > 0 for n in range(20))


def test_refusals_cost_nothing(door):
    door.key(1, 60)
    door.ask(0)
    for second in range(1, 60):
        assert door.ask(second) == 60 - second
    assert door.ask(60) == 0


def test_a_key_with_limit_0_may_never_create(door):
    door.key(0, 60)
    with pytest.raises(RateLimited) as refusal:
        door.charge()
    assert refusal.value.body()["retry_after"] is None
    assert door.window() == Window(0, 0, None, 60)


def test_the_window_tells_what_is_left(door):
    door.key(3, 60)
    assert door.window() == Window(3, 3, 0, 60)
    assert door.charge() == Window(3, 2, 60, 60)
    door.clock.advance(20)
    assert door.charge() == Window(3, 1, 40, 60)
    assert door.window() == Window(3, 1, 40, 60)
    door.charge()
    assert door.window() == Window(3, 0, 40, 60)
    door.clock.advance(40)
    assert door.window() == Window(3, 1, 20, 60)
    door.clock.advance(60)
    assert door.window() == Window(3, 3, 0, 60)


def test_looking_at_the_window_costs_nothing(door):
    door.key(1, 60)
    for _ in range(5):
        door.window()
    assert door.ask() == 0
    with pytest.raises(RateLimited):
        door.window().check()


def test_a_lowered_limit_waits_until_there_is_room_under_it(door):
    door.key(4, 60)
    for at in (0, 10, 20, 30):
        door.ask(at)
    door.service.limit(door.key_id, 2, 60)
    assert door.ask(40) == 40  # until the one of second 20 has left
    assert door.ask(60) == 20
    assert door.ask(80) == 0
    assert door.ask(80) == 10


def test_a_raised_limit_works_at_once(door):
    door.key(1, 60)
    door.ask(0)
    door.service.limit(door.key_id, 3, 60)
    assert [door.ask(1) for _ in range(3)] == [0, 0, 59]


def test_requests_that_reach_the_log_out_of_order_do_not_widen_the_window(door):
    door.key(2, 60)
    assert door.ask(0.5) == 0
    assert door.ask(0.3) == 0  # waited longer for its turn
    # the window of 60.2 holds both; counted from the one with the earlier time, it would seem to hold one
    assert door.ask(60.2) == 1
    assert door.ask(60.5) == 0


@pytest.mark.parametrize("order", list(itertools.permutations([0.1, 0.5, 0.6])))
def test_no_order_of_arrival_widens_the_window(door, order):
    door.key(3, 60)
    times = [*order, 60.2, 60.2, 60.2]
    accepted = [at for at in times if door.ask(at) == 0]
    assert sum(0.2 < at <= 60.2 for at in accepted) <= 3


def test_a_clock_set_back_counts_the_future_as_now(door):
    door.key(2, 60)
    assert door.ask(100_000) == 0
    assert door.ask(100_001) == 0
    assert door.ask(0) == 60


def test_a_clock_set_back_locks_a_key_for_one_period_at_most(door):
    door.key(1, 60)
    door.ask(100_000)
    door.purge()
    assert door.ask(0) == 60
    assert door.ask(59.5) == 1
    assert door.ask(60) == 0
    assert door.ask(60) == 60


def test_keys_do_not_share_a_window(door):
    door.key(1, 60)
    door.ask()
    door.key_id = door.service.add(NewKey(KEY + "2", "two", 1, 60)).id
    assert door.ask() == 0


def test_a_removed_key_is_not_charged(door):
    door.key(1, 60)
    caller = door.service.authenticate(KEY, "192.0.2.1")
    door.service.remove(KEY)
    if isinstance(door.limiter, DatabaseLimiter):
        with pytest.raises(InvalidKey):
            door.store.write(lambda tx: door.limiter.charge(tx, caller, 0.0))
        with pytest.raises(InvalidKey):
            door.store.read(lambda tx: door.limiter.window(tx, caller, 0.0))


@in_the_database
def test_a_unit_that_fails_after_its_charge_costs_nothing(door):
    door.key(1, 60)

    def unit(tx):
        door._charge(tx, 0)
        raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            door.store.write(unit)
    assert door.window().remaining == 1
    assert [door.ask(0), door.ask(0)] == [0, 60]


@in_the_database
def test_a_purge_forgets_what_no_window_holds_and_keeps_the_rest(door, monkeypatch):
    monkeypatch.setattr(DatabaseLimiter, "PURGE", 3)
    door.key(10, 60)
    for at in range(5):
        door.ask(at)
    door.clock.advance(30)
    door.ask()
    assert door.purge() == 0
    door.clock.advance(33.5)  # the entries of seconds 0 to 3 have left
    assert [door.purge(), door.purge(), door.purge()] == [3, 1, 0]
    door.clock.advance(0.5)  # the one of second 4 leaves exactly now
    before = door.window()
    assert [door.purge(), door.purge()] == [1, 0]
    assert door.window() == before
    assert before.remaining == 9
    count = "SELECT count(*) FROM charges"
    assert door.store.read(lambda tx: tx.execute(text(count)).scalar()) == 1


@on_sqlite
def test_a_full_window_of_a_large_limit_is_answered_from_the_index(door):
    plans = door.store.read(_plans)
    assert plans
    assert all("SCAN" not in plan and "TEMP B-TREE" not in plan for plan in plans)


def _plans(tx):
    found = []
    for statement in (limits._OLDEST.statement, limits._AT, limits._PURGEABLE, limits._CLAMP_CHARGES):
        sql = str(statement.compile(tx.connection, compile_kwargs={"render_postcompile": True}))
        values = (1,) * sql.count("?")
        found += [row[3] for row in tx.connection.exec_driver_sql("EXPLAIN QUERY PLAN " + sql, values)]
    return found


@on_sqlite
def test_redis_that_is_away_is_a_fault_of_ours_and_no_verdict(door):
    door.key(1, 60)
    door.limiter = RedisLimiter("redis://127.0.0.1:1/9")
    with pytest.raises(StoreUnavailable):
        door.ask()
    door.limiter.close()


def test_header_fields_are_those_of_the_draft():
    assert headers(Window(100, 37, 12, 60)) == {
        "RateLimit-Policy": '"key";q=100;w=60',
        "RateLimit": '"key";r=37;t=12',
    }
    assert headers(Window(0, 0, None, 60))["RateLimit"] == '"key";r=0;t=60'


@on_sqlite
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(1, 5),
    period=st.integers(1, 20),
    steps=st.lists(st.floats(0, 9).map(lambda s: round(s, 3)), max_size=40),
)
def test_in_any_interval_of_a_period_at_most_the_limit_is_accepted(door, limit, period, steps):
    door.key(limit, period)
    accepted = []
    for step in steps:
        door.clock.advance(step)
        now = door.clock.now()
        recent = [at for at in accepted if at > now - period]
        wait = door.ask()
        if len(recent) < limit:
            assert wait == 0
            accepted.append(now)
        else:
            assert wait == math.ceil(recent[-limit] + period - now)
    door.service.remove(KEY)
