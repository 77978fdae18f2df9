"""Which prediction is for which lease, as rows: a restart finds them again, and so does every other process.

A mark is a row of `runner_requests` that belongs to nobody's key: key = lease id, made = prediction id, digest = the
model and the number of the output that is wanted.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, delete, exists, insert, select

from grid_node.database import Transaction
from grid_node.generation.tables import LEASED, Copy, Task
from grid_node.runners.prediction import NODE, predictions
from grid_node.runners.tables import RunnerModel, RunnerRequest
from grid_node.statements import prepared

NOBODY = ""
"""No API key has this id, so all marks stand side by side."""
KIND = "cog-lease"
TASK_KIND = "cog"
"""Of tasks for a model that names no other."""

tasks: Any = Task.__table__
copies: Any = Copy.__table__
models: Any = RunnerModel.__table__
marks: Any = RunnerRequest.__table__

_ARE_MARKS = (marks.c.owner == bindparam("nobody"), marks.c.kind == bindparam("mark_kind"))
_NAMES = {"nobody": NOBODY, "mark_kind": KIND}
_MARKS = prepared(
    select(
        marks.c.key.label("lease_id"),
        marks.c.digest.label("digest"),
        marks.c.made.label("prediction_id"),
        copies.c.task_id.label("task_id"),
        tasks.c.kind.label("task_kind"),
        copies.c.state.label("lease_state"),
        copies.c.lease_expires_at.label("expires_at"),
        copies.c.lease_until.label("lease_until"),
        predictions.c.number.label("number"),
        predictions.c.state.label("state"),
        predictions.c.owner.label("owner"),
        predictions.c.created_at.label("created_at"),
        predictions.c.cancel_at.label("cancel_at"),
    )
    .select_from(marks)
    .outerjoin(copies, copies.c.lease_id == marks.c.key)
    .outerjoin(tasks, tasks.c.id == copies.c.task_id)
    .outerjoin(predictions, and_(predictions.c.id == marks.c.made, predictions.c.source == NODE))
    .where(*_ARE_MARKS)
)
_UNMARKED = prepared(
    select(copies.c.lease_id, copies.c.task_id, copies.c.worker)
    .join(models, models.c.id == copies.c.worker)
    .where(
        copies.c.state == LEASED,
        models.c.generation.is_not(None),
        ~exists().where(*_ARE_MARKS, marks.c.key == copies.c.lease_id),
    )
    .order_by(copies.c.number)
)
_OFFERING = prepared(
    select(models.c.id, models.c.revision)
    .where(models.c.generation.is_not(None), models.c.state == bindparam("state"))
    .order_by(models.c.id)
)
_GENERATION = prepared(select(models.c.revision, models.c.generation).where(models.c.id == bindparam("model_id")))
_HELD_LEASES = prepared(
    select(copies.c.worker, copies.c.lease_id)
    .join(models, models.c.id == copies.c.worker)
    .where(copies.c.state == LEASED, models.c.generation.is_not(None))
)
_IS_MARKED = prepared(select(marks.c.made).where(*_ARE_MARKS, marks.c.key == bindparam("lease")))
_IS_LEASED = prepared(select(copies.c.number).where(copies.c.lease_id == bindparam("lease"), copies.c.state == LEASED))
_FORGET = prepared(delete(marks).where(*_ARE_MARKS, marks.c.key == bindparam("lease")))


class Lease(NamedTuple):
    """A copy that a model has, and that no prediction is made for yet."""

    lease_id: str
    task_id: str
    model_id: str


class Mark(NamedTuple):
    """A lease and its prediction. What is None is gone: the copy, or the prediction."""

    lease_id: str
    model_id: str
    output_index: int
    prediction_id: str
    task_id: str | None
    task_kind: str | None
    lease_state: str | None
    expires_at: float | None
    lease_until: float | None
    number: int | None
    state: str | None
    owner: str | None
    created_at: float | None
    cancel_at: float | None


def all_marks(tx: Transaction) -> list[Mark]:
    return [_mark(row) for row in tx.execute(_MARKS, _NAMES)]


def _mark(row: Any) -> Mark:
    model_id, _, index = row.digest.partition("/")
    return Mark(
        row.lease_id,
        model_id,
        int(index),
        row.prediction_id,
        row.task_id,
        row.task_kind,
        row.lease_state,
        row.expires_at,
        row.lease_until,
        row.number,
        row.state,
        row.owner,
        row.created_at,
        row.cancel_at,
    )


def unmarked(tx: Transaction) -> list[Lease]:
    return [Lease(*row) for row in tx.execute(_UNMARKED, _NAMES)]


def offering(tx: Transaction, state: str) -> dict[str, int]:
    """The models in this state that do tasks: their revisions by id."""
    return {row.id: row.revision for row in tx.execute(_OFFERING, {"state": state})}


def kinds_of(tx: Transaction, ids: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Revision and kind of task of the models that are there and do tasks."""
    rows = ((id, tx.execute(_GENERATION, {"model_id": id}).one_or_none()) for id in ids)
    return {id: (row.revision, task_kind(row.generation)) for id, row in rows if row is not None and row.generation}


def task_kind(generation: str) -> str:
    """`generation` as it is stored."""
    return str(json.loads(generation).get("task_kind", TASK_KIND))


def live_leases(tx: Transaction) -> dict[str, set[str]]:
    """The leases that models have, by model."""
    found: dict[str, set[str]] = {}
    for row in tx.execute(_HELD_LEASES, {}):
        found.setdefault(row.worker, set()).add(row.lease_id)
    return found


def is_free(tx: Transaction, lease_id: str) -> bool:
    """Whether the lease still counts and has no prediction yet."""
    marked = tx.execute(_IS_MARKED, {**_NAMES, "lease": lease_id}).one_or_none()
    return marked is None and tx.execute(_IS_LEASED, {"lease": lease_id}).one_or_none() is not None


def mark(tx: Transaction, lease: Lease, output_index: int, prediction_id: str, now: float) -> None:
    digest = f"{lease.model_id}/{output_index}"
    named = {"owner": NOBODY, "kind": KIND, "key": lease.lease_id}
    tx.execute(insert(marks), named | {"digest": digest, "made": prediction_id, "at": now})


def forget(tx: Transaction, lease_id: str) -> None:
    tx.execute(_FORGET, {**_NAMES, "lease": lease_id})
