"""What the chain's process measures for the metrics."""

import threading

import pytest

from grid_node.chain.samples import Samples
from grid_node.clock import ManualClock


def test_an_operation_is_timed_with_its_labels():
    clock = ManualClock()
    samples = Samples(clock.steady)

    with samples.operation("get_neurons", "ws://a", 7):
        clock.advance(1.5)

    assert samples.drain() == [["operation", "get_neurons", "success", "ws://a", 7, "N/A", 1.5]]
    assert samples.drain() == []


def test_netuid_0_is_a_value():
    samples = Samples()
    with samples.operation("get_neurons", "ws://a", 0, "5F"):
        pass

    assert samples.drain()[0][4:6] == [0, "5F"]


def test_what_raises_is_an_error_and_goes_on():
    samples = Samples(ManualClock().steady)

    with pytest.raises(KeyError), samples.operation("get_block", "ws://a"):
        raise KeyError

    assert samples.drain() == [["operation", "get_block", "error", "ws://a", "N/A", "N/A", 0.0]]


def test_the_other_kinds():
    samples = Samples()
    samples.fallback("stale_block", "get_neurons")
    samples.job("success", 1, "5F", 3.0)
    samples.attempt("error", 1, None, 2.0)

    assert samples.drain() == [
        ["fallback", "stale_block", "get_neurons", "N/A"],
        ["job", "success", 1, "5F", 3.0],
        ["attempt", "error", 1, "N/A", 2.0],
    ]


def test_the_oldest_go_first_when_nobody_takes_them():
    samples = Samples(kept=3)
    for number in range(5):
        samples.job("success", number, "5F", 1.0)

    assert [sample[2] for sample in samples.drain()] == [2, 3, 4]


def test_a_part_may_be_taken():
    samples = Samples()
    for number in range(5):
        samples.job("success", number, "5F", 1.0)

    assert [len(samples.drain(2)), len(samples.drain(2)), len(samples.drain(2))] == [2, 2, 1]


def test_threads_lose_nothing():
    samples, taken = Samples(), []

    def measure():
        for _ in range(500):
            samples.fallback("stale_block", "get_block")

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += samples.drain()
    taken += samples.drain()

    assert len(taken) == 2000
