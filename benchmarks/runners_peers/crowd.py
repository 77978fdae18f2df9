"""Reports at a steady rate, alone or beside uploads and a client on Socket.IO: one process for each load."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from measure import cpu_seconds
from runners_peers.desk import Desk
from runners_peers.servers import PEERS

HOOKS_EACH = 2.0
"""Reports a second of one prediction: as fast as Cog reports."""
LARGE = 64 * 1024
"""Bytes from which on a report is counted apart as well."""
RUN_SECONDS = 180.0


class Program:
    """A load in a process of its own, which waits until it is told to begin."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        command = [sys.executable, str(PEERS / name)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say(json.dumps(spec))

    def ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self._process.args!r} did not begin")

    def begin(self) -> None:
        self._say("")

    def told(self) -> dict[str, Any]:
        text, _ = self._process.communicate(timeout=RUN_SECONDS)
        if self._process.returncode:
            raise RuntimeError(f"{self._process.args!r} failed")
        return dict(json.loads(text))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def quantiles(name: str, times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49], f"{name}_p99_ms": cuts[98], f"{name}_max_ms": max(times)}


def hooks(desk: Desk, rate: float, seconds: float, log_bytes: int) -> dict[str, float]:
    """`rate` reports a second of as many predictions as that takes; one log grows to `log_bytes`."""
    ids = [desk.run() for _ in range(int(rate / HOOKS_EACH))]
    program = Program("hooks.py", _hooks(desk, ids, rate, seconds, log_bytes))
    program.ready()
    cpu = cpu_seconds(desk.node.server.pid)
    program.begin()
    told = program.told()
    cpu = cpu_seconds(desk.node.server.pid) - cpu
    samples = _answered(told)
    end = _check(desk, ids, log_bytes)
    large = [took for _, took, size in samples if size > LARGE]
    figures = quantiles("all", [took for _, took, _ in samples])
    figures |= quantiles("large", large) if len(large) > 1 else {}
    figures |= {"hooks": len(samples), "load_late_ms": told["late_ms"], "cpu_us": 1e6 * cpu / len(samples)}
    return figures | {"kept_share": _kept_share(desk, ids), "end_ms": end}


def beside_uploads(desk: Desk, rate: float, seconds: float, file: Path | None) -> dict[str, float]:
    """The same without a large log, while a client asks over Socket.IO, and four uploads of `file` run, if any."""
    ids = [desk.run() for _ in range(int(rate / HOOKS_EACH))]
    node = {"port": desk.node.port, "key": desk.node.key}
    programs = [Program("hooks.py", _hooks(desk, ids, rate, seconds, 0))]
    programs.append(Program("pings.py", {**node, "id": ids[0], "seconds": seconds}))
    if file is not None:
        os.sync()
        programs.append(Program("outputs.py", {**node, "file": str(file), "seconds": seconds, "at_once": 4}))
    for program in programs:
        program.ready()
    for program in programs:
        program.begin()
    told, pings, *others = (program.told() for program in programs)
    _answered(told)
    _check(desk, ids, 0)
    uploads = others[0]["uploads"] if others else [(0.0, float("inf"))]
    figures = {"load_late_ms": told["late_ms"], "uploads": float(len(uploads) if others else 0)}
    figures |= quantiles("hooks", _meanwhile(told["samples"], uploads))
    return figures | quantiles("pings", _meanwhile(pings["samples"], uploads))


def _hooks(desk: Desk, ids: list[str], rate: float, seconds: float, log_bytes: int) -> dict[str, Any]:
    paths = [desk.webhook(id) for id in ids]
    spec = {"port": desk.node.port, "ids": ids, "paths": paths, "rate": rate, "seconds": seconds}
    return {**spec, "log_bytes": log_bytes}


def _answered(told: dict[str, Any]) -> list[tuple[float, float, int]]:
    """Raises RuntimeError unless every report was taken."""
    if set(told["statuses"]) != {"200"}:
        raise RuntimeError(f"reports were answered with {told['statuses']}")
    return list(told["samples"])


def _meanwhile(samples: Iterable[Any], uploads: list[tuple[float, float]]) -> list[float]:
    """Times of what was asked while uploads ran."""
    first, last = min(began for began, _ in uploads), max(ended for _, ended in uploads)
    return [sample[1] for sample in samples if first <= sample[0] <= last]


def _check(desk: Desk, ids: list[str], log_bytes: int) -> float:
    """Ends the predictions; nothing of what was reported is missing. Milliseconds until the end of the first shows,
    whose reports a job may have to merge before."""
    began = time.monotonic()
    for id in ids:
        desk.report(id, status="succeeded", output="done")
    shown = desk.ended(ids[0])
    took = 1000 * (time.monotonic() - began)
    for wrong in (id for id in ids if desk.ended(id)["status"] != "succeeded"):
        raise RuntimeError(f"prediction {wrong} did not succeed")
    if len(shown["logs"]) < max(1, log_bytes):
        raise RuntimeError(f"{len(shown['logs'])} of {log_bytes} bytes of the log are there")
    return took


def _kept_share(desk: Desk, ids: list[str]) -> float:
    """Percent of the received bytes that the log of reports takes."""
    marks = ",".join("?" * len(ids))
    with closing(sqlite3.connect(f"file:{desk.node.data / 'grid.db'}?mode=ro", uri=True)) as connection:
        kept, came = connection.execute(
            f"SELECT sum(length(body)), sum(size) FROM runner_events JOIN runner_predictions"
            f" ON runner_predictions.number = runner_events.prediction WHERE runner_predictions.id IN ({marks})",
            ids,
        ).fetchone()
    return 100 * float(kept) / float(came)
