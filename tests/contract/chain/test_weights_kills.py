"""The chain's process is killed, at every place where it can be, and another one follows: the weights land once."""

import itertools

import pytest
from sqlalchemy import delete

from grid_node.chain.weights_tables import jobs, leases
from tests.chain_stub import LANDS_UNHEARD, LOST
from tests.contract.chain.weighing import LATE, A, B, World, sent
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

HALVES = {A: 0.5, B: 0.25}
ONCE = [sent((0, 65535), (1, 32768))]
PLACES_MIN = 20
"""An attempt has more places than this; a test that found fewer would have looked at nothing."""


class Killed(BaseException):
    """Not an Exception: nothing in the process may handle it."""


class Fuse:
    """Kills at the place with this number."""

    def __init__(self, place: int) -> None:
        self.left = place

    def burn(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class Fragile:
    """A store or a chain around which the process may be killed: before and after each call."""

    def __init__(self, inner, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name):
        inner = getattr(self._inner, name)

        def call(*args, **kwargs):
            self._fuse.burn()
            result = inner(*args, **kwargs)
            self._fuse.burn()
            return result

        return call


def killed_at(world: World, place: int, seconds: float) -> bool:
    """Let a process work that is killed at this place; whether it came so far."""
    fuse = Fuse(place)
    world.runner = world.new_runner(Fragile(world.store, fuse), Fragile(world.chain, fuse))
    try:
        world.runner.recover()
        world.run(seconds)
    except Killed:
        return True
    return False


def restart(world: World) -> None:
    world.runner = world.new_runner()
    world.runner.recover()


@pytest.mark.parametrize("outcome", ["lands", LANDS_UNHEARD, LOST, LATE])
def test_killed_anywhere_the_weights_land_once(store, outcome):
    for place in itertools.count(0, stride(store)):
        clear(store)
        world = World(store)
        world.chain.outcomes.append(outcome)
        world.put(HALVES)
        was_killed = killed_at(world, place, 5)
        world.wait(7)
        world.chain.land_late()
        restart(world)

        job = world.run(300)

        assert (job["status"], job["weights_submitted"]) == ("completed", True), place
        assert world.chain.weights == ONCE, place
        if not was_killed:
            break
    assert place > PLACES_MIN


def test_killed_anywhere_and_put_anew_the_newer_weights_come_last(store):
    for place in itertools.count(0, stride(store)):
        clear(store)
        world = World(store)
        world.chain.outcomes.append(LATE)
        world.put(HALVES)
        was_killed = killed_at(world, place, 5)
        world.put({B: 1.0})
        restart(world)
        world.run(20)
        world.chain.land_late()

        job = world.run(300)

        assert job["status"] == "completed", place
        assert world.chain.weights in ([sent((1, 65535))], [*ONCE, sent((1, 65535))]), place
        if not was_killed:
            break
    assert place > PLACES_MIN


def test_killed_twice_the_weights_land_once(store):
    for place in range(0, 60, 3 * stride(store)):
        clear(store)
        world = World(store)
        world.put(HALVES)
        killed_at(world, place, 5)
        killed_at(world, 11, 150)

        restart(world)
        assert world.run(300)["status"] == "completed", place
        assert world.chain.weights == ONCE, place


def test_attempts_are_counted_over_restarts(store):
    world = World(store, weights_retry_attempts=2)
    world.chain.is_down = "away"
    world.put(HALVES)
    for _ in range(3):
        restart(world)
        world.run()

    world.wait(10)
    assert world.run(60)["status"] == "failed"
    assert world.status()["attempts"] == 3


def test_a_process_that_is_killed_in_each_attempt_does_not_try_for_ever(store):
    world = World(store, weights_retry_attempts=2)
    world.put(HALVES)
    for _ in range(3):
        world.chain.neurons = killed
        restart(world)
        with pytest.raises(Killed):
            world.run()

    restart(world)
    job = world.run(60)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["last_error"] == "The last attempt was interrupted"


def stride(store) -> int:
    """On PostgreSQL a few places will do: what is tried is the same, and each takes ten times as long."""
    return 7 if store.engine.dialect.name == "postgresql" else 1


def killed(*_args):
    raise Killed


def clear(store):
    def unit(tx):
        tx.execute(delete(jobs))
        tx.execute(delete(leases))

    store.write(unit)
