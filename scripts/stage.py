"""A folder and the processes in it, for demos: everything that is started is ended again by process id.

One process group each, so that a terminal's Ctrl-C reaches only the demo, which then stops them in order.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from grid_client.errors import GridError

ROOT = Path(__file__).resolve().parent.parent
STOP_WITHIN = 25.0


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Stage:
    """The demo's folder and the processes in it; `environ` is what they see beside the usual."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._environ = {
            **os.environ,
            "GRID_DATA_DIR": str(folder / "node"),
            "GRID_HOST": "127.0.0.1",
            "GRID_PUBLIC_API_SERVER_PORT": str(self.port),
            "FLASK_APP": "app",
            "PYTHONUNBUFFERED": "1",
            **environ,
        }

    def start(self, name: str, *command: str, **environ: str) -> None:
        """Run in the background; its output goes to <name>.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**self._environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def run(self, *command: str) -> str:
        """Run to its end; returns what it printed. Raises Failed."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def check_alive(self) -> None:
        for name, process in self._processes:
            if process.poll() is not None:
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Failed(f"{name} ended with status {process.returncode}:\n{tail}")

    def wait_for(self, what: str, found: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not found():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"no {what} within {within:.0f} s; see {self.folder}")
            time.sleep(0.2)

    def get(self, path: str, token: str | None = None) -> str | None:
        """The body of a 200, otherwise None."""
        asked = urllib.request.Request(self.url + path)
        if token is not None:
            asked.add_header("Authorization", f"Bearer {token}")
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            return str(answer.read().decode())
        return None

    def stop(self) -> None:
        """The last started first; whoever does not end in time is killed with its children."""
        for _name, process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        deadline, late = time.monotonic() + STOP_WITHIN, []
        for name, process in reversed(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            is_late = process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if is_late:
                late.append(name)
        self._processes.clear()
        if late:
            say(f"did not stop in time and were killed: {', '.join(late)}")


@contextlib.contextmanager
def staged(folder: Path, **environ: str) -> Iterator[Stage]:
    stage = Stage(folder, **environ)
    try:
        yield stage
    finally:
        try:
            say("stopping everything")
        finally:  # whoever read what is said may have gone
            stage.stop()


def perform(folder: Path, play: Callable[[Stage], None], **environ: str) -> int:
    """Play on a stage and clear it, whatever happens; returns the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        with staged(folder, **environ) as stage:
            play(stage)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        return 1
    except (Failed, GridError) as failure:
        say(f"failed: {failure}")
        return 1
    return 0


def fresh(folder: Path, *results: str) -> Path:
    """The output folder, without what an earlier demo left in it: the node, the logs and `results`."""
    folder = folder.resolve()
    shutil.rmtree(folder / "node", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.log"), *(folder / name for name in results)):
        old.unlink(missing_ok=True)
    return folder


def make_key(stage: Stage, name: str, scope: str) -> str:
    printed = stage.run("flask", "keys", "create", name, "1000", "3600", "--scope", scope)
    found = re.search(r"gk\w+", printed)
    if found is None:
        raise Failed(f"no key in the answer of `flask keys create`: {len(printed)} characters")
    say(f"made an API key for {name} (scope {scope})")
    return found.group()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(text: str) -> None:
    print(text, flush=True)
