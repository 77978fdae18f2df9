"""`make demo`: a node, four workers and one prompt on this machine, from nothing to a splat and its picture.

Everything that it starts it ends again, by process id, whatever happens; the exit status is 0 only when a best
result was written.
"""

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid_client.generation import GenerationClient
from grid_client.messages import Update
from stage import Failed, Stage, fresh, make_key, perform, say

PROMPT = "a red robot with a green hat"
READY_WITHIN = 240.0
"""Seconds for the scorers to compile on a machine that sees them for the first time."""
DEADLINE = 300
METRICS_TOKEN = "demo"


@dataclass(frozen=True)
class WorkerPlan:
    """An example worker: how well it builds, and how often it sends something broken."""

    name: str
    quality: float
    faulty: float = 0.0


WORKERS = (
    WorkerPlan("ada", 1.0),
    WorkerPlan("ben", 0.7),
    WorkerPlan("cleo", 0.4),
    WorkerPlan("dora", 0.9, faulty=0.5),
)


def main() -> int:
    options = arguments()
    folder = fresh(options.output, "best.ply", "best.png")
    compiled_once = str(folder / "numba")
    failed = perform(
        folder,
        lambda stage: play(stage, options.prompt),
        GRID_WORKER_API_KEYS="true",
        PYLON_METRICS_TOKEN=METRICS_TOKEN,
        NUMBA_CACHE_DIR=compiled_once,
    )
    if failed:
        return failed
    say(f"asset   {folder / 'best.ply'}")
    say(f"picture {folder / 'best.png'}")
    return 0


def play(stage: Stage, prompt: str) -> None:
    say(f"starting a node at {stage.url} (log: {stage.folder / 'node.log'})")
    stage.start("node", "grid_node.cli.start", "serve")
    stage.wait_for("answer from the node", lambda: stage.get("/healthz") is not None, 60)
    client_key = make_key(stage, "demo-client", "client")
    worker_key = make_key(stage, "demo-workers", "worker")
    say("waiting until the scorers are compiled and warm")
    stage.wait_for("readiness", lambda: stage.get("/readyz") is not None, READY_WITHIN)
    for plan in WORKERS:
        start_worker(stage, plan, worker_key)
    stage.wait_for("four waiting workers", lambda: pulls_waiting(stage) >= len(WORKERS), 60)
    with GenerationClient(stage.url, client_key) as client:
        generate(client, prompt, stage.folder)


def generate(client: GenerationClient, prompt: str, folder: Path) -> None:
    """One task from its prompt to its files. Raises Failed or GridError."""
    started = time.monotonic()
    say(f"prompt: {prompt}")
    task = client.submit(prompt, send_first_results=True, deadline_s=DEADLINE)
    last: Update | None = None
    for update in client.updates(task.id):
        last = update
        say(f"{time.monotonic() - started:6.1f} s  {in_words(update)}")
    if last is None or last.status != "best_results":
        raise Failed("the task ended without a result")
    client.download(task.id, "best", folder / "best.ply", format="ply")
    (folder / "best.png").write_bytes(client.preview(task.id, "best", "grid"))


def in_words(update: Update) -> str:
    """One line for the update; with the end, one line for each copy."""
    body: dict[str, Any] = update.model_dump()
    lines = [update.status + (f"  {judged(body['results'])}" if body.get("results") else "")]
    for copy in (body.get("statistics") or {}).get("miners", ()):
        seconds = f"after {copy['submit_time'] - copy['assign_time']} s" if copy["submit_time"] else "no result"
        lines.append(f"           {copy['hotkey']:<28} {copy['state']:<20} {copy['score']:.4f}  {seconds}")
    if body.get("error"):
        lines.append(f"           {body['error']['code']}: {body['error']['error']}")
    return "\n".join(lines)


def judged(result: dict[str, Any]) -> str:
    """Who made it, its score, what the score is made of, and what lowered it."""
    parts = [f"{name} {part['value']:.2f}" for name, part in result["components"].items() if part["status"] == "ok"]
    reasons = ", ".join(result["reasons"]) or "none"
    return f"{result['hotkey']} scored {result['score']:.4f} ({', '.join(parts)}; reasons: {reasons})"


def start_worker(stage: Stage, plan: WorkerPlan, key: str) -> None:
    faults = f", broken {plan.faulty:.0%} of the time" if plan.faulty else ""
    say(f"starting worker {plan.name} (quality {plan.quality:g}{faults})")
    stage.start(
        f"worker-{plan.name}",
        *("grid_client.cli.main", "worker", "run", "--node-url", stage.url, "--name", plan.name),
        *("--generator", "procedural", "--quality", str(plan.quality), "--faulty", str(plan.faulty)),
        GRID_WORKER_API_KEY=key,
    )


def pulls_waiting(stage: Stage) -> float:
    found = re.search(r"^grid_pulls_waiting (\S+)$", stage.get("/metrics", METRICS_TOKEN) or "", re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A node, four workers and one prompt.")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
