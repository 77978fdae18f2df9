"""The job queue: Huey on SQLite, or on Redis when job processes run on other machines.

Huey hands out at most once and may lose a job; a sweeper enqueues again what the table says is waiting.
"""

import logging
import queue
import threading
from typing import Any

from huey import Huey, PriorityRedisHuey, SqliteHuey

from grid_node.settings import Settings

log = logging.getLogger(__name__)

NAME = "grid-scoring"


def make_huey(settings: Settings) -> Huey:
    if settings.redis_url:
        return PriorityRedisHuey(NAME, url=settings.redis_url, results=False)
    settings.jobs_file.parent.mkdir(parents=True, exist_ok=True)
    return SqliteHuey(NAME, filename=str(settings.jobs_file), results=False, timeout=5)


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


class JobQueue:
    """Enqueues from the node. One thread of its own talks to the queue, so that nobody waits for its file."""

    def __init__(self, huey: Huey) -> None:
        self._score = declare_score(huey)
        self._pending: queue.Queue[tuple[str, float] | None] = queue.Queue()

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-enqueue", daemon=True).start()

    def stop(self) -> None:
        self._pending.put(None)

    def enqueue(self, lease_id: str) -> None:
        self._pending.put((lease_id, 0.0))

    def schedule(self, lease_id: str, seconds: float) -> None:
        """Enqueue in so many seconds; the consumer looks once a second."""
        self._pending.put((lease_id, seconds))

    def _loop(self) -> None:
        while (job := self._pending.get()) is not None:
            lease_id, delay = job
            try:
                schedule(self._score, lease_id, delay)
            except Exception:
                log.exception("a job could not be enqueued; the sweeper will try again")
