"""Job processes as children of the node: started as programs, restarted when they die, ended with the node.

A child holds the read end of a pipe; when the node is gone, however it went, the child reads the end of it and
stops. Forking is avoided: threads of numba and locks of eventlet do not survive it.
"""

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from grid_node.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
PAUSE_MAX = 30.0
"""Longest pause, in seconds, before a process that keeps dying is started again."""
REAP_MAX = 5.0
"""Seconds that a killed process may take to be gone."""
STEADY = 60.0
"""A process that lived so many seconds starts again at once."""


class Program(NamedTuple):
    """What is kept alive: a module that is run, a word for it in the log, and one for its notes in the data folder."""

    module: str
    name: str
    note: str


SCORING = Program("grid_node.jobs.worker", "job process", "owner")
ERRANDS = Program("grid_node.jobs.errands", "errands process", "errands")


def ready_mark(settings: Settings, pid: int) -> Path:
    """The file that process `pid` leaves when it is ready (its scorers are warm); nodes may share the data folder."""
    return settings.data_dir.resolve() / "jobs" / f"ready-{pid}"


def _nobody(_owner: str) -> None:
    """Hears of the end of a process whose work is found again by other means."""


class _Child:
    def __init__(self, settings: Settings, module: str) -> None:
        self.owner = str(uuid.uuid4())
        self.started = time.monotonic()
        # those of the chain are tokens, and what works on strangers' files has no use for them
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("PYLON_")}
        environ = {**inherited, **settings.environ(), "GRID_JOB_OWNER": self.owner}
        environ.setdefault("NUMBA_CACHE_DIR", str(settings.data_dir.resolve() / "numba"))
        command = [sys.executable, "-m", module]
        self.process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE)
        # a process that had this number before may have left its mark
        ready_mark(settings, self.process.pid).unlink(missing_ok=True)


class Supervisor:
    """Keeps `count` processes of one program alive.

    `died` hears the owner id of each one that ended by itself; `interrupted` that of each one that ended with the
    node before this start, whose jobs are nobody's any more.
    """

    def __init__(
        self,
        settings: Settings,
        count: int,
        died: Callable[[str], None] = _nobody,
        interrupted: Callable[[str], None] = _nobody,
        program: Program = SCORING,
    ) -> None:
        self._settings = settings
        self._program = program
        self._count = count
        self._died = died
        self._interrupted = interrupted
        self._folder = settings.data_dir.resolve() / "jobs"
        # the port tells apart nodes that share the folder: one must not take the other's processes for dead
        self._note = f"{program.note}-{settings.public_api_server_port}"
        self._children: dict[int, _Child] = {}
        self._not_before: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._stopping = threading.Event()
        self.restarts = 0

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for note in self._folder.glob(f"{self._note}-*"):
            self._interrupted(note.read_text())
            note.unlink()
        for number in range(self._count):
            self._start_child(number)
        threading.Thread(target=self._loop, name=f"grid-supervisor-{self._program.note}", daemon=True).start()

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self._children.values()]

    def cold(self) -> int:
        """How many of the processes have not left the mark that they are ready."""
        return self._count - sum(ready_mark(self._settings, pid).exists() for pid in self.pids)

    def stop(self, grace: float) -> None:
        """Close the pipes: each process ends its job in hand; after `grace` seconds it is killed."""
        self._stopping.set()
        for child in self._children.values():
            if child.process.stdin is not None:
                child.process.stdin.close()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(child.process.poll() is None for child in self._children.values()):
            time.sleep(0.05)
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait(REAP_MAX)
            ready_mark(self._settings, child.process.pid).unlink(missing_ok=True)

    def _loop(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            for number in range(self._count):
                try:
                    self._look_after(number)
                except Exception:
                    log.exception("looking after %s %d failed", self._program.name, number)

    def _look_after(self, number: int) -> None:
        child = self._children.get(number)
        if child is None:
            if time.monotonic() >= self._not_before[number]:
                self.restarts += 1
                self._start_child(number)
        elif child.process.poll() is not None:
            self._bury(number, child)

    def _start_child(self, number: int) -> None:
        child = _Child(self._settings, self._program.module)
        (self._folder / f"{self._note}-{number}").write_text(child.owner)
        self._children[number] = child

    def _bury(self, number: int, child: _Child) -> None:
        lived = time.monotonic() - child.started
        pause = 0.0 if lived > STEADY else min(max(self._pauses.get(number, 0.0) * 2, 0.5), PAUSE_MAX)
        status = child.process.returncode
        log.error("%s %d ended with status %s after %.0f s", self._program.name, number, status, lived)
        self._pauses[number] = pause
        self._not_before[number] = time.monotonic() + pause
        del self._children[number]
        if child.process.stdin is not None:
            child.process.stdin.close()
        ready_mark(self._settings, child.process.pid).unlink(missing_ok=True)
        self._died(child.owner)
