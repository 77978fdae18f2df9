"""Acks per second and memory per idle connection: our server set-up beside what a user would pick instead.

    python benchmarks/realtime.py [--rounds 5] [--seconds 2] [--idle 5000] [--peers ours,stock,asgi,node]

The server runs on core 0 and the load on core 1; the peers take turns within each round, and the order moves by one
from round to round. Peers are installed under `.cache/bench`. Writes `results/realtime.json` and `.md`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import CACHE, RESULTS, ROOT, free_port, machine, stop, wait_for_port

PEERS = ROOT / "benchmarks" / "realtime_peers"
SERVER_CORE, LOAD_CORE = "0", "1"
SOCKETS = (1, 50, 500)
NAMES = {
    "ours": "grid node wire, gunicorn eventlet",
    "stock": "Flask-SocketIO, gunicorn eventlet",
    "asgi": "python-socketio ASGI, uvicorn uvloop",
    "node": "Node socket.io 4",
}

Results = dict[str, dict[str, list[float]]]


def run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def install_asgi() -> Path:
    """A virtual environment with uvicorn and the python-socketio version that we use; returns its interpreter."""
    python = CACHE / "asgi" / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", str(CACHE / "asgi"))
        version = importlib.metadata.version("python-socketio")
        run(str(python), "-m", "pip", "install", "-q", f"python-socketio=={version}", "uvicorn[standard]")
    return python


def install_node() -> Path:
    """A folder with socket.io 4 from npm."""
    folder = CACHE / "node"
    if not (folder / "node_modules" / "socket.io").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "socket.io@4", cwd=folder)
    return folder / "node_modules"


def command_of(peer: str, port: int) -> tuple[list[str], dict[str, str]]:
    """How to start a peer, and what its environment needs."""
    if peer == "node":
        return ["node", str(PEERS / "node.cjs"), str(port)], {"NODE_PATH": str(install_node())}
    path = {"PYTHONPATH": f"{ROOT}:{PEERS}", "PYTHONWARNINGS": "ignore"}
    if peer == "asgi":
        start = [str(install_asgi()), "-m", "uvicorn", "--log-level", "warning", "--port", str(port), "asgi:app"]
        return start, path
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "eventlet", "-w", "1", "--worker-connections", "10000"]
    return [*gunicorn, "--log-level", "error", "--no-control-socket", "-b", f"127.0.0.1:{port}", f"{peer}:app"], path


@contextmanager
def serving(peer: str) -> Iterator[tuple[int, int]]:
    """Start the peer on its core; yields its port and the id of the process that serves."""
    port = free_port()
    command, environment = command_of(peer, port)
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, process)
        time.sleep(1.0)  # let it settle: a benchmark, not a test
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield port, int(children[0]) if children else process.pid
    finally:
        stop(process)


def load(*arguments: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", LOAD_CORE, sys.executable, str(PEERS / "load.py"), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def acks(port: int, process_id: int, sockets: int, seconds: float) -> dict[str, float]:
    """Acks per second of the clock, and of the server's processor time."""
    output, _ = load("acks", str(port), str(sockets), str(seconds), str(process_id)).communicate()
    return dict(json.loads(output))


def rss_kib(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def idle_kib_per_socket(port: int, process_id: int, sockets: int) -> float:
    """Growth of the server's RSS by `sockets` joined and silent connections, each."""
    load("idle", str(port), "20").communicate()  # what the first connections cost once
    time.sleep(1.0)
    before = rss_kib(process_id)
    clients = load("idle", str(port), str(sockets))
    assert clients.stdout is not None
    connected = json.loads(clients.stdout.readline())["connected"]
    time.sleep(1.0)
    grown = rss_kib(process_id) - before
    clients.communicate()
    return grown / connected


def figures_of(peer: str, options: argparse.Namespace) -> dict[str, float]:
    figures = {}
    with serving(peer) as (port, process_id):
        for sockets in SOCKETS:
            counted = acks(port, process_id, sockets, options.seconds)
            figures[f"acks_{sockets}"] = counted["per_second"]
            figures[f"cpu_acks_{sockets}"] = counted["per_cpu_second"]
    with serving(peer) as (port, process_id):
        figures["idle_kib"] = idle_kib_per_socket(port, process_id, options.idle)
    return figures


def rounds(options: argparse.Namespace) -> Iterator[Results]:
    """All figures so far, after each whole round."""
    results: Results = {peer: {} for peer in options.peers}
    for number in range(options.rounds):
        shift = number % len(options.peers)
        for peer in [*options.peers[shift:], *options.peers[:shift]]:
            figures = figures_of(peer, options)
            print(f"round {number + 1}", peer, {name: round(value, 1) for name, value in figures.items()}, flush=True)
            for name, value in figures.items():
                results[peer].setdefault(name, []).append(value)
        yield results


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions(peers: list[str]) -> dict[str, str]:
    names = ["python-socketio", "python-engineio", "Flask-SocketIO", "eventlet", "gunicorn", "websockets"]
    found = {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}
    if "asgi" in peers:
        for line in output_of(str(install_asgi()), "-m", "pip", "freeze").splitlines():
            name, _, version = line.partition("==")
            if name in {"uvicorn", "uvloop", "websockets"}:
                found[f"{name} (ASGI)"] = version
    if "node" in peers:
        found["Node"] = output_of("node", "--version")
        found["socket.io"] = json.loads((install_node() / "socket.io" / "package.json").read_text())["version"]
    return found


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def cell(values: list[float], scale: float = 1.0, digits: int = 0) -> str:
    stats = {name: f"{value / scale:.{digits}f}" for name, value in summary(values).items()}
    return f"{stats['median']} ({stats['min']}–{stats['max']})"


def ratio_cell(ours: list[float], theirs: list[float]) -> str:
    return cell([a / b for a, b in zip(ours, theirs, strict=True)], digits=2)


def table(results: Results, prefix: str, last: str) -> list[str]:
    """One row for each server, with the figures that start with `prefix` and the memory."""
    columns = [f"{prefix}_{sockets}" for sockets in SOCKETS]
    lines = [
        "| server | " + " | ".join(f"{n} sockets" for n in SOCKETS) + f" | {last} |",
        "|---|" + "---|" * (len(SOCKETS) + 1),
    ]
    for peer, figures in results.items():
        cells = [cell(figures[name]) for name in columns] + [cell(figures["idle_kib"], digits=1)]
        lines.append(f"| {NAMES[peer]} | " + " | ".join(cells) + " |")
    return lines


def ratios(results: Results, prefix: str) -> list[str]:
    """Ours divided by each peer, round by round."""
    names = [*[f"{prefix}_{sockets}" for sockets in SOCKETS], "idle_kib"]
    lines = ["| ours ÷ | " + " | ".join(f"{n} sockets" for n in SOCKETS) + " | memory |", "|---|---|---|---|---|"]
    for peer, figures in results.items():
        if peer != "ours":
            cells = [ratio_cell(results["ours"][name], figures[name]) for name in names]
            lines.append(f"| {NAMES[peer]} | " + " | ".join(cells) + " |")
    return lines


def report(results: Results, about: dict[str, Any], options: argparse.Namespace) -> str:
    measured = len(next(iter(results.values()))["idle_kib"])
    lines = [
        "# Realtime: acks per second and memory per idle connection",
        "",
        f"`python benchmarks/realtime.py --rounds {options.rounds} --seconds {options.seconds:g}`. Median"
        f" (lowest–highest) of {measured} interleaved rounds; server on one core, load on the other, one event of"
        f" each socket always on its way. Memory: growth of RSS by {options.idle} joined, silent sockets.",
    ]
    parts = (("Acks per second", "acks"), ("Acks per second of the server's processor time", "cpu_acks"))
    for title, prefix in parts:
        lines += ["", f"## {title}", "", *table(results, prefix, "KiB a socket")]
        if "ours" in results and len(results) > 1:
            lines += ["", *ratios(results, prefix)]
    lines += ["", "The second table is the one to compare with where other programs share the machine: they slow a"]
    lines += ["server's clock, not its work per ack (a busy cache costs a little)."]
    lines += ["", "Machine: " + ", ".join(f"{name} {value}" for name, value in about["machine"].items()) + "."]
    lines += ["", "Versions: " + ", ".join(f"{name} {value}" for name, value in about["versions"].items()) + "."]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(NAMES))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by servers and load
    about = {"machine": machine(), "versions": versions(options.peers)}
    RESULTS.mkdir(exist_ok=True)
    for results in rounds(options):  # written after each round: a long run that is stopped is not lost
        about["machine"]["load_after"] = round(os.getloadavg()[0], 2)
        (RESULTS / "realtime.json").write_text(json.dumps({**about, "results": results}, indent=2) + "\n")
        (RESULTS / "realtime.md").write_text(report(results, about, options))
    print((RESULTS / "realtime.md").read_text())


if __name__ == "__main__":
    main()
