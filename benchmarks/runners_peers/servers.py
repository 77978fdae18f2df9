"""A node with a key of its own, and what stands behind a registered model: a scripted worker and a real agent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import measure
from measure import ROOT
from models_peers.servers import Server, running

PEERS = ROOT / "benchmarks" / "runners_peers"
SETTINGS = {
    "scoring_processes": "0",
    "log_level": "error",
    "async_mode": "eventlet",
    "prediction_queue_ttl_s": "3600",
    "upload_per_owner_bytes": str(2**40),
}
"""What differs from a node as it comes: no scoring, a quiet log, and a quota above what is uploaded here."""


@dataclass(frozen=True)
class Node:
    """`key` has the scopes client and runner, and no limit worth the name."""

    server: Server
    data: Path
    key: str

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """gunicorn with the node and one route that times calls, on data of its own."""
    folder, port = Path(tempfile.mkdtemp(prefix="grid-bench-")), measure.free_port()
    given = {"data_dir": str(folder), "public_api_server_port": str(port), **SETTINGS}
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    environment = {f"GRID_{name.upper()}": value for name, value in given.items()}
    environment |= {"PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
    gunicorn = [sys.executable, "-m", "gunicorn", "--no-control-socket", "runners_peers.timed_app:app"]
    try:
        _flask(environment, "db", "upgrade", "-d", "migrations")
        scopes = ["--scope", "client", "--scope", "runner"]
        made = _flask(environment, "keys", "create", "owner", "1000000", "1", *scopes, "--json")
        with running(gunicorn, port, folder / "node.log", **environment) as server:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60).close()
            yield Node(server, folder, str(json.loads(made.splitlines()[-1])["key"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flask(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "flask", "--app", "app", *arguments]
    given = {**os.environ, **environment, "GRID_ASYNC_MODE": "threading"}  # eventlet is for the server alone
    done = subprocess.run(command, cwd=ROOT, env=given, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    return done.stdout


@contextlib.contextmanager
def worker(folder: Path) -> Iterator[Server]:
    port = measure.free_port()
    with running([sys.executable, str(PEERS / "worker.py"), str(port)], port, folder / "worker.log") as server:
        yield server


@contextlib.contextmanager
def agent(node: Node, worker: Server, credential: dict[str, str], folder: Path) -> Iterator[None]:
    """`grid-runner` beside the worker, as a model's owner runs it."""
    file = folder / "tunnel_credential.json"
    file.write_text(json.dumps(credential))
    command = [str(Path(sys.executable).with_name("grid-runner")), "--url", f"http://127.0.0.1:{worker.port}"]
    command += ["--node", node.url, "--credential", str(file)]
    environment = {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder)}
    with (folder / "agent.log").open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        measure.stop(process)
