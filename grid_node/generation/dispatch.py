"""Dispatch: waiting pulls meet open tasks. No polling: a pull, a new task or a freed slot wakes the loop."""

import logging
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from math import ceil
from typing import Any

from grid_node.clock import Clock
from grid_node.database import Store
from grid_node.errors import GridError, StoreUnavailable, TooManyPulls
from grid_node.generation import workers
from grid_node.generation.pulls import Pull, no_task
from grid_node.generation.rounds import Rounds
from grid_node.settings import Settings

log = logging.getLogger(__name__)

USELESS_PULLS = 10
"""Pulls a minute without room for work (cooldown, full hands) before they are refused."""


class Dispatcher:
    """Holds this process's waiting pulls and gives them work."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, rounds: Rounds) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self.rounds = rounds
        self._waiting: dict[str, Pull] = {}
        self._idle_since: dict[str, float] = {}
        self._useless: dict[str, list[float]] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-dispatch", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self.signal()

    def signal(self) -> None:
        """Something changed that may give a waiting worker a task."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def pull(self, pull: Pull, wait_s: float) -> dict[str, Any]:
        """A lease, or none after at most `wait_s` seconds. A newer pull of the same worker ends this one."""
        self.enter(pull)
        if not pull.done.wait(wait_s):
            # One round must look at every pull, whose impatience it then sees; hence the extra seconds.
            pull.patient = False
            if not (pull.fresh and pull.done.wait(self._settings.lock_timeout)):
                self.withdraw(pull)
        if pull.error is not None:
            raise pull.error
        return pull.answer or no_task()

    def withdraw(self, pull: Pull) -> None:
        """The worker has gone or its time is up: it gets no lease any more."""
        with self._lock:
            if self._waiting.get(pull.worker) is pull:
                del self._waiting[pull.worker]
        pull.done.set()

    def withdraw_worker(self, worker: str) -> None:
        pull = self._waiting.get(worker)
        if pull is not None:
            self.withdraw(pull)

    def enter(self, pull: Pull) -> None:
        """Add a pull to those that wait; the next round looks at it. Raises TooManyPulls."""
        self._refuse_hammering(pull.worker)
        with self._lock:
            older = self._waiting.get(pull.worker)
            pull.idle_since = self._idle_since.setdefault(pull.worker, self._clock.now())
            self._waiting[pull.worker] = pull
        if older is not None:
            older.resolve(no_task(superseded=True))
        self.signal()

    # --- the loop ---------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            try:
                self.round()
            except Exception:
                log.exception("a dispatch round failed")

    def round(self) -> int:
        """Serve the waiting pulls once; returns how many leases were granted."""
        with self._lock:
            waiting = sorted(self._waiting.values(), key=lambda pull: pull.idle_since)
        return self._round(waiting) if waiting else 0

    def _round(self, waiting: Sequence[Pull]) -> int:
        try:
            answers = self._store.write(partial(self.rounds.serve, waiting=waiting, now=self._clock.now()))
        except GridError as error:
            self._fail([pull for pull in waiting if pull.fresh], error)
            return 0
        except Exception:
            log.exception("a dispatch round of %d pulls failed", len(waiting))
            return self._find_culprit(waiting)
        for pull, answer in answers:
            self._resolve(pull, answer)
        for pull in waiting:
            pull.fresh = False
            if not pull.patient:
                self.withdraw(pull)
        return sum(answer["task"] is not None for _, answer in answers)

    def _find_culprit(self, waiting: Sequence[Pull]) -> int:
        """By halves: the pull that breaks a round is refused, the others are served."""
        if len(waiting) == 1:
            self._fail(waiting, GridError())
            return 0
        middle = len(waiting) // 2
        return self._round(waiting[:middle]) + self._round(waiting[middle:])

    def _fail(self, pulls: Iterable[Pull], error: GridError) -> None:
        for pull in pulls:
            pull.error = error if error.status in (500, 503) else StoreUnavailable(retry_after=1)
            self.withdraw(pull)

    def _resolve(self, pull: Pull, answer: dict[str, Any]) -> None:
        with self._lock:
            if self._waiting.get(pull.worker) is pull:
                del self._waiting[pull.worker]
            if answer["task"] is not None:
                self._idle_since.pop(pull.worker, None)
            elif answer["retry_after"]:
                self._useless.setdefault(pull.worker, []).append(self._clock.now())
        pull.resolve(answer)

    def _refuse_hammering(self, worker: str) -> None:
        """More than USELESS_PULLS a minute without room for work: 429 and a violation."""
        now = self._clock.now()
        with self._lock:
            recent = [at for at in self._useless.get(worker, ()) if at > now - 60]
            if recent:
                self._useless[worker] = recent
            else:
                self._useless.pop(worker, None)
        if len(recent) > USELESS_PULLS:
            self._store.write(lambda tx: workers.add_violation(tx, worker))
            raise TooManyPulls(retry_after=max(1, ceil(recent[0] + 60 - now)))
