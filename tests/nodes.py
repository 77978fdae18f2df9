"""A whole node in processes of its own, for tests that need a real server: gunicorn, job process, workers."""

import contextlib
import functools
import http.client
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.identity.service import KeyInfo, KeyService, NewKey
from grid_node.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
START = 60.0
"""Seconds within which a node must answer on a busy machine."""
ASYNC_MODE = os.environ.get("GRID_TEST_ASYNC_MODE", "eventlet")
"""The suite runs in both modes; `threading` is what the node falls back on when eventlet ends."""
METRICS_TOKEN = "token-of-the-metrics"
METRICS_HEADERS = {"Authorization": f"Bearer {METRICS_TOKEN}"}
GENERATORS = {"text_to_3d": "procedural", "text": "text"}


class LiveNode:
    """A node on a free port with a data folder of its own and workers of a private grid.

    `settings` are settings of the node by name; `scoring_processes=0` leaves out the job process. With a
    `database_url` its tables must be there. `pylon` are environment variables of the chain.
    """

    def __init__(
        self, folder: Path, data: Path | None = None, *, pylon: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "node.log"
        self.data = data or folder / "data"
        self._settings = {"worker_api_keys": True, "async_mode": ASYNC_MODE, **settings}
        self._pylon = {"PYLON_ENV_FILE": "", "PYLON_METRICS_TOKEN": METRICS_TOKEN, **(pylon or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._worker_key = ""
        self._names = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(parents=True, exist_ok=True)
        self._engine = make_engine(settings.get("database_url") or self._own_database())
        self.keys = KeyService(DirectStore(self._engine), SystemClock(), Settings.load({}))

    def _own_database(self) -> str:
        file = self.data / "grid.db"
        if not file.exists():
            shutil.copy(empty_database(), file)
        return f"sqlite:///{file}"

    def another(self, folder: Path, **settings: Any) -> "LiveNode":
        """A second node of the same grid, beside this one, which has been started.

        On SQLite it works in the same data folder; else in one of its own, with the keys that a grid shares.
        """
        settings = {**self._settings, **settings}
        if not settings.get("database_url"):
            return LiveNode(folder, self.data, pylon=self._pylon, **settings)
        node = LiveNode(folder, pylon=self._pylon, **settings)
        for name in ("node_hotkey", "node.secret"):
            shutil.copy(self.data / name, node.data / name)
        return node

    # --- the node -------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns once the node answers."""
        command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--no-control-socket", "wsgi:app"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(self._answers, START)

    def stop(self) -> None:
        """SIGTERM to the node and to its workers; then nothing of either is left."""
        self.stop_workers()
        self.terminate()
        self._engine.dispose()

    def discard(self) -> None:
        """`stop` at once, where a test is not about the end of a node."""
        if self.is_running:
            self.kill()
        self.stop()

    def terminate(self) -> None:
        """SIGTERM to the node alone."""
        _end([self._process] if self._process is not None else [])
        self._process = None

    def kill(self) -> None:
        """kill -9 to the node with all its processes, at once. Workers stay."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """The node again on the same port and data; after `kill` or `terminate`, or instead of `terminate`."""
        if self._process is not None:
            self.terminate()
        self.start()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def metrics(self) -> str:
        """What `/metrics` tells who has its token."""
        asked = urllib.request.Request(f"{self.url}/metrics", headers=METRICS_HEADERS)
        with urllib.request.urlopen(asked, timeout=START) as answer:
            text: str = answer.read().decode()
            return text

    def _environment(self) -> dict[str, str]:
        settings = {"data_dir": self.data, "public_api_server_port": self.port, **self._settings}
        given = {f"GRID_{name.upper()}": _as_text(value) for name, value in settings.items()}
        given |= self._pylon
        return {**_clean_environment(), **given, "GRID_DATA_DIR": str(self.data), "PYTHONUNBUFFERED": "1"}

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        with (
            contextlib.suppress(OSError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as peer,
        ):
            peer.request("GET", "/healthz")
            peer.getresponse().read()
            return True
        return False

    # --- keys -----------------------------------------------------------------------------------------------------

    def add_key(
        self,
        name: str = "key",
        scopes: Iterable[str] = ("client",),
        max_requests: int = 1000,
        period: int = 60,
        max_concurrent: int = 0,
    ) -> str:
        """A new key, added as the command line would: by another process than the node's."""
        key = self.keys.generate()
        self.key_info(key, name, scopes, max_requests, period, max_concurrent)
        return key

    def key_info(self, key: str, name: str, scopes: Iterable[str], *limits: int) -> KeyInfo:
        self._names += 1
        max_requests, period, max_concurrent = limits
        new = NewKey(key, f"{name[:48]}-{self._names}", max_requests, period, list(scopes), max_concurrent)
        return self.keys.add(new)

    # --- workers --------------------------------------------------------------------------------------------------

    def start_workers(self, count: int, kind: str = "text_to_3d", *options: str) -> None:
        """Make sure that `count` workers of this kind run and are known to the node. `options`: of `grid-client`."""
        running = self._workers.setdefault(kind, [])
        running[:] = [worker for worker in running if worker.poll() is None]
        self._worker_key = self._worker_key or self.add_key("workers", ("worker",))
        wanted = [f"{kind}-{number}" for number in range(len(running), count)]
        running += [self._start_worker(name, kind, options) for name in wanted]
        if wanted:
            until(functools.partial(self._work_for_node, kind, count), START)

    def stop_workers(self) -> None:
        _end([worker for workers in self._workers.values() for worker in workers])
        self._workers.clear()

    def _start_worker(self, name: str, kind: str, options: Iterable[str]) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "grid_client.cli.main", "worker", "run", "--node-url", self.url]
        command += ["--name", name, "--generator", GENERATORS[kind], *options]
        environment = {**_clean_environment(), "GRID_WORKER_API_KEY": self._worker_key}
        environment["PYTHONPATH"] = str(ROOT / "clients" / "python")
        with (self.folder / "workers.log").open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)

    def _work_for_node(self, kind: str, count: int) -> bool:
        """The node has seen a pull of each of them."""
        assert all(worker.poll() is None for worker in self._workers[kind]), self._workers_log()
        with self._engine.connect() as connection:
            count_seen = text("SELECT count(*) FROM workers WHERE identity LIKE :name")
            seen = connection.execute(count_seen, {"name": f"key:%/{kind}-%"})
            return int(seen.scalar() or 0) >= count

    def _workers_log(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")


@functools.cache
def empty_database() -> Path:
    """A SQLite file with every table, made by the migrations once for each test run."""
    folder = Path(tempfile.mkdtemp(prefix="grid-tests-"))
    environment = {**_clean_environment(), "GRID_DATA_DIR": str(folder), "FLASK_APP": "app"}
    command = [sys.executable, "-W", "ignore", "-m", "flask", "db", "upgrade", "-d", "migrations"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=START)
    with contextlib.closing(sqlite3.connect(folder / "grid.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is what gets copied
    return folder / "grid.db"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_node(folder: Path, **settings: Any) -> Iterator[LiveNode]:
    """A node without scoring that runs inside the block; what its data folder then holds is nobody's any more."""
    node = LiveNode(folder, **{"scoring_processes": 0, **settings})
    try:
        node.start()
        yield node
    finally:
        node.discard()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Poll what another process does; fails when it never does it."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        pause.wait(0.02)


def _as_text(value: Any) -> str:
    """A setting as its variable has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "PYLON_"))}


def _end(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
