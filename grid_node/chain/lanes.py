"""Owner threads: a connection to a chain belongs to one thread, and whoever wants something of it queues up there."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]
FIRST, NORMAL = 0, 1
"""Priorities; within one, first come is first served."""
AFTER_FAULT = 10.0
"""Seconds until a turn that raised is tried again."""
SWEEP = 30.0
"""Seconds after which a turn that saw nothing to do looks again by itself."""


class Lane:
    """One thread and its queue. Jobs report for themselves and raise nothing; one that does is logged.

    A `turn` is what the thread does between jobs: when woken, and again so many seconds later as it returned.
    """

    def __init__(self, name: str, turn: Callable[[], float | None] | None = None) -> None:
        self.name = name
        self._turn = turn
        self._turn_due: float | None = None
        self._queue: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._busy_since: float | None = None
        self._closing: Job | None = None
        self._thread = threading.Thread(target=self._loop, name=f"grid-chain-{name}", daemon=True)
        self._thread.start()

    def post(self, job: Job, priority: int = NORMAL) -> None:
        with self._changed:
            heapq.heappush(self._queue, (priority, next(self._numbers), job))
            self._changed.notify()

    def wake(self) -> None:
        """Take a turn as soon as no job waits."""
        with self._changed:
            self._turn_due = time.monotonic()
            self._changed.notify()

    def close(self, last: Job) -> None:
        """After the job in hand do `last`, and end. What waits is never done."""
        with self._changed:
            self._closing = last
            self._changed.notify()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def busy_for(self) -> float:
        """Seconds that the job in hand has taken so far."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            self._busy_since = time.monotonic()
            try:
                job()
            except BaseException:  # also what a library in Rust raises when it panics: the thread goes on
                log.exception("a job of the chain's %s thread failed", self.name)
            finally:
                self._busy_since = None
        if self._closing is not None:
            self._closing()

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                if self._closing is not None:
                    return None
                if self._queue:
                    return heapq.heappop(self._queue)[2]
                left = None if self._turn_due is None else self._turn_due - time.monotonic()
                if left is not None and left <= 0:
                    self._turn_due = None
                    return self._take_turn
                self._changed.wait(left)

    def _take_turn(self) -> None:
        pause: float | None = AFTER_FAULT
        try:
            pause = self._turn() if self._turn is not None else None
        finally:
            due = time.monotonic() + (SWEEP if pause is None else min(pause, SWEEP))
            with self._changed:
                self._turn_due = due if self._turn_due is None else min(self._turn_due, due)


class InlineLane:
    """The same without a thread: a job is done where it is posted, one at a time. For tests."""

    def __init__(self, name: str, turn: Callable[[], float | None] | None = None) -> None:
        self.name = name
        self._turn = turn
        self._lock = threading.RLock()
        self.waiting = 0
        self.busy_for = 0.0

    def post(self, job: Job, priority: int = NORMAL) -> None:
        with self._lock:
            job()

    def wake(self) -> None:
        if self._turn is not None:
            with self._lock:
                self._turn()

    def close(self, last: Job) -> None:
        last()

    def join(self, timeout: float) -> None:
        pass
