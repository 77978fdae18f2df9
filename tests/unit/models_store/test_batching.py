"""Batches: who is joined with whom, and who waits for company. Time stands still but for what a wait takes."""

import queue
from collections import deque

from models_store.batching import Batcher, Request
from models_store.tensors import Tensor

DELAY = 0.005


class Inbox:
    """Requests at given times; waiting for one moves the clock."""

    def __init__(self, *arrivals: Request | None) -> None:
        self.now = 100.0
        self.waited = 0.0
        self._arrivals = deque(arrivals)
        self._ended_at = self.now

    def clock(self) -> float:
        return self.now

    def add(self, *arrivals: Request) -> None:
        self._arrivals.extend(arrivals)

    def get(self, block: bool = True, timeout: float | None = None) -> Request | None:
        latest = self.now + (timeout or 0.0 if block else 0.0)
        first = self._arrivals[0] if self._arrivals else None
        due = latest + 1 if not self._arrivals else first.arrived if first is not None else self.now
        self.waited += max(0.0, min(due, latest) - self.now)
        self.now = max(self.now, min(due, latest))
        if due > latest:
            raise queue.Empty
        return self._arrivals.popleft()


_numbers = iter(range(1, 10_000))


def request(rows: int = 1, width: int = 4, at: float = 100.0, deadline: float = 1e9, datatype: str = "FP32") -> Request:
    data = bytes(rows * width * 4)
    return Request(next(_numbers), [Tensor("x", datatype, (rows, width), data)], deadline, at)


def batcher(inbox: Inbox, rows_max: int = 8, joins: bool = True) -> Batcher:
    return Batcher(inbox, rows_max, DELAY, joins, inbox.clock)


def ids(batch: list[Request] | None) -> list[int]:
    assert batch is not None
    return [one.id for one in batch]


def test_what_is_there_goes_together_at_once() -> None:
    there = [request() for _ in range(5)]
    inbox = Inbox(*there)
    assert ids(batcher(inbox).next(1.0)) == [one.id for one in there]
    assert inbox.waited == 0.0


def test_a_lonely_request_does_not_wait() -> None:
    inbox = Inbox()
    batches = batcher(inbox)
    for number in range(20):
        inbox.add(request(at=100.0 + number))
        assert len(ids(batches.next(10.0))) == 1
        assert inbox.now == 100.0 + number  # the moment of its arrival


def test_after_a_rush_a_batch_waits_for_company_but_no_longer_than_the_delay() -> None:
    inbox = Inbox(*[request() for _ in range(8)])
    batches = batcher(inbox)
    assert len(ids(batches.next(1.0))) == 8
    inbox.add(*[request(at=inbox.now + 0.001 * number) for number in range(1, 5)])
    assert len(ids(batches.next(1.0))) == 4  # half of what was there before came
    begun = inbox.now
    inbox.add(request(at=begun), request(at=begun + 1.0))
    assert len(ids(batches.next(1.0))) == 1
    assert begun + DELAY <= inbox.now < begun + DELAY + 1e-6


def test_a_wait_in_vain_is_not_repeated() -> None:
    inbox = Inbox(*[request() for _ in range(8)])
    batches = batcher(inbox)
    batches.next(1.0)
    for wait in (DELAY, 0.0, 0.0):
        begun = inbox.now
        inbox.add(request(at=begun))
        batches.next(1.0)
        assert abs(inbox.now - begun - wait) < 1e-6


def test_after_a_lull_nobody_waits() -> None:
    inbox = Inbox(*[request() for _ in range(8)])
    batches = batcher(inbox)
    batches.next(1.0)
    inbox.add(request(at=inbox.now + 0.2))
    batches.next(1.0)
    assert inbox.now == 100.2


def test_requests_of_other_shapes_or_types_keep_their_turn() -> None:
    a, wide, b, double = request(), request(width=5), request(), request(datatype="INT32")
    batches = batcher(Inbox(a, wide, b, double))
    assert [ids(batches.next(1.0)) for _ in range(3)] == [[a.id, b.id], [wide.id], [double.id]]


def test_a_batch_has_no_more_than_its_rows_and_a_larger_request_runs_alone() -> None:
    large, a, b, c = request(rows=20), request(rows=5), request(rows=4), request(rows=3)
    batches = batcher(Inbox(large, a, b, c))
    assert [ids(batches.next(1.0)) for _ in range(3)] == [[large.id], [a.id, c.id], [b.id]]


def test_a_model_that_is_not_batchable_gets_one_request_at_a_time() -> None:
    there = [request() for _ in range(3)]
    batches = batcher(Inbox(*there), joins=False)
    assert [ids(batches.next(1.0)) for _ in there] == [[one.id] for one in there]


def test_inputs_with_different_rows_in_one_request_are_joined_with_nobody() -> None:
    def uneven() -> Request:
        tensors = [Tensor("x", "FP32", (2, 1), bytes(8)), Tensor("y", "FP32", (3, 1), bytes(12))]
        return Request(next(_numbers), tensors, 1e9, 100.0)

    batches = batcher(Inbox(uneven(), uneven()))
    assert [len(ids(batches.next(1.0))) for _ in range(2)] == [1, 1]


def test_who_is_past_the_deadline_is_left_out() -> None:
    late, alive, also_late = request(deadline=99.0), request(), request(deadline=100.0)
    assert ids(batcher(Inbox(late, alive, also_late)).next(1.0)) == [alive.id]


def test_idleness_and_the_end_are_told_apart() -> None:
    last = request()
    inbox = Inbox()
    batches = batcher(inbox)
    assert batches.next(30.0) == []
    assert inbox.now == 130.0
    inbox.add(last, None)  # type: ignore[arg-type]
    assert ids(batches.next(30.0)) == [last.id]
    assert batches.next(30.0) is None
    assert inbox.now == 130.0
