import pytest
from grid_client.backoff import Backoff, retry
from grid_client.errors import ConnectionLost, GridError


def test_waits_are_drawn_below_a_doubling_ceiling_with_a_cap() -> None:
    ceilings = []
    backoff = Backoff(1.0, 10.0, lambda low, high: ceilings.append((low, high)) or high)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert {low for low, _ in ceilings} == {0.0}
    backoff.reset()
    assert backoff.next() == 1


def test_a_wait_is_at_least_what_the_node_asked_for() -> None:
    assert Backoff(1.0, 2.0, lambda low, high: low).next(at_least=7.5) == 7.5


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(1.0, 30.0, lambda low, high: high)
    for _ in range(5000):
        last = backoff.next()
    assert last == 30


class Clock:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(*failures: GridError, then: str = "done"):
    remaining = list(failures)

    def attempt() -> str:
        if remaining:
            raise remaining.pop(0)
        return then

    return attempt


def test_retry_honours_retry_after_and_returns_the_later_answer() -> None:
    clock = Clock()
    busy = GridError("queue_full", status=503, retry_after=4.0)
    answer = retry(failing(busy, ConnectionLost()), 100.0, sleep=clock.sleep, clock=clock)
    assert answer == "done"
    assert clock.slept[0] >= 4.0
    assert len(clock.slept) == 2


def test_retry_gives_up_before_its_deadline_and_raises_the_last_failure() -> None:
    clock = Clock()
    busy = [GridError("rate_limited", status=429, retry_after=30.0) for _ in range(5)]
    with pytest.raises(GridError, match="rate_limited"):
        retry(failing(*busy), 70.0, sleep=clock.sleep, clock=clock)
    assert clock.now < 70.0


def test_a_refusal_for_good_is_not_repeated() -> None:
    clock = Clock()
    with pytest.raises(GridError, match="invalid_payload"):
        retry(failing(GridError("invalid_payload", status=400)), 9.0, sleep=clock.sleep, clock=clock)
    assert clock.slept == []


@pytest.mark.parametrize("body", [None, "text", [], {}, {"code": 7, "status": "x", "retry_after": "soon"}])
def test_an_error_body_of_any_shape_becomes_an_error(body: object) -> None:
    error = GridError.from_body(body, 502)
    assert (error.code, error.status, error.retry_after) == ("http_502", 502, None)


def test_an_error_carries_what_the_node_said() -> None:
    body = {"success": False, "error": "Too Many Requests", "code": "rate_limited", "status": 429}
    error = GridError.from_body({**body, "retry_after": 12})
    assert (error.code, error.status, error.retry_after) == ("rate_limited", 429, 12.0)
    assert str(error) == "rate_limited: Too Many Requests"
    assert error.retryable


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, True])
def test_an_absurd_retry_after_is_ignored(value: float) -> None:
    assert GridError.from_body({"retry_after": value}).retry_after is None
