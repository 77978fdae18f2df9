"""Requests that wait for updates of games: what ends a wait, and how many may."""

import threading
from collections.abc import Callable

import pytest

from grid_node.errors import Overloaded
from grid_node.http.game_polls import OF_ONE, GamePolls

LONG = 60.0


class Log:
    """Rings when told to."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None

    def follow(self, wake: Callable[[], None]) -> None:
        self.ring = wake


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def polls(log: Log) -> GamePolls:
    return GamePolls(log, 3)


def test_a_ring_is_heard_though_it_came_before_the_wait(log, polls):
    with polls.poll("a", {}, LONG) as poll:
        log.ring()

        assert poll.rings()


def test_a_ring_wakes_everybody(log, polls):
    heard = []

    def wait(reader: str, ready: threading.Barrier) -> None:
        with polls.poll(reader, {}, LONG) as poll:
            ready.wait(20)
            heard.append(poll.rings())

    ready = threading.Barrier(3)
    threads = [threading.Thread(target=wait, args=(reader, ready)) for reader in "ab"]
    for thread in threads:
        thread.start()
    ready.wait(20)
    log.ring()
    for thread in threads:
        thread.join(20)

    assert heard == [True, True]
    assert len(polls) == 0


def test_a_wait_ends_with_its_time(polls):
    with polls.poll("a", {}, 0.01) as poll:
        assert poll.rings()
        assert not poll.rings()


def test_one_reader_waits_twice_at_most(polls):
    with polls.poll("a", {}, LONG), polls.poll("a", {}, LONG):
        with pytest.raises(Overloaded) as refusal, polls.poll("a", {}, LONG):
            pass
        with polls.poll("b", {}, LONG):
            assert len(polls) == OF_ONE + 1

    assert refusal.value.retry_after == 1
    with polls.poll("a", {}, LONG):
        assert len(polls) == 1


def test_no_more_wait_than_there_is_room_for(polls):
    with polls.poll("a", {}, LONG), polls.poll("b", {}, LONG), polls.poll("c", {}, LONG), pytest.raises(Overloaded):
        polls.poll("d", {}, LONG).__enter__()

    assert len(polls) == 0


def test_the_end_of_the_node_ends_every_wait_and_those_that_would_begin(polls):
    with polls.poll("a", {}, LONG) as poll:
        polls.shut_down()

        assert not poll.rings()
    with polls.poll("a", {}, LONG) as late:
        assert not late.rings()
