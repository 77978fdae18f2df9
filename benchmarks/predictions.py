"""Predictions of 256 miners: acks in bursts and at one message a second, and how fast changes of odds reach them.

    python benchmarks/predictions.py [--rounds 5] [--miners 256] [--parts burst,paced,fanout,snapshot]

Beside the node, in the same rounds: the raw floor (`predictions_peers/floor.py`: sr25519, SQLite and a signed answer in
one process, without Socket.IO and rules) and NATS JetStream (Debian's `nats-server`, file store), driven with nats-py
and over bare sockets. NATS is left out, with the reason, where `nats-server` or nats-py (`make .venv-nats/installed`)
is missing. Parts that are not asked for keep the figures of the run before. Writes `results/predictions.{json,md}`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import secrets
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import RESULTS, ROOT, Figures, Rounds

sys.path.insert(0, str(ROOT))

from predictions_peers import messages, servers
from predictions_peers.report import BATCH, WINDOW, report
from predictions_peers.servers import PEERS, Server

NATS_PYTHON = os.environ.get("GRID_BENCH_NATS_PYTHON", str(ROOT / ".venv-nats" / "bin" / "python"))
PARTS = ("burst", "paced", "fanout", "snapshot")
RUN_SECONDS = 240.0
SYNC_ALWAYS = "sync_interval: always"
Run = Callable[[], Figures]


# --- the loads ----------------------------------------------------------------------------------------------------


def load(peer: str, server: Server, mode: str, **options: Any) -> Figures:
    given = json.dumps({**server.options, **options})
    command = [sys.executable, str(PEERS / "load.py"), peer, str(server.port), str(server.process_id), mode, given]
    return _figures(command)


def nats_py(server: Server, mode: str, miners: int, count: int, **options: Any) -> Figures:
    """The same messages with the published client."""
    with tempfile.NamedTemporaryFile("wb", prefix="grid-bench-", suffix=".txt") as file:
        run, receiver = secrets.token_hex(6), messages.keypair(messages.NODE_SEED).ss58_address
        for number, key in enumerate(messages.miners(miners)):
            for one in messages.predictions(key, receiver, run, number, count):
                file.write(f"{number}\t{one.prediction_id}\t".encode() + one.text + b"\n")
        file.flush()
        script = [NATS_PYTHON, str(PEERS / "nats_load.py"), str(server.port)]
        return _figures([*script, mode, json.dumps(options), file.name])


def _figures(command: list[str]) -> Figures:
    return dict(json.loads(_output_of(*command).splitlines()[-1]))


def _output_of(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=RUN_SECONDS)
    return done.stdout.strip()


class Peers:
    """The servers that run, and why others do not."""

    def __init__(self, stack: ExitStack, options: argparse.Namespace) -> None:
        self.options = options
        self.left_out = {} if servers.NATS else {"NATS": "no nats-server"}
        starts: dict[str, Callable[[], Any]] = {"floor": servers.floor, "node": partial(servers.node, options.miners)}
        if servers.NATS and not Path(NATS_PYTHON).exists():
            self.left_out["NATS"] = "no nats-py: make .venv-nats/installed"
        elif servers.NATS:
            starts["nats"] = partial(servers.nats, NATS_PYTHON)
            if servers.nats_knows(SYNC_ALWAYS):
                starts["nats-sync"] = partial(servers.nats, NATS_PYTHON, SYNC_ALWAYS)
            else:
                self.left_out["NATS with fsync of each message"] = f"this version does not know `{SYNC_ALWAYS}`"
        self.running: dict[str, Server] = {
            name: stack.enter_context(start()) for name, start in starts.items() if name in options.peers
        }

    def _load(self, name: str, mode: str, **options: Any) -> Run:
        kind = name.partition("-")[0]
        return partial(load, kind, self.running[name], mode, miners=self.options.miners, **options)

    def burst(self) -> dict[str, Run]:
        count = self.options.messages
        runs: dict[str, Run] = {}
        for name in self.running:
            runs[name] = self._load(name, "burst", window=WINDOW, batch=1, count=count)
            if name in ("floor", "node"):
                runs[f"{name}-16"] = self._load(name, "burst", window=WINDOW, batch=BATCH, count=count)
            if name == "nats":
                runs["nats-py"] = partial(
                    nats_py, self.running[name], "burst", self.options.miners, count, window=WINDOW
                )
        return runs

    def paced(self) -> dict[str, Run]:
        seconds = self.options.seconds
        runs = {name: self._load(name, "paced", seconds=seconds) for name in self.running}
        if "nats" in self.running:
            runs["nats-py"] = partial(
                nats_py, self.running["nats"], "paced", self.options.miners, seconds, seconds=seconds
            )
        return runs

    def fanout(self) -> dict[str, Run]:
        return {name: self._load(name, "fanout", changes=self.options.changes) for name in self.running}

    def snapshot(self) -> dict[str, Run]:
        if "node" not in self.running:
            return {}
        changes = max(2, self.options.changes // 5)
        return {
            "node-zlib": self._load("node", "snapshot", changes=changes, zlib=True),
            "node-raw": self._load("node", "snapshot", changes=changes, zlib=False),
        }


# --- the whole ----------------------------------------------------------------------------------------------------


def versions(peers: Peers) -> dict[str, str]:
    names = ["eventlet", "gunicorn", "python-socketio", "SQLAlchemy", "bittensor-wallet", "orjson"]
    found = {name: importlib.metadata.version(name) for name in names}
    found["SQLite"] = sqlite3.sqlite_version
    if "nats" in peers.running:
        found["nats-server"] = _output_of(servers.NATS, "--version").split()[-1].removeprefix("v")
        ask = "import importlib.metadata as m; print(m.version('nats-py'))"
        found["nats-py"] = _output_of(NATS_PYTHON, "-c", ask)
    return found


def earlier() -> dict[str, Rounds]:
    """What the last run has left, for the parts that are not measured now."""
    file = RESULTS / "predictions.json"
    return dict(json.loads(file.read_text())["results"]) if file.exists() else {}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--miners", type=int, default=256)
    parser.add_argument("--messages", type=int, default=64, help="of each miner in a burst")
    parser.add_argument("--seconds", type=int, default=5, help="at one message a second")
    parser.add_argument("--changes", type=int, default=20, help="changes of odds in a round")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=["floor", "node", "nats", "nats-sync"])
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by servers and load
    about: dict[str, Any] = {"machine": measure.machine(), "options": vars(options), "settings": servers.SETTINGS}
    results = earlier()
    with ExitStack() as stack:
        peers = Peers(stack, options)
        about |= {"versions": versions(peers), "left_out": peers.left_out}
        for part in options.parts:
            runs = getattr(peers, part)()
            if runs:
                print(part, flush=True)
                results[part] = measure.interleaved(options.rounds, runs)
    about["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    measure.write("predictions", {**about, "results": results}, report(results, about))


if __name__ == "__main__":
    main()
