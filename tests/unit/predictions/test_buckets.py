"""Token buckets: how many at once, how many later, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.predictions import buckets
from grid_node.predictions.buckets import Buckets


def test_a_burst_is_let_through_and_then_the_exact_wait_is_told() -> None:
    some = Buckets(rate=20, burst=3)

    assert [some.take("a", 10.0) for _ in range(3)] == [None, None, None]
    assert some.take("a", 10.0) == pytest.approx(0.05)


def test_whoever_waits_as_long_as_told_gets_in() -> None:
    some = Buckets(rate=4, burst=1)
    some.take("a", 0.0)
    wait = some.take("a", 0.1)

    assert wait is not None
    assert some.take("a", 0.1 + wait) is None


def test_miners_have_buckets_of_their_own() -> None:
    some = Buckets(rate=1, burst=1)
    some.take("a", 0.0)

    assert some.take("b", 0.0) is None


def test_a_clock_set_back_gives_nothing_and_takes_nothing() -> None:
    some = Buckets(rate=1, burst=1)
    some.take("a", 100.0)

    assert some.take("a", 50.0) == pytest.approx(1.0)
    assert some.take("a", 51.0) is None


def test_no_more_buckets_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "KEPT", 2)
    some = Buckets(rate=0.001, burst=1)
    for name in "abc":
        some.take(name, 0.0)

    assert some.take("c", 0.0) is not None
    assert some.take("a", 0.0) is None, "the one that was used longest ago went"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(1, 20), st.floats(0.1, 50))
def test_no_interval_sees_more_than_the_burst_and_the_rate_allow(moments: list[float], burst: int, rate: float) -> None:
    some = Buckets(rate, burst)
    taken = [at for at in sorted(moments) if some.take("a", at) is None]

    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-6
