"""How long a full report with previews takes, and how far memory grows; numba beside the torch reference.

Usage: python benchmarks/scoring.py [--rounds 5] [--threads 2]

Each size is judged in a process of its own, after one warm-up; rounds of the sizes are interleaved. Written to
benchmarks/results/scoring.{md,json}. CPU seconds stand beside wall seconds: a busy machine stretches the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SIZES = (40_000, 268_000, 800_000)
CEILINGS_S = {268_000: 5.0, 800_000: 15.0}
AIMS_S = {268_000: 2.0, 800_000: 5.0}
SMALL_SPLATS, SMALL_SIZE = 2_500, 64

JUDGE = """
import json, resource, sys, time
from pathlib import Path
from grid_node.scoring.port import ScoreTask
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.splats import SplatScorer
path, out, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
scorer = SplatScorer(ScoringSettings(threads=threads))
scorer.warm()
print("warm", flush=True)
for k, _ in enumerate(sys.stdin):
    cpu = time.process_time()
    report = scorer.score(path, ScoreTask("bench", "", k, "text_to_3d", "spz"), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {"wall_s": report.seconds, "cpu_s": time.process_time() - cpu, "peak_mib": peak, "score": report.score}
    print(json.dumps(answer), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    before = os.getloadavg()[0]
    reports = time_reports(options.rounds, options.threads)
    results = {
        "machine": machine(options.threads),
        "load_before": round(before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
        "reports": reports,
        "renderers": compare_renderers(options.rounds),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scoring.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "scoring.md").write_text(as_markdown(results))
    print((RESULTS / "scoring.md").read_text())


def time_reports(rounds: int, threads: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="grid-bench-") as folder:
        judges = {}
        for size in SIZES:
            path, out = Path(folder, f"{size}.spz"), Path(folder, f"out-{size}")
            out.mkdir()
            make_asset(path, size)
            judges[size] = start_judge(path, out, threads)
        try:
            found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
            for _ in range(rounds):
                for size, judge in judges.items():
                    found[size].append(ask(judge))
        finally:
            for judge in judges.values():
                judge.communicate()  # end of input ends it
    return [summary(size, rows) for size, rows in found.items()]


def make_asset(path: Path, splats: int) -> None:
    """In a process of its own, so that this one stays small."""
    program = (
        "import sys; from grid_node.scoring import shapes, spz\n"
        "with open(sys.argv[1], 'wb') as file: spz.write_spz(file, shapes.build('robot', int(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", program, str(path), str(splats)], check=True)


def start_judge(path: Path, out: Path, threads: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JUDGE, str(path), str(out), str(threads)]
    judge = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert judge.stdout is not None
    assert judge.stdout.readline() == "warm\n"
    return judge


def ask(judge: subprocess.Popen[str]) -> dict[str, float]:
    assert judge.stdin is not None
    assert judge.stdout is not None
    judge.stdin.write("next\n")
    judge.stdin.flush()
    answer: dict[str, float] = json.loads(judge.stdout.readline())
    return answer


def summary(size: int, rows: list[dict[str, float]]) -> dict[str, Any]:
    wall, cpu = [row["wall_s"] for row in rows], [row["cpu_s"] for row in rows]
    return {
        "splats": size,
        "wall_s": spread(wall),
        "cpu_s": spread(cpu),
        "peak_mib": round(max(row["peak_mib"] for row in rows)),
        "score": rows[0]["score"],
        "ceiling_s": CEILINGS_S.get(size),
        "aim_s": AIMS_S.get(size),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def compare_renderers(rounds: int) -> dict[str, Any]:
    """The same small view by both renderers, in turn."""
    import torch  # noqa: PLC0415 - keeps this process small until now

    from grid_node.scoring import raster, reference, shapes  # noqa: PLC0415 - keeps this process small until now
    from grid_node.scoring.camera import Camera  # noqa: PLC0415
    from grid_node.scoring.scene import build_scene  # noqa: PLC0415

    torch.set_num_threads(1)
    scene, camera = build_scene(shapes.build("robot", SMALL_SPLATS)), Camera(20, 15, SMALL_SIZE)
    raster.render(scene, camera, 0.5)
    times: dict[str, list[float]] = {"numba": [], "torch": []}
    for _ in range(rounds):
        for name, render in (("numba", raster.render), ("torch", reference.render)):
            started = time.perf_counter()
            render(scene, camera, 0.5)
            times[name].append(time.perf_counter() - started)
    ratio = statistics.median(times["torch"]) / statistics.median(times["numba"])
    return {name: spread([1_000 * t for t in values]) for name, values in times.items()} | {"ratio": round(ratio)}


def machine(threads: int) -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numba", "numpy", "zstandard", "pillow")},
    }


def as_markdown(results: dict[str, Any]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    lines = [
        "# Scoring: a full report with previews",
        "",
        f"{results['rounds']} interleaved rounds; {about}; load {results['load_before']} before, "
        f"{results['load_after']} after (other work on the machine stretches wall seconds, hardly CPU seconds).",
        "",
        "| splats | wall s median (min to max) | CPU s median (min to max) | peak memory MiB | aim s | ceiling s |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["reports"]:
        limits = " | ".join(str(row[name] or "–") for name in ("aim_s", "ceiling_s"))
        lines.append(
            f"| {row['splats']:,} | {cell(row['wall_s'])} | {cell(row['cpu_s'])} | {row['peak_mib']} | {limits} |"
        )
    renderers = results["renderers"]
    lines += [
        "",
        f"One view of {SMALL_SPLATS:,} splats at {SMALL_SIZE} px, one thread each, ms:",
        "",
        "| renderer | ms median (min to max) |",
        "|---|---|",
        f"| numba, float32 | {cell(renderers['numba'])} |",
        f"| torch reference, float64 | {cell(renderers['torch'])} |",
        "",
        f"The reference takes {renderers['ratio']} times as long.",
        "",
    ]
    return "\n".join(lines)


def cell(values: dict[str, float]) -> str:
    return f"{values['median']} ({values['min']} to {values['max']})"


if __name__ == "__main__":
    main()
