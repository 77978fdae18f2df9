"""Requests of one model joined into batches.

Waiting for company pays only when company is on its way. So a batch takes at once whatever is there, and waits for
more, at most `delay` seconds after its first request arrived, only while the model has lately been asked by several
at a time: it hopes for half as many requests as the busiest recent batch had. A wait in vain ends the hope, so that a
lonely caller waits once after a rush and never again.
"""

import queue
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models_store.tensors import Tensor

LULL = 0.05
"""Seconds without a batch after which what was before says nothing any more."""
DECAY = 0.95


@dataclass(slots=True)
class Request:
    """One inference. Times are seconds of the batcher's clock."""

    id: int
    inputs: Sequence[Tensor]
    deadline: float
    arrived: float
    rows: int = field(init=False)
    likeness: Any = field(init=False)
    """Requests with equal likeness can be joined: equal types, equal non-batch shapes, equal number of rows in all
    inputs of each."""

    def __post_init__(self) -> None:
        self.rows = self.inputs[0].rows
        alike = all(tensor.shape and tensor.rows == self.rows for tensor in self.inputs)
        shapes = tuple((tensor.datatype, tuple(tensor.shape[1:])) for tensor in self.inputs)
        self.likeness = shapes if alike else object()


class Inbox(Protocol):
    """What a `queue.SimpleQueue` does. None in it says that no request follows."""

    def get(self, block: bool = True, timeout: float | None = None) -> Request | None:
        """Raises queue.Empty."""


class Clock(Protocol):
    def __call__(self) -> float: ...


class Batcher:
    """Takes batches out of an inbox. Requests past their deadline are left out: nobody waits for them."""

    def __init__(self, inbox: Inbox, rows_max: int, delay: float, joins: bool, now: Clock) -> None:
        """`joins`: whether requests of this model can be joined at all."""
        self._inbox = inbox
        self._rows_max = rows_max
        self._delay = delay
        self._joins = joins
        self._now = now
        self._waiting: deque[Request] = deque()
        self._hope = 1.0
        self._last = 0.0
        self._ended = False

    def next(self, idle: float) -> list[Request] | None:
        """The next batch, an empty list after `idle` seconds without a request, None at the end of the inbox."""
        while True:
            if not self._waiting and not self._wait(idle):
                return None if self._ended else []
            self._drain()
            first = self._waiting.popleft()
            if first.deadline > self._now():
                return self._gather(first)

    def _gather(self, first: Request) -> list[Request]:
        batch, rows = [first], first.rows
        if not self._joins or rows >= self._rows_max:
            return batch
        rows = self._join(batch, rows)
        if self._now() - self._last > LULL:
            self._hope = 1.0
        until = first.arrived + self._delay
        while len(batch) < self._hope / 2 and rows < self._rows_max and not self._waiting and not self._ended:
            left = until - self._now()
            if left <= 0 or not self._wait(left):
                self._hope = len(batch)
                break
            self._drain()
            rows = self._join(batch, rows)
        self._last = self._now()
        self._hope = max(float(len(batch) + len(self._waiting)), self._hope * DECAY)
        return batch

    def _join(self, batch: list[Request], rows: int) -> int:
        """Move into `batch` what fits, in order of arrival; the rest keeps its place. Returns the rows it has now."""
        likeness, rest, now = batch[0].likeness, deque[Request](), self._now()
        while self._waiting:
            request = self._waiting.popleft()
            if request.deadline <= now:
                continue
            if request.likeness == likeness and rows + request.rows <= self._rows_max:
                batch.append(request)
                rows += request.rows
            else:
                rest.append(request)
        self._waiting = rest
        return rows

    def _wait(self, seconds: float) -> bool:
        """Whether a request came."""
        if self._ended:
            return False
        try:
            return self._take(self._inbox.get(True, seconds))
        except queue.Empty:
            return False

    def _drain(self) -> None:
        try:
            while not self._ended and self._take(self._inbox.get(False)):
                pass
        except queue.Empty:
            pass

    def _take(self, request: Request | None) -> bool:
        if request is None:
            self._ended = True
            return False
        self._waiting.append(request)
        return True
