"""Tasks a second from `generate` to `best_results`, every step durable: the node beside Celery on Redis.

    python benchmarks/dispatch.py [--rounds 5] [--seconds 4] [--peers node,node-free,celery,celery-fsync]

8 clients and 8 no-op workers, each client with 1 task on its way (closed loop) and with 8 (window). The peers take
turns within each round. `node` is pinned to core 0 and its load to core 1; `node-free` and Celery run where the
system puts them. `celery` uses the Redis on port 6379 if there is one, `celery-fsync` one of its own that appends
every write to disk before it answers. Celery is installed under `.cache/bench`. Writes `results/dispatch.{json,md}`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import CACHE, ROOT, Figures, Rounds

PEERS = ROOT / "benchmarks" / "dispatch_peers"
WINDOWS = {"1 in flight": 1, "8 in flight": 8}
CORES = range(os.cpu_count() or 1)
CELERY_VERSION = "5.7.*"
REDIS_DB = 10
METRICS_TOKEN = "benchmark"
NAMES = {
    "node": "grid node, one core + load on the other",
    "node-free": "grid node, not pinned",
    "celery": "Celery + Redis",
    "celery-fsync": "Celery + Redis, appendfsync always",
}
RUN_SECONDS = 180.0


def output_of(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS,
    )
    return done.stdout.strip()


def last_json(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


# --- the node -----------------------------------------------------------------------------------------------------


class Node:
    """A running node on a data folder of its own, with a key for clients and one for workers."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.folder = folder
        self.port = port
        self.keys = [self._key(environment, scope) for scope in ("client", "worker")]
        self._tree = measure.with_children(process.pid)
        self.server = self._tree[1]
        self._settle()

    def _key(self, environment: dict[str, str], scope: str) -> str:
        flask = [sys.executable, "-m", "flask", "--app", "app", "keys", "create", scope, "1000000", "1"]
        return str(last_json(output_of(*flask, "--scope", scope, "--json", **environment))["key"])

    def _settle(self) -> None:
        """Wait until the job process has loaded torch and idles."""
        ends, before = time.monotonic() + 60, -1.0
        while (used := self._cpu()) - before > 0.05 and time.monotonic() < ends:
            before = used
            time.sleep(1.0)

    def _cpu(self) -> float:
        return sum(measure.cpu_seconds(process_id) for process_id in self._tree)

    def run(self, window: int, seconds: float, *, pinned: bool) -> Figures:
        measure.pin(self.server, [0] if pinned else CORES)
        load = [sys.executable, str(PEERS / "node_load.py"), str(self.port), *self.keys, str(window), str(seconds)]
        before = measure.cpu_seconds(self.server)
        figures = last_json(output_of(*(["taskset", "-c", "1"] if pinned else []), *load))
        used = measure.cpu_seconds(self.server) - before
        return {**figures, "server_cpu_ms_per_task": 1000 * used / figures.pop("all_tasks")}


@contextmanager
def node_running() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    port = measure.free_port()
    settings = {
        "GRID_DATA_DIR": str(folder),
        "GRID_PUBLIC_API_SERVER_PORT": str(port),
        "GRID_WORKER_API_KEYS": "true",
        "GRID_SCORING_PROCESSES": "1",
        "GRID_LOG_LEVEL": "error",
        "PYLON_METRICS_TOKEN": METRICS_TOKEN,
        "PYTHONWARNINGS": "ignore",
    }
    output_of(sys.executable, "-m", "flask", "--app", "app", "db", "upgrade", "-d", "migrations", **settings)
    command = [sys.executable, "-m", "gunicorn", "-k", "eventlet", "-w", "1", "--no-control-socket", "wsgi:app"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        measure.wait_for_port(port, process)
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60).close()
        yield Node(folder, port, process, settings)
    finally:
        measure.stop(process)
        shutil.rmtree(folder)


# --- Celery -------------------------------------------------------------------------------------------------------


def install_celery() -> Path:
    """An environment with Celery alone; returns its folder of programs."""
    programs = CACHE / "celery" / "bin"
    if not (programs / "celery").exists():
        output_of(sys.executable, "-m", "venv", str(CACHE / "celery"))
        output_of(str(programs / "python"), "-m", "pip", "install", "-q", f"celery[redis]=={CELERY_VERSION}")
    return programs


def redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
            peer.sendall(b"PING\r\n")
            return peer.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def redis_running(*options: str) -> Iterator[int]:
    """A Redis server of our own on a free port."""
    folder, port = Path(tempfile.mkdtemp(prefix="grid-bench-redis-")), measure.free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        measure.wait_for_port(port, process)
        yield port
    finally:
        measure.stop(process)
        shutil.rmtree(folder)


def redis_cli(port: int, *command: str) -> str:
    return output_of("redis-cli", "-p", str(port), "-n", str(REDIS_DB), *command)


def durability(port: int) -> str:
    """What this Redis promises of a write that it has answered."""
    told = {name: redis_cli(port, "config", "get", name).removeprefix(name).strip() for name in REDIS_SETTINGS}
    return measure.listed({name: value or "off" for name, value in told.items()})


REDIS_SETTINGS = ("appendonly", "appendfsync", "save")


class Celery:
    """A prefork worker with 8 processes on the Redis at `port`."""

    def __init__(self, port: int) -> None:
        self.redis_port = port
        self.prefix = f"bench{os.getpid()}:"
        self._programs = install_celery()
        self._environment = {
            "BENCH_REDIS_URL": f"redis://127.0.0.1:{port}/{REDIS_DB}",
            "BENCH_PREFIX": self.prefix,
            "PYTHONPATH": str(ROOT / "benchmarks"),
            "PYTHONWARNINGS": "ignore",
        }
        options = ["-A", "dispatch_peers.celery_app", "worker", "-P", "prefork", "-c", "8", "-l", "ERROR"]
        self.process = subprocess.Popen(
            [str(self._programs / "celery"), *options],
            cwd=ROOT,
            env={**os.environ, **self._environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, window: int, seconds: float) -> Figures:
        load = [str(self._programs / "python"), str(PEERS / "celery_load.py"), str(window), str(seconds)]
        before = self._cpu()
        figures = last_json(output_of(*load, **self._environment))
        return {**figures, "server_cpu_ms_per_task": 1000 * (self._cpu() - before) / figures.pop("all_tasks")}

    def _cpu(self) -> float:
        return sum(measure.cpu_seconds(process_id) for process_id in measure.with_children(self.process.pid))

    def close(self) -> None:
        """End the worker and take our keys out of Redis."""
        measure.stop(self.process)
        keys = redis_cli(self.redis_port, "--scan", "--pattern", f"{self.prefix}*").split()
        for start in range(0, len(keys), 500):
            redis_cli(self.redis_port, "unlink", *keys[start : start + 500])


@contextmanager
def celery_running(port: int) -> Iterator[Celery]:
    peer = Celery(port)
    try:
        peer.run(1, 0.5)  # until every process has started
        yield peer
    finally:
        peer.close()


# --- the rounds ---------------------------------------------------------------------------------------------------


def both_windows(run: Any, seconds: float) -> Figures:
    """One run for each window, as one flat set of figures."""
    found: Figures = {}
    for label, window in WINDOWS.items():
        found |= {f"{label}: {name}": value for name, value in run(window, seconds).items()}
    return found


def measure_all(options: argparse.Namespace) -> tuple[Rounds, dict[str, str]]:
    """The rounds, and how durable each Redis is."""
    redis: dict[str, str] = {}
    runs: dict[str, Any] = {}
    with ExitStack() as stack:
        if any(name.startswith("node") for name in options.peers):
            node = stack.enter_context(node_running())
            pinned = {"node": True, "node-free": False}
            runs |= {name: partial(node.run, pinned=pinned[name]) for name in pinned if name in options.peers}
        for name in [name for name in options.peers if name.startswith("celery")]:
            port = stack.enter_context(a_redis(name))
            redis[name] = durability(port)
            runs[name] = stack.enter_context(celery_running(port)).run
        measured = {name: partial(both_windows, run, options.seconds) for name, run in runs.items()}
        return measure.interleaved(options.rounds, measured), redis


@contextmanager
def a_redis(peer: str) -> Iterator[int]:
    if peer == "celery" and redis_answers(6379):
        yield 6379
        return
    with redis_running(*(["--appendonly", "yes", "--appendfsync", "always"] if peer == "celery-fsync" else [])) as port:
        yield port


# --- the report ---------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    names = ["eventlet", "gunicorn", "python-socketio", "SQLAlchemy", "marshmallow"]
    found = {name: importlib.metadata.version(name) for name in names}
    found["SQLite"] = sqlite3.sqlite_version
    for line in output_of(str(install_celery() / "python"), "-m", "pip", "freeze").splitlines():
        name, _, version = line.partition("==")
        if name in {"celery", "kombu", "redis"}:
            found[name] = version
    found["redis-server"] = output_of("redis-server", "--version").split("v=")[1].split()[0]
    return found


def report(rounds: Rounds, about: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [
        "# Dispatch: tasks a second, end to end",
        "",
        f"`python benchmarks/dispatch.py --rounds {options.rounds} --seconds {options.seconds:g}`. 8 clients, 8 no-op"
        f" workers; median (lowest–highest) of {options.rounds} interleaved rounds of {options.seconds:g} s. A task"
        " counts from the client's request until the client has its result. The node commits every acceptance, lease"
        " and result to SQLite (WAL, synchronous=FULL) before it answers, and keeps every task of the whole benchmark.",
        "",
    ]
    for label in WINDOWS:
        lines += [f"## {label} for each client", "", *_figures(rounds, label), ""]
        if "node" in rounds:
            lines += ["Node (pinned) divided by the peer, tasks/s, round by round:", "", *_ratios(rounds, label), ""]
    lines += [f"Redis of {NAMES[name]}: {promise}." for name, promise in about["redis"].items()]
    lines += [
        "",
        f"Machine: {measure.listed(about['machine'])}.",
        "",
        f"Versions: {measure.listed(about['versions'])}.",
    ]
    return "\n".join(lines) + "\n"


def _figures(rounds: Rounds, label: str) -> list[str]:
    rows = []
    for name, figures in rounds.items():
        rate = measure.cell(figures[f"{label}: tasks_per_s"])
        times = [measure.cell(figures[f"{label}: {share}_ms"], 1) for share in ("p50", "p99")]
        rows.append([NAMES[name], rate, *times, measure.cell(figures[f"{label}: server_cpu_ms_per_task"], 2)])
    return measure.table(["peer", "tasks/s", "p50 ms", "p99 ms", "server CPU ms a task"], rows)


def _ratios(rounds: Rounds, label: str) -> list[str]:
    rates = {name: figures[f"{label}: tasks_per_s"] for name, figures in rounds.items()}
    rows = [[NAMES[name], measure.ratio_cell(rates["node"], rates[name])] for name in rates if name != "node"]
    return measure.table(["peer", "ratio"], rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(NAMES))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    about: dict[str, Any] = {"machine": measure.machine(), "versions": versions()}
    rounds, about["redis"] = measure_all(options)
    about["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    options_used = {"rounds": options.rounds, "seconds": options.seconds}
    measure.write("dispatch", {**about, **options_used, "results": rounds}, report(rounds, about, options))


if __name__ == "__main__":
    main()
