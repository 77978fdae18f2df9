"""The search over datasets. Ids and tags are looked up; descriptions are read piece by piece, each in a short
transaction, so that a long search keeps neither the hub nor a connection to the database.
"""

import functools
import time
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select

from grid_node.database import Store, Transaction
from grid_node.hosting.dataset_schemas import as_id
from grid_node.hosting.tables import EVERYBODY, Dataset, DatasetTag
from grid_node.statements import Prepared, prepared

SCANNED, SCANNED_ELSEWHERE = 256, 10_000
"""Rows that are looked through at a time, divided by the number of terms, on SQLite and on PostgreSQL. SQLite works in
this process and compares at each position of a description: so many of the longest and worst keep the hub for some
milliseconds."""

datasets: Any = Dataset.__table__
tags: Any = DatasetTag.__table__

_SEEN = datasets.c.space.in_((EVERYBODY, bindparam("me")))
_TAG_SEEN = tags.c.space.in_((EVERYBODY, bindparam("me")))
_ANY = prepared(select(datasets.c.number).where(_SEEN).limit(1))
_HAS_ID = prepared(select(datasets.c.number).where(_SEEN, datasets.c.id == bindparam("id")).limit(1))
_HAS_TAG = prepared(select(tags.c.dataset).where(_TAG_SEEN, tags.c.tag == bindparam("tag")).limit(1))
_LATER = select(datasets.c.number).where(datasets.c.number > bindparam("behind")).order_by(datasets.c.number)
_BOUND = prepared(_LATER.offset(bindparam("skipped")).limit(1))
_LAST = prepared(select(func.max(datasets.c.number)))


def matches(store: Store, me: str, terms: tuple[str, ...]) -> bool:
    """Whether one dataset that `me` may see (id of a key, or ANONYMOUS) matches every term: by its id, by a tag, or
    inside its description. Without terms: whether there is any."""
    if not terms:
        return store.read(lambda tx: bool(tx.execute(_ANY, {"me": me}).all()))
    named = store.read(lambda tx: [term for term in terms if _is_named(tx, me, term)])
    if named and len(terms) == 1:
        return True
    return _scan(store, me, named, [term for term in terms if term not in named])


def _is_named(tx: Transaction, me: str, term: str) -> bool:
    """Whether it is the id or a tag of some dataset."""
    by_id = tx.execute(_HAS_ID, {"me": me, "id": as_id(term)}).all()
    return bool(by_id or tx.execute(_HAS_TAG, {"me": me, "tag": term}).all())


def _scan(store: Store, me: str, named: list[str], others: list[str]) -> bool:
    """Look at every row for one that matches the terms that are names and, in its description, the others."""
    wanted: dict[str, Any] = {"me": me}
    for n, term in enumerate([*named, *others]):
        wanted[f"term_{n}"] = term
    for n, term in enumerate(named):
        wanted[f"id_{n}"] = as_id(term)
    behind: int | None = 0
    while behind is not None:
        look = functools.partial(_look, wanted=wanted, named=len(named), others=len(others), behind=behind)
        found, behind = store.read(look)
        if found:
            return True
        time.sleep(0)
    return False


def _look(tx: Transaction, wanted: dict[str, Any], named: int, others: int, behind: int) -> tuple[bool, int | None]:
    """Whether some of the next rows matches, and where to go on; None after the last."""
    rows = max(1, (SCANNED_ELSEWHERE if tx.is_postgresql else SCANNED) // (named + others))
    bound = tx.execute(_BOUND, {"behind": behind, "skipped": rows - 1}).scalar()
    last = tx.execute(_LAST).scalar() if bound is None else bound
    if last is None or last <= behind:
        return False, None
    statement = _piece(named, others, tx.is_postgresql)
    found = tx.execute(statement, {**wanted, "behind": behind, "last": last}).all()
    return bool(found), bound


@functools.cache
def _piece(named: int, others: int, postgresql: bool) -> Prepared:
    """A row between `behind` and `last` that matches `named` terms any way and `others` by its description."""
    position: Any = func.strpos if postgresql else func.instr  # both case-sensitive, and 0 where it is not
    described = [position(datasets.c.description, bindparam(f"term_{n}")) > 0 for n in range(named + others)]
    conditions = described[named:] + [or_(described[n], _is_called(n)) for n in range(named)]
    return prepared(select(datasets.c.number).where(_between(datasets.c.number), _SEEN, *conditions).limit(1))


def _is_called(n: int) -> ColumnElement[bool]:
    tagged = select(tags.c.dataset).where(_TAG_SEEN, tags.c.tag == bindparam(f"term_{n}"), _between(tags.c.dataset))
    return or_(datasets.c.id == bindparam(f"id_{n}"), datasets.c.number.in_(tagged))


def _between(number: Any) -> ColumnElement[bool]:
    return and_(number > bindparam("behind"), number <= bindparam("last"))
