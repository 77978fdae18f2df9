"""The rows of webhooks that are owed to clients, and what their owners see of them."""

from collections import defaultdict
from typing import Any

from sqlalchemy import bindparam, func, insert, literal_column, or_, select, tuple_, update

from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.runners.tables import RunnerDelivery, RunnerDeliveryTry
from grid_node.statements import prepared

PENDING, DELIVERED, FAILED, DROPPED = "pending", "delivered", "failed", "dropped"
PAGE = 100
"""Deliveries of one page of the log."""
SWEPT = 64
"""Most deliveries of one owner that one sweep takes up: nobody's backlog hides another's."""

deliveries = RunnerDelivery.__table__
tries = RunnerDeliveryTry.__table__
_PENDING = deliveries.c.state == literal_column(f"'{PENDING}'")
"""In the words of the index, which holds these rows alone: SQLite does not look into parameters for that."""
_FREE = or_(deliveries.c.claimed_until.is_(None), deliveries.c.claimed_until <= bindparam("now"))
_OF_PREDICTION = deliveries.c.prediction == bindparam("of")
INSERT = prepared(insert(deliveries))
INSERT_TRY = prepared(insert(tries))
_BY_ID = deliveries.c.id == bindparam("id")
_SHORT = select(
    *(column for column in deliveries.c if column.name != "body"), func.length(deliveries.c.body).label("size")
)
"""Without the body, which may be long; `size` is its characters."""
FIND = prepared(_SHORT.where(_BY_ID))
HELD = prepared(_SHORT.where(_BY_ID).with_for_update())
BODY = prepared(select(deliveries.c.body).where(_BY_ID, deliveries.c.claimed_until == bindparam("claim")))
DROP = prepared(update(deliveries).where(_OF_PREDICTION, _PENDING, _FREE).values(state=DROPPED, claimed_until=None))
REFRESH = prepared(
    update(deliveries)
    .where(_OF_PREDICTION, deliveries.c.event == bindparam("kind"), _PENDING, deliveries.c.claimed_until.is_(None))
    .values(body=bindparam("text"))
)
NEWEST = prepared(select(func.max(deliveries.c.due_at)).where(_OF_PREDICTION, deliveries.c.event == bindparam("kind")))
"""When the last delivery of an event was due."""
_WAITING = (
    select(
        deliveries.c.id,
        deliveries.c.due_at,
        func.row_number().over(partition_by=deliveries.c.owner, order_by=deliveries.c.due_at).label("place"),
    )
    .where(_PENDING, deliveries.c.due_at <= bindparam("due"), _FREE)
    .subquery()
)
WAITING = prepared(select(_WAITING.c.id).where(_WAITING.c.place <= SWEPT).order_by(_WAITING.c.due_at))


def page(tx: Transaction, prediction: int, before: Any, limit: int) -> list[Any]:
    """Deliveries of the prediction older than the row `before`, newest first."""
    query = _SHORT.where(deliveries.c.prediction == prediction)
    if before is not None:
        query = query.where(tuple_(deliveries.c.created_at, deliveries.c.id) < (before.created_at, before.id))
    ordered = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
    return list(tx.execute(ordered).all())


def views(tx: Transaction, rows: list[Any]) -> list[dict[str, Any]]:
    """The deliveries with their tries, as their owner sees them."""
    query = select(tries).where(tries.c.delivery.in_([row.id for row in rows])).order_by(tries.c.id)
    made: defaultdict[str, list[Any]] = defaultdict(list)
    for one in tx.execute(query):
        made[one.delivery].append(one)
    return [_view(row, made[row.id]) for row in rows]


def _view(row: Any, made: list[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "event": row.event,
        "url": row.url,
        "state": row.state,
        "attempts": row.attempts,
        "created_at": rfc3339(row.created_at),
        "next_try_at": rfc3339(row.due_at) if row.state == PENDING else None,
        "tries": [_try_view(row, one) for one in made],
    }


def _try_view(row: Any, one: Any) -> dict[str, Any]:
    return {
        "event": row.event,
        "attempt": one.attempt,
        "at": rfc3339(one.at),
        "status": one.status,
        "error": one.error,
        "ms": one.ms,
        "answer": one.answer,
    }
