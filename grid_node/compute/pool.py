"""Keeps the processes that run models: started when first needed, again when they died, ended when they hang."""

import logging
import math
import threading
import time
from collections.abc import Callable

from grid_node.compute.processes import Process
from grid_node.errors import ComputeUnavailable, InferenceTimeout, ShuttingDown
from models_store.config import Config

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
START_MAX = 120.0
"""Seconds within which a process must be ready."""
PAUSE_MIN, PAUSE_MAX = 0.1, 30.0
"""Seconds before a process that died is started again: doubled each time."""
STEADY = 60.0
"""A process that lived so many seconds starts again at once."""
PING_AFTER = 1.0
"""Seconds without a word, after it was asked something, until a process is asked for a sign of life."""
OVERDUE = 5.0
"""Seconds beyond its limit after which a batch, or a check, costs the process its life."""


class Pool:
    """`count` processes. `killed` hears the key of each model that was at work when a process died by itself, or that
    made the node end it; `run_max` and `check_max` are the seconds that a batch and a check may take."""

    def __init__(
        self, config: Config, count: int, run_max: float, check_max: float, killed: Callable[[str], None]
    ) -> None:
        self._config = config
        self._count = count
        self._run_max = run_max
        self._check_max = check_max
        self._killed = killed
        self._processes: dict[int, Process] = {}
        self._not_before = dict.fromkeys(range(count), 0.0)
        self._pauses = dict.fromkeys(range(count), 0.0)
        self._changed = threading.Condition()
        self._look = threading.Event()
        self._stopping = threading.Event()
        self._started = threading.Lock()
        self._past_executions = 0
        self.restarts = 0

    def start(self) -> None:
        """Start the processes, if they are not there yet. Returns at once."""
        if self._stopping.is_set():
            raise ShuttingDown(retry_after=1)
        if self._started.acquire(blocking=False):
            for number in range(self._count):
                self._start(number)
            threading.Thread(target=self._loop, name="grid-compute", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Let what is in hand finish for at most `grace` seconds, then end them all."""
        self._stopping.set()
        self._look.set()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.in_hand for process in self.processes):
            time.sleep(0.02)
        for process in self.processes:
            process.stop()
        while time.monotonic() < deadline + 1 and self.processes:
            time.sleep(0.01)
        with self._changed:
            self._changed.notify_all()

    @property
    def processes(self) -> list[Process]:
        return list(self._processes.values())

    @property
    def ready(self) -> list[Process]:
        return [process for process in self.processes if process.is_ready and not process.is_dead]

    @property
    def executions(self) -> int:
        """Batches run so far."""
        return self._past_executions + sum(process.board.executions for process in self.processes)

    def wait_ready(self, deadline: float) -> list[Process]:
        """Processes that take requests, at least one; they are started if need be.

        Raises InferenceTimeout at the deadline (seconds of CLOCK_MONOTONIC), and ComputeUnavailable at once when no
        process will be there before.
        """
        if found := self.ready:
            return found
        self.start()
        with self._changed:
            while not (found := self.ready):
                self._check_hope(deadline)
                self._changed.wait(max(deadline - time.monotonic(), 0.0))
        return found

    def _check_hope(self, deadline: float) -> None:
        now = time.monotonic()
        if self._stopping.is_set():
            raise ShuttingDown(retry_after=1)
        if now >= deadline:
            raise InferenceTimeout
        soonest = 0.0 if self._processes else min(self._not_before.values(), default=math.inf)
        if soonest >= deadline:
            raise ComputeUnavailable(retry_after=self.retry_after())

    def retry_after(self) -> int:
        """Whole seconds after which a process may be there again."""
        pause = min(self._not_before.values(), default=PAUSE_MAX) - time.monotonic()
        return max(1, math.ceil(pause) + 1)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._look.wait(LOOK_EVERY)
            self._look.clear()
            for number in range(self._count):
                try:
                    self._look_after(number)
                except Exception:
                    log.exception("looking after compute process %d failed", number)

    def _look_after(self, number: int) -> None:
        process = self._processes.get(number)
        now = time.monotonic()
        if process is None:
            if now >= self._not_before[number] and not self._stopping.is_set():
                self.restarts += 1
                self._start(number)
        elif not process.is_dead:
            self._end_overdue(process, now)

    def _end_overdue(self, process: Process, now: float) -> None:
        if not process.is_ready:
            if now - process.started > START_MAX:
                self._end(process, "was not ready in time", [])
            return
        limits = [
            (key, seconds, self._check_max if key is None else self._run_max) for key, seconds in process.running(now)
        ]
        overdue = [key for key, seconds, limit in limits if seconds > limit + OVERDUE]
        if overdue:
            self._end(process, f"ran {overdue} for too long", [key for key in overdue if key is not None])
        elif process.silent_since:
            silence = now - process.silent_since
            if silence > max(self._run_max, self._check_max) + OVERDUE:
                self._end(process, "is silent", [])
            elif silence > PING_AFTER:
                process.ping()

    def _end(self, process: Process, why: str, blamed: list[str]) -> None:
        log.error("compute process %d %s and is ended", process.pid, why)
        process.kill(blamed)

    def _start(self, number: int) -> None:
        def ended(process: Process) -> None:
            self._bury(number, process)

        self._processes[number] = Process(self._config, self._tell_ready, ended)

    def _tell_ready(self, process: Process) -> None:
        with self._changed:
            self._changed.notify_all()

    def _bury(self, number: int, process: Process) -> None:
        now = time.monotonic()
        lived = now - process.started
        pause = 0.0 if lived > STEADY else min(max(self._pauses[number] * 2, PAUSE_MIN), PAUSE_MAX)
        self._pauses[number] = pause
        self._not_before[number] = now + pause
        self._past_executions += process.board.executions
        del self._processes[number]
        self._look.set()
        with self._changed:
            self._changed.notify_all()
        if not process.is_stopping:
            self._blame(process, now)

    def _blame(self, process: Process, now: float) -> None:
        blamed = process.blamed
        if blamed is None:
            blamed = [key for key, _ in process.running(now) if key is not None]
        for key in blamed:
            try:
                self._killed(key)
            except Exception:
                log.exception("the strike against %s was not counted", key)
