"""The chain: what a read costs and how long it takes, and what everybody else feels meanwhile.

    python benchmarks/chain.py [--parts cached,cold,gaps] [--rounds 3] [--seconds 3]

The node beside the reference service, the published one without a line changed, both with their own chain library on
the same double of a subtensor with 256 neurons. The reference is installed under `.cache/bench/pylon-service` with
the versions of its own lock file. Parts that are not asked for keep the figures of the run before. Writes
`results/chain.{json,md}`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import measure
from chain_peers import asks, servers
from measure import RESULTS, ROOT, Figures, Rounds, cell, ratio_cell, table
from models_peers.servers import Server, rss_bytes

LOAD = ROOT / "benchmarks" / "chain_peers" / "load.py"
TICKING = "chain_peers.ticking_app:app"
CONNECTIONS = (1, 16)
FIRST_READS = 20
COLD_READS = 20
PUTS = 10
HEADS_SECONDS = 10.0
MIB = 1024 * 1024
Options = argparse.Namespace
Lines = list[str]


# --- from memory ------------------------------------------------------------------------------------------------------


def measured_cached(options: Options, folder: Path) -> Rounds:
    hotkey = servers.wallet(folder / "wallets")
    with ExitStack() as stack:
        chain = stack.enter_context(servers.subtensor(hotkey))
        ours = stack.enter_context(servers.node(chain.uri, folder / "wallets"))
        theirs = stack.enter_context(servers.reference(chain.uri, folder / "wallets"))
        told = [asks.Client(server.port).read(asks.LATEST) for server in (ours, theirs)]
        assert told[0] == told[1], "the services do not tell the same of a block"
        for server in (ours, theirs):
            servers.settle(server)
        time.sleep(2.0)  # what follows a start is over
        loads = {"node": (ours, options.seconds), "reference": (theirs, 2 * options.seconds)}
        runs = {
            f"{name}, {count}": partial(loaded, server, count, seconds)
            for count in CONNECTIONS
            for name, (server, seconds) in loads.items()
        }
        return measure.interleaved(options.rounds, runs)


def loaded(server: Server, connections: int, seconds: float) -> Figures:
    """A closed loop; `cpu_ms` is of all processes of the server."""
    command = ["taskset", "-c", str(servers.OTHER), sys.executable, str(LOAD), str(server.port), asks.LATEST]
    before = server.cpu_seconds()
    done = subprocess.run(
        [*command, servers.OPEN, str(connections), str(seconds)], check=True, stdout=subprocess.PIPE, timeout=180
    )
    used = server.cpu_seconds() - before
    figures: Figures = json.loads(done.stdout)
    return {**figures, "cpu_ms": 1000 * used / figures["requests"]}


def cached_text(rounds: Rounds, options: dict[str, Any]) -> Lines:
    rows = []
    for count in CONNECTIONS:
        ours, theirs = rounds[f"node, {count}"], rounds[f"reference, {count}"]
        for name, found in (("node", ours), ("reference", theirs)):
            figures = [cell(found["per_s"], 1), cell(found["p50_ms"], 2), cell(found["p99_ms"], 2)]
            rows.append([f"{name}, {count}", *figures, cell(found["cpu_ms"], 3)])
        times = [_times(ours["per_s"], theirs["per_s"])]
        times += [_times(theirs[key], ours[key]) for key in ("p50_ms", "p99_ms", "cpu_ms")]
        rows.append([f"the node is better by, {count}", *times])
    size = max(rounds["node, 1"]["bytes"]) / 1000
    return [
        "## The latest neurons, again and again",
        "",
        f"`GET {asks.LATEST}` with a token, {size:.0f} kB an answer, over 1 and 16 kept connections in a closed loop,"
        f" {options['seconds']:.0f} s a round ({2 * options['seconds']:.0f} s the reference). Both told the same of the"
        " block, value for value. CPU is that of all processes of a service: the node's web process, the chain's"
        " process, what starts them. The server has one core; load, double and the chain's process have the other."
        " Aims: at most 1.1 ms of CPU, at least 2,000 a second.",
        "",
        *table(["service, connections", "requests/s", "p50 ms", "p99 ms", "CPU ms a request"], rows),
        "",
        f"With 16 connections the load of the node took {cell(rounds['node, 16']['load_cpu_percent'])} % of its core,"
        f" with one {cell(rounds['node, 1']['load_cpu_percent'])} %.",
        "",
    ]


def _times(more: list[float], less: list[float]) -> str:
    """How often the one goes into the other, round by round."""
    return cell([a / b for a, b in zip(more, less, strict=True)]) + " ×"


# --- not from memory --------------------------------------------------------------------------------------------------


def measured_cold(options: Options, folder: Path) -> Rounds:
    hotkey = servers.wallet(folder / "wallets")
    kinds: dict[str, Callable[..., Any]] = {"node": partial(servers.node, app=TICKING), "reference": servers.reference}
    runs = {name: partial(cold, hotkey, folder / "wallets", kind) for name, kind in kinds.items()}
    return measure.interleaved(options.rounds, runs)


def cold(hotkey: str, wallets: Path, kind: Callable[..., Any]) -> Figures:
    """A double and a server of its own: what comes first is really the first."""
    with servers.subtensor(hotkey) as chain, kind(chain.uri, wallets) as server:
        servers.settle(server)
        is_ours = kind is not servers.reference
        figures: Figures = {}
        beside: list[float] = []
        with asks.pings(server.port, beside):
            time.sleep(0.1)
            figures["first_s"] = asks.at_once(server.port, FIRST_READS)
        figures["chain_calls"] = chain.reads()
        figures |= _shares("ping", beside)
        if is_ours:
            figures |= asks.longest_gap(server.port, "start")
        servers.settle(server)
        time.sleep(1.0)
        before, calls = server.cpu_seconds(), chain.reads()
        figures |= _shares("read", asks.one_by_one(server.port, range(1, COLD_READS + 1)))
        figures["read_cpu_ms"] = 1000 * (server.cpu_seconds() - before) / COLD_READS
        assert chain.reads() - calls >= COLD_READS, "not every read was one of the chain"
        if is_ours:
            figures |= asks.longest_gap(server.port, "read")
            figures["chain_rss_mib"] = rss_bytes(servers.chain_process(server) or 0) / MIB
        figures["rss_mib"] = sum(rss_bytes(pid) for pid in measure.with_children(server.pid)) / MIB
        return figures


def _shares(name: str, took: list[float]) -> Figures:
    ordered = sorted(1000 * seconds for seconds in took)
    middle, high = ordered[len(ordered) // 2], ordered[int(0.99 * (len(ordered) - 1))]
    return {f"{name}_p50_ms": middle, f"{name}_p99_ms": high, f"{name}_max_ms": ordered[-1]}


def cold_text(rounds: Rounds, _options: dict[str, Any]) -> Lines:
    ours, theirs = rounds["node"], rounds["reference"]
    told = [
        (f"{FIRST_READS} first reads at once, until the last, s", "first_s", 2),
        ("reads of the chain that these took", "chain_calls", 0),
        ("beside them, a request that needs no chain: p99 ms", "ping_p99_ms", 1),
        ("the same, worst ms", "ping_max_ms", 1),
        ("a block that nobody has read: p50 ms", "read_p50_ms", 1),
        ("the same, worst ms", "read_max_ms", 1),
        ("the same, CPU ms", "read_cpu_ms", 1),
        ("RSS of what answers and of what it started, MiB", "rss_mib", 0),
    ]
    rows = [
        [words, cell(ours[key], digits), cell(theirs[key], digits), ratio_cell(theirs[key], ours[key])]
        for words, key, digits in told
    ]
    return [
        "## The first reads, and reads of the chain",
        "",
        f"A fresh server and a fresh double each round. As soon as a server answers, {FIRST_READS} clients ask for the"
        " latest neurons at once; meanwhile another asks every 10 ms for `/metrics` without a token. Then the neurons"
        f" at {COLD_READS} blocks, one after the other. Aims: one call, all within 5 s, the others' p99 at most 50 ms.",
        "",
        *table(["", "node", "reference", "reference ÷ node"], rows),
        "",
        f"The chain's process of the node has {cell(ours['chain_rss_mib'])} MiB of that.",
        "",
    ]


# --- what everybody else feels ----------------------------------------------------------------------------------------


def measured_gaps(options: Options, folder: Path) -> Rounds:
    hotkey = servers.wallet(folder / "wallets")
    with (
        servers.subtensor(hotkey) as chain,
        servers.node(chain.uri, folder / "wallets", TICKING) as node,
    ):
        hotkeys = list(asks.Client(node.port).read(asks.LATEST)["neurons"])
        servers.settle(node)
        time.sleep(1.0)
        return measure.interleaved(options.rounds, {"node": partial(felt, chain, node, hotkeys)})


def felt(chain: servers.Subtensor, node: Server, hotkeys: list[str]) -> Figures:
    figures: Figures = {}
    asks.longest_gap(node.port, "before")
    time.sleep(3.0)
    figures |= asks.longest_gap(node.port, "idle")
    figures |= _under_heads(chain, node)
    took = asks.put_weights(node.port, hotkeys, PUTS)
    figures |= _shares("put", took) | asks.longest_gap(node.port, "put")
    chain.order("every", 0)
    loaded(node, CONNECTIONS[-1], 2.0)
    figures |= asks.longest_gap(node.port, "load")
    pid = servers.chain_process(node)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    figures["restart_s"] = asks.until_up(node.port)
    time.sleep(1.0)
    figures |= asks.longest_gap(node.port, "restart")
    servers.settle(node)
    return figures


def _under_heads(chain: servers.Subtensor, node: Server) -> Figures:
    """A block each second, and they go on."""
    chain.order("seal")
    chain.order("every", 1)
    seen = asks.watched(node.port, HEADS_SECONDS)
    behind = sorted(asks.ages(seen, chain.order("heads")))
    return {
        **asks.longest_gap(node.port, "heads"),
        "age_p50": behind[len(behind) // 2],
        "age_p99": behind[int(0.99 * (len(behind) - 1))],
        "age_max": behind[-1],
    }


def gaps_text(rounds: Rounds, _options: dict[str, Any]) -> Lines:
    ours = rounds["node"]
    stages = {
        "nothing happens": "idle",
        "a block each second, read fifty times a second": "heads",
        f"{PUTS} times PUT weights of {servers.NEURONS} neurons, and their way to the chain": "put",
        "the chain's process is killed and started again": "restart",
        "16 connections read from memory": "load",
    }
    rows = [[words, *_gaps(ours, key)] for words, key in stages.items()]
    age = ", ".join(f"{words} {cell(ours[f'age_{key}'])}" for words, key in (("p50", "p50"), ("worst", "max")))
    put = ", ".join(f"{words} {cell(ours[f'put_{key}_ms'], 1)} ms" for words, key in (("p50", "p50"), ("worst", "max")))
    return [
        "## What everybody else feels",
        "",
        "The longest gap of the hub in ms: by how much a greenlet that ticks every 2 ms in the web process came late"
        " at most. Aim: at most 20. Beside it what the web process itself computed at most between two ticks: the rest"
        " of a gap is a wait for the processor or for the disk.",
        "",
        *table(["meanwhile", "longest gap", "computed"], rows),
        "",
        f"Age of an answer with a block each second, in blocks behind the newest one at the time it came: {age}. Aim:"
        f" at most one. PUT weights: {put}. After a kill the chain is read again in {cell(ours['restart_s'], 1)} s.",
        "",
    ]


def _gaps(ours: dict[str, list[float]], stage: str) -> Lines:
    return [cell(ours[f"{stage}_{key}_ms"], 1) for key in ("gap", "own")]


def start_gaps(rounds: Rounds) -> Lines:
    stages = {"from the start to the first answers": "start", "reads of blocks": "read"}
    rows = [[words, *_gaps(rounds["node"], key)] for words, key in stages.items()]
    return ["Gaps of the node's hub, as below:", "", *table(["meanwhile", "longest gap", "computed"], rows), ""]


# --- all of it --------------------------------------------------------------------------------------------------------

MEASURE: dict[str, Callable[[Options, Path], Rounds]] = {
    "cached": measured_cached,
    "cold": measured_cold,
    "gaps": measured_gaps,
}
TELL: dict[str, Callable[[Rounds, dict[str, Any]], Lines]] = {
    "cached": cached_text,
    "cold": lambda rounds, options: cold_text(rounds, options) + start_gaps(rounds),
    "gaps": gaps_text,
}


def versions() -> dict[str, str]:
    names = ["eventlet", "gunicorn", "async-substrate-interface"]
    ours = {name: importlib.metadata.version(name) for name in names}
    found = servers.CACHE / "pylon-service" / "env" / "bin" / "python"
    return {**ours, "reference": f"{servers.SDIST} ({found_versions(found)})"} if found.exists() else ours


def found_versions(python: Path) -> str:
    program = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    names = ["litestar", "uvicorn", "turbobt", "pydantic"]
    done = subprocess.run([str(python), "-c", program, *names], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def parsed() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(MEASURE), help="comma separated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of load in a round; the reference has twice as many"
    )
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(MEASURE):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def kept() -> dict[str, Any]:
    """The parts of the last run."""
    file = RESULTS / "chain.json"
    return dict(json.loads(file.read_text())["parts"]) if file.exists() else {}


def measured(options: Options, part: str) -> dict[str, Any]:
    print(part, flush=True)
    before = measure.machine()
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    try:
        rounds = MEASURE[part](options, folder)
    finally:
        shutil.rmtree(folder)
    machine = {**before, "load_after": round(os.getloadavg()[0], 2)}
    return {"machine": machine, "options": {"rounds": options.rounds, "seconds": options.seconds}, "rounds": rounds}


def report(found: dict[str, Any]) -> str:
    text = [
        "# The chain",
        "",
        "`python benchmarks/chain.py`. Median (lowest–highest) of the rounds; ratios are taken round by round. All of"
        " it shares one machine of which the servers have one core.",
        "",
    ]
    for part in (part for part in TELL if part in found):
        one = found[part]
        text += TELL[part](one["rounds"], one["options"])
        text += [f"{one['options']['rounds']} rounds. Machine: {measure.listed(one['machine'])}.", ""]
    return "\n".join([*text, f"Versions: {measure.listed(versions())}.", ""])


def main() -> None:
    options = parsed()
    servers.install_reference()
    os.sched_setaffinity(0, {servers.OTHER})
    found = kept() | {part: measured(options, part) for part in options.parts}
    measure.write("chain", {"parts": found}, report(found))


if __name__ == "__main__":
    main()
