"""Errands on their way to the queue."""

import pytest
from huey import MemoryHuey

from grid_node.jobs.queue import HELD, ErrandQueue
from tests.nodes import until


@pytest.fixture
def errands():
    made = ErrandQueue(MemoryHuey("deliveries", results=False), MemoryHuey("merges", results=False))
    made.start()
    yield made
    made.stop()


def waiting(huey):
    return [task.args for task in huey.pending()]


def test_an_errand_that_is_due_later_waits_and_keeps_none_back(errands):
    errands.deliver("later", 0.3)
    errands.deliver("sooner", 0.2)
    errands.deliver("now")
    until(lambda: len(waiting(errands.deliveries)) == 3)
    assert waiting(errands.deliveries) == [("now",), ("sooner",), ("later",)]


def test_what_is_due_long_from_now_is_left_to_the_sweeper(errands):
    errands.deliver("in an hour", 3600.0)
    errands.deliver("now", 0.0)
    until(lambda: waiting(errands.deliveries) == [("now",)])
    assert 3600.0 > HELD >= 10.0, "the short pauses between tries do not wait for a sweep"
    assert errands._thread._later == []


def test_merges_have_a_queue_of_their_own(errands):
    errands.merge(7)
    until(lambda: waiting(errands.merges) == [(7,)])
    assert waiting(errands.deliveries) == []


def test_an_errand_that_cannot_be_enqueued_stops_none_behind_it(errands, monkeypatch, caplog):
    def broken(_data, priority=None):
        monkeypatch.undo()
        raise OSError("no space left on device")

    monkeypatch.setattr(errands.deliveries.storage, "enqueue", broken)
    errands.deliver("lost")
    errands.deliver("next")
    until(lambda: waiting(errands.deliveries) == [("next",)])
    assert "the sweeper will try again" in caplog.text


def test_the_consumer_runs_what_it_was_told_to(errands):
    ran = []
    errands.run_deliver = errands.run_merge = ran.append
    errands.deliver("msg_1")
    until(lambda: waiting(errands.deliveries) == [("msg_1",)])
    errands.deliveries.execute(errands.deliveries.dequeue())
    errands.merge(7)
    until(lambda: waiting(errands.merges) == [(7,)])
    errands.merges.execute(errands.merges.dequeue())
    assert ran == ["msg_1", 7]
