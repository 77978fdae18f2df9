"""What is measured: our node and the reference service, both on the same double of a subtensor."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
from measure import CACHE, ROOT
from models_peers.servers import Server, running

from grid_node.chain.ports import Signer
from grid_node.chain.wallets import Wallets

PEERS = ROOT / "benchmarks" / "chain_peers"
SDIST = "bittensor-pylon-client==1.0.0"
NETUID, NEURONS, BLOCKS = 1, 256, 60
OPEN, TOKEN = "bench-open", "bench-sn1"
OA = f"/api/v1/subnet/{NETUID}"
ID = f"/api/v1/identity/sn1/subnet/{NETUID}"
CORE, OTHER = 0, 1
"""The server's core, and that of its load, the double and the chain's process."""


class Subtensor:
    """The double in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.uri = self._line()

    def order(self, *words: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def reads(self) -> int:
        """How often the neurons of a subnet were asked for."""
        return int(self.order("calls").get("NeuronInfoRuntimeApi_get_neurons_lite", 0))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the double ended")
        return line


@contextlib.contextmanager
def subtensor(hotkey: str) -> Iterator[Subtensor]:
    command = ["taskset", "-c", str(OTHER), sys.executable, "-m", "benchmarks.chain_peers.subtensor"]
    given = [str(NETUID), str(NEURONS), str(BLOCKS), hotkey]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*command, *given], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        yield Subtensor(process)
    finally:
        measure.stop(process)


def wallet(folder: Path) -> str:
    """A fresh hotkey of the identity in `folder`; returns its SS58."""
    return Wallets(folder, create_missing=True).hotkey(Signer("sn1", NETUID, "bench", "hot"))


def _settings(uri: str, wallets: Path) -> dict[str, str]:
    """The variables that both services read alike."""
    return {
        "PYLON_ENV_FILE": "",
        "PYLON_BITTENSOR_NETWORK": uri,
        "PYLON_BITTENSOR_ARCHIVE_NETWORK": uri,
        "PYLON_BITTENSOR_WALLET_PATH": str(wallets),
        "PYLON_OPEN_ACCESS_TOKEN": OPEN,
        "PYLON_METRICS_TOKEN": "bench-metrics",
        "PYLON_IDENTITIES": '["sn1"]',
        "PYLON_ID_SN1_WALLET_NAME": "bench",
        "PYLON_ID_SN1_HOTKEY_NAME": "hot",
        "PYLON_ID_SN1_NETUID": str(NETUID),
        "PYLON_ID_SN1_TOKEN": TOKEN,
    }


@contextlib.contextmanager
def node(uri: str, wallets: Path, app: str = "wsgi:app") -> Iterator[Server]:
    """Ready as soon as it answers anything at all; whether it knows the chain by then is up to it."""
    folder, port = Path(tempfile.mkdtemp(prefix="grid-bench-")), measure.free_port()
    given = {"data_dir": folder, "public_api_server_port": port, "scoring_processes": 0, "log_level": "error"}
    environment = {f"GRID_{name.upper()}": str(value) for name, value in given.items()}
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    environment |= {"PYTHONWARNINGS": "ignore", "PYTHONPATH": path, **_settings(uri, wallets)}
    _run(sys.executable, "-m", "flask", "--app", "app", "db", "upgrade", "-d", "migrations", **environment)
    gunicorn = [sys.executable, "-m", "gunicorn", "--no-control-socket", app]
    try:
        with running(gunicorn, port, folder / "node.log", **environment) as server:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60).close()
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def chain_process(server: Server) -> int | None:
    """Of a node: the process that speaks with the chain."""
    for pid in measure.with_children(server.pid):
        with contextlib.suppress(OSError):
            if b"grid_node.chain.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def settle(server: Server) -> None:
    """The web process has a core to itself, what speaks with the chain is on the other one."""
    measure.pin(server.pid, [CORE])
    chain = chain_process(server)
    if chain is not None:
        measure.pin(chain, [OTHER])


@contextlib.contextmanager
def reference(uri: str, wallets: Path) -> Iterator[Server]:
    """The reference service as it was published, without a line changed."""
    source, python = install_reference()
    port = measure.free_port()
    environment = {**_settings(uri, wallets), "PYTHONPATH": str(source)}
    command = [str(python), "-m", "uvicorn", "pylon_client.service.main:app", "--port", str(port)]
    log = wallets.parent / "reference.log"
    with running([*command, "--no-access-log", "--log-level", "error"], port, log, **environment) as server:
        yield server


def install_reference() -> tuple[Path, Path]:
    """Source of the service and an interpreter with what its lock file names; made once.

    The service is in the source distribution alone: the wheel that is built from it leaves it out.
    """
    folder = CACHE / "pylon-service"
    source, python = folder / SDIST.replace("-", "_").replace("==", "-"), folder / "env" / "bin" / "python"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        _run(*pip, "-d", str(folder), SDIST)
        with tarfile.open(f"{source}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
        (folder / "constraints.txt").write_text(_locked(source / "uv.lock"))
        _run(sys.executable, "-m", "venv", str(folder / "env"))
        wanted = _run(sys.executable, "scripts/peer_requirements.py", "pylon-service").split()
        _run(str(python), "-m", "pip", "install", "-q", "-c", str(folder / "constraints.txt"), *wanted)
        (folder / "complete").touch()
    return source, python


def _locked(lock: Path) -> str:
    packages = tomllib.loads(lock.read_text())["package"]
    return "".join(f"{one['name']}=={one['version']}\n" for one in packages if "registry" in one["source"])


def _run(*command: str, **environment: str) -> str:
    given = {**os.environ, **environment, "GRID_ASYNC_MODE": "threading"}  # eventlet is for the server alone
    done = subprocess.run(command, cwd=ROOT, env=given, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    return done.stdout
