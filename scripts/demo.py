"""`make demo`: a node, four workers and one prompt on this machine, from nothing to a splat and its picture.

Everything that it starts it ends again, by process id, whatever happens; the exit status is 0 only when a best
result was written.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from grid_client.errors import GridError
from grid_client.generation import GenerationClient
from grid_client.messages import Update

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a red robot with a green hat"
READY_WITHIN = 240.0
"""Seconds for the scorers to compile on a machine that sees them for the first time."""
DEADLINE = 300
STOP_WITHIN = 25.0


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


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Stage:
    """The demo's folder and the processes in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._environ = {
            **os.environ,
            "GRID_DATA_DIR": str(folder / "node"),
            "NUMBA_CACHE_DIR": str(folder / "numba"),  # compiled once, not once for each demo
            "GRID_HOST": "127.0.0.1",
            "GRID_PUBLIC_API_SERVER_PORT": str(self.port),
            "GRID_WORKER_API_KEYS": "true",
            "FLASK_APP": "app",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, name: str, *command: str, **environ: str) -> None:
        """Run in the background, out of reach of the terminal's Ctrl-C; its output goes to <name>.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**self._environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def run(self, *command: str) -> str:
        """Run to its end; returns what it printed. Raises Failed."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def check_alive(self) -> None:
        for name, process in self._processes:
            if process.poll() is not None:
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise Failed(f"{name} ended with status {process.returncode}:\n{tail}")

    def wait_for(self, what: str, found: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not found():
            self.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"no {what} within {within:.0f} s; see {self.folder}")
            time.sleep(0.2)

    def get(self, path: str) -> str | None:
        """The body of a 200, otherwise None."""
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return str(answer.read().decode())
        return None

    def stop(self) -> None:
        """Workers first, then the node; whoever does not end in time is killed with its children."""
        for _name, process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_WITHIN
        for name, process in reversed(self._processes):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"{name} did not stop in time and is killed")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    stage = Stage(folder)
    try:
        yield stage
    finally:
        say("stopping everything")
        stage.stop()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    folder = fresh(options.output)
    try:
        with staged(folder) as stage:
            play(stage, options.prompt)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (Failed, GridError) as failure:
        say(f"failed: {failure}")
        return 1
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


def make_key(stage: Stage, name: str, scope: str) -> str:
    printed = stage.run("flask", "keys", "create", name, "1000", "3600", "--scope", scope)
    found = re.search(r"gk\w+", printed)
    if found is None:
        raise Failed(f"no key in the answer of `flask keys create`: {len(printed)} characters")
    say(f"made an API key for {name} (scope {scope})")
    return found.group()


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
    found = re.search(r"^grid_pulls_waiting (\S+)$", stage.get("/metrics") or "", re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fresh(folder: Path) -> Path:
    """The output folder, without what an earlier demo left in it."""
    folder = folder.resolve()
    shutil.rmtree(folder / "node", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.log"), folder / "best.ply", folder / "best.png"):
        old.unlink(missing_ok=True)
    return folder


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A node, four workers and one prompt.")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    return parser.parse_args()


def interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
