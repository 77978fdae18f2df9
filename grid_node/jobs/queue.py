"""The job queues: Huey on SQLite, or on Redis when job processes run on other machines.

Huey hands out at most once and may lose a job; a sweeper enqueues again what the table says is waiting.
"""

import heapq
import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from huey import Huey, PriorityRedisHuey, SqliteHuey

from grid_node.settings import Settings

log = logging.getLogger(__name__)

NAME = "grid-scoring"
DELIVERIES, MERGES = "grid-errands", "grid-merges"
"""Two queues of the errands: a receiver that does not answer must not keep back what a worker reported."""
HELD = 60.0
"""Longest delay, in seconds, that an errand waits in memory; what is due later is found by the sweeper."""


def make_huey(settings: Settings) -> Huey:
    return _huey(settings, NAME, settings.jobs_file)


def make_errand_queue(settings: Settings) -> "ErrandQueue":
    file = settings.jobs_file.with_name("errands.db")
    return ErrandQueue(_huey(settings, DELIVERIES, file), _huey(settings, MERGES, file))


def _huey(settings: Settings, name: str, file: Path) -> Huey:
    if settings.redis_url:
        return PriorityRedisHuey(name, url=settings.redis_url, results=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    return SqliteHuey(name, filename=str(file), results=False, timeout=5)


def declare_score(huey: Huey, run: Any = None) -> Any:
    """The task `score(lease_id)`. The node only enqueues it, so there `run` is not needed."""

    @huey.task(name="score")
    def score(lease_id: str) -> None:
        if run is not None:
            run(lease_id)

    return score


def schedule(score: Any, lease_id: str, seconds: float) -> None:
    """Run the task `score` for this lease, in so many seconds."""
    if seconds > 0:
        score.schedule(args=(lease_id,), delay=seconds)
    else:
        score(lease_id)


class _Enqueuing:
    """One thread that talks to a queue, so that nobody waits for its file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: queue.Queue[tuple[float, Callable[[], object]] | None] = queue.Queue()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    def start(self) -> None:
        threading.Thread(target=self._loop, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """What waits for its time is left to the sweeper."""
        self._given.put(None)

    def put(self, action: Callable[[], object], seconds: float = 0.0) -> None:
        """Do it in so many seconds, in this thread."""
        self._given.put((time.monotonic() + seconds, action))

    def _loop(self) -> None:
        while True:
            try:
                given = self._given.get(timeout=self._pause())
            except queue.Empty:
                pass
            else:
                if given is None:
                    return
                heapq.heappush(self._later, (given[0], next(self._order), given[1]))
            while self._later and self._later[0][0] <= time.monotonic():
                self._do(heapq.heappop(self._later)[2])

    def _pause(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    @staticmethod
    def _do(action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:
            log.exception("a job could not be enqueued; the sweeper will try again")


class JobQueue:
    """Enqueues scoring jobs from the node."""

    def __init__(self, huey: Huey) -> None:
        self._score = declare_score(huey)
        self._thread = _Enqueuing("grid-enqueue")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def enqueue(self, lease_id: str) -> None:
        self.schedule(lease_id, 0.0)

    def schedule(self, lease_id: str, seconds: float) -> None:
        """Enqueue in so many seconds; the consumer looks once a second."""
        self._thread.put(partial(schedule, self._score, lease_id, seconds))


class ErrandQueue:
    """Enqueues errands: deliveries of webhooks, merges of long reports. They may be lost, and may come twice."""

    def __init__(self, deliveries: Huey, merges: Huey) -> None:
        self.deliveries = deliveries
        self.merges = merges
        self._deliver = deliveries.task(name="deliver")(self._run_deliver)
        self._merge = merges.task(name="merge")(self._run_merge)
        self._thread = _Enqueuing("grid-errands")
        self.run_deliver: Callable[[str], object] = lambda _id: None
        self.run_merge: Callable[[int], object] = lambda _event_id: None
        """What the tasks do, in the process that consumes them; the node only enqueues."""
        self.begin: Callable[[], None] = lambda: None
        """Called once, before the first errand, in the queue's own thread: starts who runs them."""
        self._has_begun = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def deliver(self, id: str, seconds: float = 0.0) -> None:
        """Try a delivery in so many seconds. One that is due later than HELD is left to the sweeper."""
        if seconds <= HELD:
            self._thread.put(partial(self._enqueue, self._deliver, id), seconds)

    def merge(self, event_id: int) -> None:
        self._thread.put(partial(self._enqueue, self._merge, event_id))

    def expect(self) -> None:
        """There may be errands soon."""
        if not self._has_begun:
            self._thread.put(self._begin_once)

    def _enqueue(self, task: Callable[..., object], argument: object) -> None:
        self._begin_once()
        task(argument)

    def _begin_once(self) -> None:
        if not self._has_begun:
            self.begin()
            self._has_begun = True

    def _run_deliver(self, id: str) -> None:
        self.run_deliver(id)

    def _run_merge(self, event_id: int) -> None:
        self.run_merge(event_id)
