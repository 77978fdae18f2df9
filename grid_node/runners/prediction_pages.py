"""Lists of predictions, newest first, bounded in rows and in bytes."""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, func, select

from grid_node.database import Transaction
from grid_node.runners.cursors import cursor_of, place_of
from grid_node.runners.prediction import Prediction, of_row, predictions
from grid_node.statements import prepared

PAGE = 100
"""Predictions of a page."""
PAGE_BYTES = 8 * 1024 * 1024
"""Characters after which a page ends early; one prediction may have more."""
LIST_LOGS = 4096
"""Characters of each log, the last ones, that a list shows."""
_STEP = 5
"""Rows that are read at a time: one may hold 32 MiB of output, and nobody knows before reading it."""
_KIND = "predictions"
_OLDER, _NEWER = "older", "newer"

_LOGS = case(
    (
        func.length(predictions.c.logs) > LIST_LOGS,
        func.substr(predictions.c.logs, func.length(predictions.c.logs) - LIST_LOGS + 1),
    ),
    else_=predictions.c.logs,
).label("logs")
_COLUMNS = [_LOGS if column.name == "logs" else column for column in predictions.c]
_MINE = predictions.c.owner == bindparam("owner")
_BEFORE = prepared(
    select(*_COLUMNS)
    .where(_MINE, predictions.c.number < bindparam("edge"))
    .order_by(predictions.c.number.desc())
    .limit(_STEP)
)
_BEHIND = prepared(
    select(*_COLUMNS).where(_MINE, predictions.c.number > bindparam("edge")).order_by(predictions.c.number).limit(_STEP)
)
_ANY_OLDER = prepared(select(predictions.c.number).where(_MINE, predictions.c.number < bindparam("edge")).limit(1))
_ANY_NEWER = prepared(select(predictions.c.number).where(_MINE, predictions.c.number > bindparam("edge")).limit(1))
_NAMED = prepared(
    select(*_COLUMNS)
    .where(_MINE, predictions.c.id == bindparam("id"))
    .order_by(predictions.c.number.desc())
    .limit(_STEP)
)
_NO_EDGE = 2**62


class Page(NamedTuple):
    """`previous` and `next` are cursors."""

    results: list[Prediction]
    previous: str | None
    next: str | None


def page_of(tx: Transaction, owner: str, cursor: str | None = None) -> Page:
    """What the key asked for, from the cursor on. Raises BadCursor."""
    direction, edge = _OLDER, _NO_EDGE
    if cursor is not None:
        direction, edge = place_of(_KIND, cursor, str, int)
    found = _read(tx, owner, edge, newer=direction == _NEWER)
    if not found:
        return Page([], None, None)
    newest, oldest = found[0].number, found[-1].number
    newer = tx.execute(_ANY_NEWER, {"owner": owner, "edge": newest}).one_or_none()
    older = tx.execute(_ANY_OLDER, {"owner": owner, "edge": oldest}).one_or_none()
    return Page(
        found,
        None if newer is None else cursor_of(_KIND, _NEWER, newest),
        None if older is None else cursor_of(_KIND, _OLDER, oldest),
    )


def page_named(tx: Transaction, owner: str, id: str) -> Page:
    """Those that go by this id."""
    return Page([of_row(row) for row in tx.execute(_NAMED, {"owner": owner, "id": id})], None, None)


def _read(tx: Transaction, owner: str, edge: int, *, newer: bool) -> list[Prediction]:
    """From the edge on until the page is full, newest first."""
    statement, found, size = _BEHIND if newer else _BEFORE, list[Any](), 0
    while len(found) < PAGE and size < PAGE_BYTES:
        rows = tx.execute(statement, {"owner": owner, "edge": edge}).all()
        for row in rows[: PAGE - len(found)]:
            size += _size(row)
            if found and size > PAGE_BYTES:
                break
            found.append(row)
        if len(rows) < _STEP:
            break
        edge = rows[-1].number
    return [of_row(row) for row in (reversed(found) if newer else found)]


def _size(row: Any) -> int:
    return sum(len(text) for text in (row.input, row.output, row.logs, row.extra, row.metrics, row.error or ""))
