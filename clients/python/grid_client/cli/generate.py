"""`grid-client generate`: one line for each update, then the files."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from grid_client.generation import GenerationClient, task_failed
from grid_client.generators import SPLAT_FORMATS
from grid_client.messages import Result, Task, Update


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=generate, verbose=False)
    parser.add_argument("prompt")
    parser.add_argument("--url", default=os.environ.get("GRID_URL", "http://127.0.0.1:8888"))
    parser.add_argument("--api-key", default=os.environ.get("GRID_API_KEY"))
    parser.add_argument("--kind")
    parser.add_argument("--copies", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--deadline-s", type=int)
    parser.add_argument("--send-first-results", action="store_true")
    parser.add_argument("--out", type=Path, help="where to write the best result")
    parser.add_argument("--format", choices=SPLAT_FORMATS, help="of --out; default: as submitted")
    parser.add_argument("--previews", type=Path, metavar="DIR", help="where to write the preview images")
    parser.add_argument("--timeout", type=float, help="seconds to wait; default: a minute after the deadline")
    parser.add_argument("--verbose", action="store_true")


def generate(options: argparse.Namespace) -> int:
    if not options.api_key:
        raise ValueError("give --api-key or set GRID_API_KEY")
    with GenerationClient(options.url, options.api_key) as client:
        task = client.submit(options.prompt, **_fields(options))
        print(_queued_line(task), flush=True)
        last: Update | None = None
        for update in client.updates(task.id, after_seq=task.seq, timeout=options.timeout):
            print(_update_line(update), flush=True)
            last = update
        if last is None or last.status != "best_results":
            raise task_failed(last)
        _save(client, task.id, last.results, options)
    return 0


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    wanted = {
        "kind": options.kind,
        "send_first_results": options.send_first_results,
        "copies": options.copies,
        "seed": options.seed,
        "deadline_s": options.deadline_s,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _save(client: GenerationClient, task_id: str, best: Result | None, options: argparse.Namespace) -> None:
    if options.out:
        path = client.download(task_id, "best", options.out, format=options.format)
        print(f"saved: {path} ({path.stat().st_size} bytes)")
    if options.previews and best:
        options.previews.mkdir(parents=True, exist_ok=True)
        for k in (*range(8), "grid"):
            (options.previews / f"{k}.png").write_bytes(client.preview(task_id, best.n, k))
        print(f"saved: {options.previews}/0.png .. 7.png, grid.png")


def _queued_line(task: Task) -> str:
    free = f"{task.workers_available or 'no'} workers free"
    return f"queued: task {task.id}, position {task.position}, {free}"


def _update_line(update: Update) -> str:
    name = update.status.replace("_", " ")
    if update.results:
        return f"{name}: {_result_text(update.results)}"
    if update.error:
        return f"{name}: {update.error.get('code')}: {update.error.get('error')}"
    return name


def _result_text(result: Result) -> str:
    parts = [f"score {result.score:.3f} by {result.hotkey}", f"{result.format}, {result.size} bytes"]
    parts += [f"{name} {_value(component)}" for name, component in result.components.items()]
    parts.append(f"reasons: {', '.join(result.reasons) or 'none'}")
    return "; ".join(parts)


def _value(component: object) -> str:
    fields = component if isinstance(component, dict) else {"value": component}
    value = fields.get("value")
    return f"{value:.3f}" if isinstance(value, int | float) else str(fields.get("status"))
