"""Model runners: what the way to a worker costs, how fast reports are taken, and how fast files come in.

    python benchmarks/runners.py [--parts relay,hooks,crowd,uploads] [--rounds 5] [--nginx nginx]

A node with a registered model, a real `grid-runner` and a scripted worker behind it; every load is a process of its
own, on the same cores. `uploads` has nginx beside the node in the same rounds. Parts that are not asked for keep the
figures of the run before. Writes `results/runners.{json,md}`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import RESULTS, Rounds, cell, ratio_cell, table
from models_peers.servers import nginx, nginx_program
from runners_peers import crowd, outputs, relay, servers
from runners_peers.desk import desk

MIB = 1024 * 1024
MB = 1_000_000
Options = argparse.Namespace
Lines = list[str]


# --- calls ------------------------------------------------------------------------------------------------------------


def measured_relay(options: Options, folder: Path) -> Rounds:
    with desk(folder) as made:
        runs = {"calls": partial(relay.calls, made, options.calls), "new": partial(relay.arrivals, made, options.calls)}
        return measure.interleaved(options.rounds, runs)


def relay_text(rounds: Rounds, options: dict[str, Any]) -> Lines:
    calls, new = rounds["calls"], rounds["new"]
    rows = [
        ["call of the worker itself", *_times(calls, "direct")],
        ["the same call of the node through the agent", *_times(calls, "relayed")],
        ["new prediction: answer to its client", *_times(new, "answered")],
        ["new prediction: at the worker", *_times(new, "came")],
    ]
    return [
        "## The way to a worker",
        "",
        f"Milliseconds, {options['calls']} of each in a round, one after the other. The call is `PUT /predictions/<id>`"
        " as it is really sent; the agent's own HTTP client makes both, each time over a new connection. A new"
        " prediction is asked for by HTTP, checked, committed with fsync, claimed with a second commit and sent.",
        "",
        *table(["", "p50", "p99", "worst"], rows),
        "",
        f"The agent's way adds {cell(calls['overhead_p50_ms'], 1)} ms at the median. Aim: at most 15.",
        "",
    ]


# --- reports ----------------------------------------------------------------------------------------------------------


def measured_hooks(options: Options, folder: Path) -> Rounds:
    with desk(folder) as made:
        crowd.hooks(made, options.rate, 2.0, 0)  # what is loaded at first use
        run = partial(crowd.hooks, made, options.rate, options.seconds, MB)
        return measure.interleaved(options.rounds, {"hooks": run})


def hooks_text(rounds: Rounds, options: dict[str, Any]) -> Lines:
    ours, rate = rounds["hooks"], options["rate"]
    rows = [["all", *_times(ours, "all")], [f"above {crowd.LARGE // 1024} KiB", *_times(ours, "large")]]
    return [
        f"## {rate:.0f} reports a second, one log grows to 1 MB",
        "",
        f"Milliseconds from the moment a report is due to its answer, for {options['seconds']:.0f} s a round:"
        f" {rate / crowd.HOOKS_EACH:.0f} predictions report {crowd.HOOKS_EACH:.0f} times a second each, as Cog does,"
        " each over a kept connection; one of them repeats a log that grows to 1 MB. Every report is committed with"
        " fsync before its answer. Aim: p99 at most 20.",
        "",
        *table(["reports", "p50", "p99", "worst"], rows),
        "",
        f"{cell(ours['cpu_us'])} µs of the web process for each report; the log of reports takes"
        f" {cell(ours['kept_share'], 1)} % of the bytes that came. The load was late by at most"
        f" {max(ours['load_late_ms']):.1f} ms, which is in the figures.",
        "",
    ]


def measured_crowd(options: Options, folder: Path) -> Rounds:
    file = outputs.written(folder / "out.bin", 200 * MIB)
    with desk(folder) as made:
        run = partial(crowd.beside_uploads, made, 50.0, options.crowd_seconds)
        run(None)
        return measure.interleaved(options.rounds, {"alone": partial(run, None), "beside uploads": partial(run, file)})


def crowd_text(rounds: Rounds, options: dict[str, Any]) -> Lines:
    rows = [
        [shown, *_times(rounds[name], kind)]
        for kind, who in (("hooks", "reports"), ("pings", "Socket.IO"))
        for name, shown in (("alone", f"{who}, no uploads"), ("beside uploads", f"{who}, beside four uploads"))
    ]
    count = cell(rounds["beside uploads"]["uploads"])
    return [
        "## 50 reports a second beside four uploads of 200 MiB",
        "",
        f"Milliseconds, {options['crowd_seconds']:.0f} s a round. 25 predictions report; a client asks for one over"
        " Socket.IO (`predictions.get`) and waits for the ack, about fifty times a second. Four workers upload one file"
        f" after the other, {count} in a round; only what was asked meanwhile counts. Aims for reports: p99 at most 100"
        " without uploads, at most 500 beside them.",
        "",
        *table(["", "p50", "p99", "worst"], rows),
        "",
    ]


# --- files ------------------------------------------------------------------------------------------------------------


def measured_uploads(options: Options, folder: Path) -> Rounds:
    file, small = outputs.written(folder / "out.bin", 200 * MB), outputs.written(folder / "small.bin", MB)
    with servers.node() as node, _nginx(options) as plain:
        outputs.to_node(node.server, node.key, small)  # what is loaded at first use is not growth by an upload
        runs: dict[str, Callable[[], measure.Figures]] = {"node": partial(outputs.to_node, node.server, node.key, file)}
        if plain is not None:
            runs["nginx"] = partial(outputs.to_nginx, plain, file)
        return measure.interleaved(options.rounds, runs)


@contextmanager
def _nginx(options: Options) -> Iterator[Any]:
    program = nginx_program(options.nginx)
    if program is None:
        yield None
        return
    with nginx(program) as server:
        yield server


def uploads_text(rounds: Rounds, _options: dict[str, Any]) -> Lines:
    ours, plain = rounds["node"], rounds.get("nginx")
    rows = []
    for name, shown in (("put", "with a length"), ("chunked", "chunked")):
        ratios = (
            [ratio_cell(ours[f"{name}_mb_s"], plain[kind]) for kind in ("put_mb_s", "durable_mb_s")] if plain else []
        )
        rows.append([shown, cell(ours[f"{name}_mb_s"]), *(ratios or "––"), cell(ours[f"{name}_rss_mb"], 1)])
    peers = f"nginx: {cell(plain['put_mb_s'])} MB/s, with the sync {cell(plain['durable_mb_s'])}." if plain else ""
    return [
        "## A file of 200 MB comes in",
        "",
        "MB/s (10^6 bytes) of `PUT /pc/client-api/upload/<name>` over one connection, sent with sendfile; everything"
        " dirty goes to the disk before each upload. The node answers after sha256, fsync and commit. nginx takes a PUT"
        " on the same disk: it neither hashes nor waits for the disk, and `nginx + sync` is the time until its file is"
        " on the disk as well. Growth is the web process's peak above what it had before. Aim: at least 0.5 of nginx,"
        " and at most 32 MB of growth.",
        "",
        *table(["", "node, MB/s", "÷ nginx", "÷ nginx + sync", "growth of the node, MB"], rows),
        "",
        *([peers, ""] if peers else []),
    ]


# --- all of it --------------------------------------------------------------------------------------------------------

MEASURE: dict[str, Callable[[Options, Path], Rounds]] = {
    "relay": measured_relay,
    "hooks": measured_hooks,
    "crowd": measured_crowd,
    "uploads": measured_uploads,
}
TELL: dict[str, Callable[[Rounds, dict[str, Any]], Lines]] = {
    "relay": relay_text,
    "hooks": hooks_text,
    "crowd": crowd_text,
    "uploads": uploads_text,
}


def _times(figures: dict[str, list[float]], name: str) -> Lines:
    return [cell(figures[f"{name}_{share}_ms"], 1) for share in ("p50", "p99", "max")]


def versions() -> dict[str, str]:
    names = ["eventlet", "gunicorn", "python-socketio", "httpx", "SQLAlchemy", "orjson"]
    return {name: importlib.metadata.version(name) for name in names} | {"SQLite": sqlite3.sqlite_version}


def parsed() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(MEASURE), help="comma separated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="of each kind in a round")
    parser.add_argument("--rate", type=float, default=200.0, help="reports a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of reports in a round")
    parser.add_argument("--crowd-seconds", type=float, default=10.0, help="of reports beside uploads in a round")
    parser.add_argument("--nginx", default="nginx", help="program; without one the node stands alone")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(MEASURE):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def kept() -> dict[str, Any]:
    """The parts of the last run."""
    file = RESULTS / "runners.json"
    return dict(json.loads(file.read_text())["parts"]) if file.exists() else {}


def measured(options: Options, part: str) -> dict[str, Any]:
    print(part, flush=True)
    before = measure.machine()
    folder = Path(tempfile.mkdtemp(prefix="grid-bench-"))
    try:
        rounds = MEASURE[part](options, folder)
    finally:
        shutil.rmtree(folder)
    told = {name: value for name, value in vars(options).items() if name not in ("parts", "nginx")}
    machine = {**before, "load_after": round(os.getloadavg()[0], 2)}
    return {"machine": machine, "options": told, "rounds": rounds}


def report(found: dict[str, Any]) -> str:
    text = [
        "# Model runners",
        "",
        "`python benchmarks/runners.py`. Median (lowest–highest) of the rounds; servers and load share the machine.",
        "",
    ]
    for part in (part for part in TELL if part in found):
        one = found[part]
        text += TELL[part](one["rounds"], one["options"])
        text += [f"{one['options']['rounds']} rounds. Machine: {measure.listed(one['machine'])}.", ""]
    text += [f"Settings of the node that are not its defaults: {measure.listed(servers.SETTINGS)}.", ""]
    return "\n".join([*text, f"Versions: {measure.listed(versions())}.", ""])


def main() -> None:
    options = parsed()
    found = kept() | {part: measured(options, part) for part in options.parts}
    measure.write("runners", {"parts": found}, report(found))


if __name__ == "__main__":
    main()
