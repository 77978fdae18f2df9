"""An answer that comes later, and what may only follow it."""

import threading

import pytest

from grid_node.wire.events import Later


@pytest.mark.parametrize("order", [("then", "finish"), ("finish", "then")])
def test_what_comes_afterwards_follows_the_answer_whoever_is_first(order):
    seen, later = [], Later()
    steps = {
        "then": lambda: later.then(seen.append),
        "finish": lambda: later.finish({"n": 1}, lambda: seen.append("afterwards")),
    }
    for step in order:
        steps[step]()
    assert seen == [{"n": 1}, "afterwards"]


def test_the_first_answer_counts_and_so_does_what_follows_it():
    seen, later = [], Later()
    later.finish({"n": 1})
    later.finish({"n": 2}, lambda: seen.append("afterwards"))
    later.then(seen.append)
    assert seen == [{"n": 1}]


def test_two_threads_at_once_give_one_answer_and_then_what_follows():
    for _ in range(300):
        seen, later, start = [], Later(), threading.Barrier(2)

        def finish(later=later, seen=seen, start=start):
            start.wait()
            later.finish({}, lambda: seen.append("afterwards"))

        thread = threading.Thread(target=finish)
        thread.start()
        start.wait()
        later.then(seen.append)
        thread.join()
        assert seen == [{}, "afterwards"]
