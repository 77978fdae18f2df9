"""`flask tasks`: what the grid works on, whoever asked for it."""

import json
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import select

from grid_node.cli.answers import answers, fail
from grid_node.clock import rfc3339
from grid_node.generation.holds import TASK_ROW
from grid_node.generation.tables import Task
from grid_node.services import services

tasks_cli = AppGroup("tasks", help="Tasks of all keys: list, show, cancel.")

tasks = Task.__table__
STATES = ("queued", "started", "first_results", "best_results", "failed", "cancelled")
as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@tasks_cli.command("list")
@click.option("--status", type=click.Choice(STATES), help="Only tasks in this state.")
@click.option("--key", "key_id", help="Only tasks of the API key with this id.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), help="How many at most.")
@as_json
def list_tasks(status: str | None, key_id: str | None, limit: int, as_json: bool) -> None:
    """Print id|status|kind|key|created_at, newest first."""
    query = select(tasks).order_by(tasks.c.number.desc()).limit(limit)
    if status is not None:
        query = query.where(tasks.c.status == status)
    if key_id is not None:
        query = query.where(tasks.c.key_id == key_id)
    with answers():
        rows = services().store.read(lambda tx: tx.execute(query).all())
    lines = [_line(row) for row in rows]
    if as_json:
        click.echo(json.dumps(lines))
        return
    for line in lines:
        click.echo("|".join(line.values()))


@tasks_cli.command("show")
@click.argument("task_id")
def show(task_id: str) -> None:
    """Print the task as its owner sees it, in JSON."""
    with answers():
        task = services().tasks.status(_owner(task_id), task_id)
    click.echo(json.dumps(task, indent=2, ensure_ascii=False))


@tasks_cli.command("cancel")
@click.argument("task_id")
def cancel(task_id: str) -> None:
    """End an open task; its client sees it cancelled, its workers are told."""
    with answers():
        owner = _owner(task_id)
        before = services().tasks.status(owner, task_id)
        if before["finished_at"] is not None:
            raise fail(f"The task has ended already: {before['status']}", 1)
        services().tasks.cancel(owner, task_id)
    click.echo(f"Cancelled task: {task_id}")


def _owner(task_id: str) -> str:
    """The id of the key that the task belongs to; ends the command when there is no such task."""
    task: Any = services().store.read(lambda tx: tx.execute(TASK_ROW, {"id": task_id}).one_or_none())
    if task is None:
        raise fail("Task not found.", 1)
    return str(task.key_id)


def _line(row: Any) -> dict[str, str]:
    return {
        "id": row.id,
        "status": row.status,
        "kind": row.kind,
        "key": row.key_id,
        "created_at": rfc3339(row.created_at),
    }
