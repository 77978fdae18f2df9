"""Who holds which rows, and in which order.

On SQLite a transaction holds the whole database from its beginning. On PostgreSQL everything that changes a task or
one of its copies takes its rows in one order: the task, then the workers concerned by name, then the rest. So no two
transactions wait for each other, and whoever holds the task sees its copies as they are. The dispatcher, which
touches many tasks, goes by turns with those of all other nodes and takes workers last.
"""

from typing import Any

from sqlalchemy import bindparam, exists, or_, select, text

from grid_node.database import Transaction
from grid_node.generation.tables import LEASED, SCORING, Copy, Task, Worker
from grid_node.statements import prepared

tasks = Task.__table__
copies = Copy.__table__
workers = Worker.__table__

TASK_ROW = prepared(select(tasks).where(tasks.c.id == bindparam("id")))
TASK = prepared(select(tasks).where(tasks.c.id == bindparam("id")).with_for_update())
COPY_ROW = prepared(select(copies).where(copies.c.lease_id == bindparam("lease")))
COPY = prepared(select(copies).where(copies.c.lease_id == bindparam("lease")).with_for_update())
_TASK_OF = prepared(select(copies.c.task_id, copies.c.worker).where(copies.c.lease_id == bindparam("lease")))
_AT_WORK = exists().where(
    copies.c.task_id == bindparam("id"),
    copies.c.worker == workers.c.identity,
    copies.c.state.in_((LEASED, SCORING)),
)
_WORKERS = prepared(
    select(workers.c.identity)
    .where(or_(workers.c.identity == bindparam("own"), _AT_WORK))
    .order_by(workers.c.identity)
    .with_for_update()
)
_DISPATCH = prepared(text("SELECT pg_advisory_xact_lock(1735551332)"))


def hold(tx: Transaction, task_id: str, worker: str = "") -> None:
    """Hold the task, the workers that are at work on it, and `worker`, until the transaction ends."""
    if tx.is_postgresql:
        tx.execute(TASK, {"id": task_id})
        tx.execute(_WORKERS, {"id": task_id, "own": worker})


def held_copy(tx: Transaction, lease_id: str) -> Any:
    """The copy with this lease as it is now, held with its task and workers; None if there is none."""
    if tx.is_postgresql:
        found = tx.execute(_TASK_OF, {"lease": lease_id}).one_or_none()
        if found is None:
            return None
        hold(tx, found.task_id, found.worker)
    return tx.execute(COPY, {"lease": lease_id}).one_or_none()


def hold_dispatch(tx: Transaction) -> None:
    """One round at a time, over all nodes: what it sees of tasks, turns and leases is what it may act on."""
    if tx.is_postgresql:
        tx.execute(_DISPATCH)
