"""The servers of `../predictions.py`, each on a data folder of its own: the node, the raw floor, NATS JetStream."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
import orjson
from measure import ROOT
from predictions_peers import messages

from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import GridError
from grid_node.identity.standing import AllowList

PEERS = ROOT / "benchmarks" / "predictions_peers"
NATS = shutil.which("nats-server") or ""
SETTINGS = {
    "prediction_rate": "1000000",
    "prediction_burst": "1000000",
    "prediction_daily_limit": "999999999.00",
    "prediction_queue_max": "65536",
    "prediction_commit_timeout": "60",
    "log_level": "warning",
    "scoring_processes": "0",
}
"""What differs from a node as it comes: the limits that protect it from exactly this load, and a line of log for each
prediction."""


@dataclass
class Server:
    """Where a peer listens and which process serves."""

    port: int
    process_id: int
    options: dict[str, Any] = field(default_factory=dict)
    """What a load must be told."""


@contextmanager
def folder(name: str) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=f"grid-bench-{name}-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextmanager
def process(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[int]:
    """Yields the id of the process once it listens."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        measure.wait_for_port(port, running)
        yield running.pid
    finally:
        measure.stop(running)


@contextmanager
def floor() -> Iterator[Server]:
    with folder("floor") as data:
        port = measure.free_port()
        command = [sys.executable, str(PEERS / "floor.py"), str(port), str(data / "floor.db")]
        with process(command, port, data / "log", {}) as process_id:
            yield Server(port, process_id)


def nats_knows(option: str) -> bool:
    """Whether this version takes a line in its section `jetstream`."""
    with folder("nats") as data:
        file = data / "nats.conf"
        file.write_text(f"jetstream {{ store_dir: {json.dumps(str(data))}\n{option} }}\n")
        return subprocess.run([NATS, "-t", "-c", str(file)], capture_output=True, check=False).returncode == 0


@contextmanager
def nats(python: str, option: str = "") -> Iterator[Server]:
    """A server with a file store, and the stream of predictions in it."""
    with folder("nats") as data:
        port, file = measure.free_port(), data / "nats.conf"
        store = f"store_dir: {json.dumps(str(data / 'store'))}\nmax_file_store: 8GB\n{option}"
        file.write_text(f"host: 127.0.0.1\nport: {port}\njetstream {{\n{store}\n}}\n")
        with process([NATS, "-c", str(file)], port, data / "log", {}) as process_id:
            made = [python, str(PEERS / "nats_load.py"), str(port), "stream", "{}", ""]
            subprocess.run(made, check=True, stdout=subprocess.DEVNULL, timeout=60)
            yield Server(port, process_id)


@contextmanager
def node(miners: int) -> Iterator[Server]:
    """The node with 300 games, for this many miners that may predict."""
    with folder("node") as data:
        port, now = measure.free_port(), time.time()
        settings = {"data_dir": str(data), "public_api_server_port": str(port), **SETTINGS}
        environment = {f"GRID_{name.upper()}": value for name, value in settings.items()} | {"PYTHONWARNINGS": "ignore"}
        admin_key = _prepared(data, environment, miners, now)
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "wsgi:app"]
        with process(command, port, data / "log", environment) as master:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ws/health", timeout=60) as answer:
                hotkey = json.loads(answer.read())["node_hotkey"]
            yield Server(port, _worker(master), {"node_hotkey": hotkey, "admin_key": admin_key, "now": now})


def _prepared(data: Path, environment: dict[str, str], miners: int, now: float) -> str:
    """Tables, games and the allow-list; returns an admin's key."""
    _flask(environment, "db", "upgrade", "-d", "migrations")
    games = data / "games.json"
    games.write_bytes(orjson.dumps(messages.games(now)))
    _flask(environment, "games", "import", str(games))
    store = DirectStore(make_engine(f"sqlite:///{data / 'grid.db'}"))
    for key in messages.miners(miners):
        with suppress(GridError):
            AllowList(store, SystemClock()).allow(key.public_key)
    store.close()
    made = _flask(environment, "keys", "create", "admin", "1000000", "1", "--scope", "admin", "--json")
    return str(json.loads(made.splitlines()[-1])["key"])


def _flask(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "flask", "--app", "app", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    return done.stdout


def _worker(master: int) -> int:
    """The one process of gunicorn that serves."""
    return next(one for one in measure.with_children(master) if one != master)
