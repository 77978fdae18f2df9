"""A key used by several processes at once, and after they all stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grid_node.clock import ManualClock
from grid_node.errors import RateLimited
from grid_node.identity.limits import DatabaseLimiter
from grid_node.identity.redis_limits import RedisLimiter
from grid_node.identity.service import KeyService, NewKey
from grid_node.settings import Settings
from tests.contract.identity.charger import REDIS, open_store
from tests.contract.identity.test_limiter import redis_limiter

ROOT = Path(__file__).resolve().parents[3]
KEY = "EWJzrqUL94r5BEz0ZLPUbEwD8qdQX18dCUF9B7C2e0"
THREADS = 16
SIZES = {"sqlite": (4, 50), "postgresql": (2, 10), "redis": (2, 10)}
"""Processes, and tries of each of their threads."""


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def store_kind(kind):
    return "postgresql" if kind == "postgresql" else "sqlite-group"


@pytest.fixture
def backend(kind):
    if kind != "redis":
        yield "database"
        return
    limiter = redis_limiter()
    yield limiter._redis.key_prefix
    limiter._redis.reset()
    limiter.close()


def run_all(url, backend, key_id, now, count, tries):
    """Every process's tries, all begun together."""
    values = [url, backend, key_id, repr(now), str(THREADS), str(tries)]
    command = [sys.executable, "-m", "tests.contract.identity.charger", *values]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [wait for process in processes for wait in json.loads(process.communicate(timeout=100)[0])]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def test_processes_together_are_given_exactly_the_limit_and_a_restart_gives_no_more(kind, store, store_url, backend):
    clock = ManualClock()
    key_id = KeyService(store, clock, Settings()).add(NewKey(KEY, "one", 100, 60)).id
    store.close()

    count, tries = SIZES[kind]
    waits = run_all(store_url, backend, key_id, clock.now(), count, tries)
    assert len(waits) == count * THREADS * tries
    assert waits.count(0) == 100
    assert set(waits) == {0, 60}

    again = open_store(store_url)
    service = KeyService(again, clock, Settings())
    limiter = DatabaseLimiter() if backend == "database" else RedisLimiter(REDIS, backend)

    def ask():
        caller = again.read(lambda tx: service.require(tx, key_id, "client", clock.now()))
        return again.write(lambda tx: limiter.charge(tx, caller, clock.now()))

    clock.advance(59.5)
    with pytest.raises(RateLimited) as refusal:
        ask()
    assert refusal.value.retry_after == 1
    clock.advance(0.5)
    assert ask().remaining == 99
    again.close()
    if backend != "database":
        limiter.close()
