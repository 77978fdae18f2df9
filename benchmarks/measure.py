"""What the benchmarks share: the machine in words, servers on free ports, rounds in turn, tables."""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
RESULTS = ROOT / "benchmarks" / "results"
START_SECONDS = 60.0


def machine() -> dict[str, Any]:
    """CPU, memory, kernel and how busy the machine was before the measurement."""
    described = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in described if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[Any]) -> None:
    """Return once something listens; raises RuntimeError when the process ends or takes too long."""
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"server did not start: {process.args!r}")


def stop(process: subprocess.Popen[Any], seconds: float = 20.0) -> None:
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def with_children(process_id: int) -> list[int]:
    """The process and all that it started, directly or not."""
    found, fresh = [process_id], [process_id]
    while fresh:
        children = Path(f"/proc/{fresh[0]}/task/{fresh.pop(0)}/children").read_text().split()
        fresh += map(int, children)
        found += map(int, children)
    return found


def pin(process_id: int, cores: Iterable[int]) -> None:
    """Put every thread of a process on these cores."""
    wanted = set(cores)
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        os.sched_setaffinity(int(thread.name), wanted)


def cpu_seconds(process_id: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Figures = dict[str, float]
Rounds = dict[str, dict[str, list[float]]]


def interleaved(rounds: int, runs: Mapping[str, Callable[[], Figures]]) -> Rounds:
    """Measure each of `runs` once a round; who begins moves on by one from round to round."""
    results: Rounds = {name: {} for name in runs}
    names = list(runs)
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            figures = runs[name]()
            shown = {key: round(value, 1) for key, value in figures.items()}
            print(f"round {number + 1}", name, shown, flush=True)
            for key, value in figures.items():
                results[name].setdefault(key, []).append(value)
    return results


def cell(values: Sequence[float], digits: int = 0) -> str:
    """Median (lowest–highest)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratio_cell(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Ours divided by theirs, round by round."""
    return cell([a / b for a, b in zip(ours, theirs, strict=True)], digits=2)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def listed(about: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in about.items())


def write(name: str, figures: dict[str, Any], text: str) -> None:
    """Keep the figures as results/NAME.json and the table as results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
