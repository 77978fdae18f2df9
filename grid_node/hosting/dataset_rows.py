"""Units of work on the rows of datasets.

A private dataset lives in the *space* of its owner's key, every other one in the space of everybody. Each statement
looks into the spaces of its caller alone, so that what is hidden and what is not there are the same to it.
"""

import functools
import time
from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, func, or_, select, text

from grid_node.database import Store, Transaction
from grid_node.errors import DatasetExists, DatasetNotFound, InvalidPayload, QuotaExceeded
from grid_node.hosting.dataset_schemas import NewDataset
from grid_node.hosting.schemas import TAGS_MAX
from grid_node.hosting.tables import EVERYBODY, Dataset, DatasetTag
from grid_node.statements import prepared

datasets: Any = Dataset.__table__
tags: Any = DatasetTag.__table__

LISTED = 500
"""Rows of a list that are read at a time."""

_ME: Any = bindparam("me")
_SEEN = datasets.c.space.in_((EVERYBODY, _ME))
_own = datasets.alias("own")
_SHADOWED = exists().where(_own.c.id == datasets.c.id, _own.c.space == _ME)
_NAMED = and_(_SEEN, or_(datasets.c.space == _ME, ~_SHADOWED))
"""What an id stands for: the caller's own private dataset before the public one of the same id."""

_FIND = prepared(select(datasets).where(datasets.c.id == bindparam("dataset_id"), _NAMED))
_TAGS = prepared(select(tags.c.tag).where(tags.c.space.in_((EVERYBODY, _ME))).distinct())
_TAGS_OF = prepared(select(tags.c.tag).where(tags.c.dataset == bindparam("number")))
_TAGS_BETWEEN = prepared(
    select(tags.c.dataset, tags.c.tag).where(tags.c.dataset >= bindparam("first"), tags.c.dataset <= bindparam("last"))
)
_PAGE = prepared(
    select(datasets)
    .where(_NAMED, datasets.c.number > bindparam("behind"))
    .order_by(datasets.c.number)
    .limit(bindparam("size"))
)
_EVERY = prepared(select(datasets).order_by(datasets.c.number))
_COUNT = prepared(select(func.count()).where(datasets.c.owner == bindparam("owner")))
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtext('datasets ' || :owner))")
_LOCK_ROW = select(datasets.c.number).where(datasets.c.number == bindparam("number")).with_for_update()
_ADD = prepared(
    text(
        "INSERT INTO datasets (id, space, owner, description, uri, sha256, size, created_at)"
        " VALUES (:id, :space, :owner, :description, :uri, :sha256, :size, :created_at) ON CONFLICT DO NOTHING"
    )
)
_TAG = prepared(
    text("INSERT INTO dataset_tags (dataset, tag, space) VALUES (:dataset, :tag, :space) ON CONFLICT DO NOTHING")
)
_UNTAG = prepared(delete(tags).where(tags.c.dataset == bindparam("number"), tags.c.tag == bindparam("word")))
_UNTAG_ALL = prepared(delete(tags).where(tags.c.dataset == bindparam("number")))
_REMOVE = prepared(delete(datasets).where(datasets.c.number == bindparam("of")))


def find(tx: Transaction, me: str, dataset_id: str) -> Any:
    """The row that this id stands for when `me` (id of a key, or ANONYMOUS) says it. Raises DatasetNotFound."""
    row = tx.execute(_FIND, {"dataset_id": dataset_id, "me": me}).one_or_none()
    if row is None:
        raise DatasetNotFound()
    return row


def add(tx: Transaction, owner: str, new: NewDataset, limit: int, now: float) -> None:
    """`limit`: the most datasets of one owner; `now`: seconds since 1970. Raises DatasetExists, QuotaExceeded."""
    if tx.is_postgresql:
        tx.execute(_LOCK_OWNER, {"owner": owner})
    if tx.execute(_FIND, {"dataset_id": new.dataset_id, "me": owner}).one_or_none() is not None:
        raise DatasetExists()
    used = tx.execute(_COUNT, {"owner": owner}).scalar()
    if used >= limit:
        raise QuotaExceeded("No datasets left in the quota", used=used, limit=limit)
    space = owner if new.private else EVERYBODY
    if tx.execute(_ADD, _columns(new, owner, space, now)).rowcount != 1:
        raise DatasetExists()
    row = find(tx, owner, new.dataset_id)
    for word in new.tags:
        tx.execute(_TAG, {"dataset": row.number, "tag": word, "space": space})


def retag(tx: Transaction, row: Any, add: tuple[str, ...], remove: tuple[str, ...]) -> list[str]:
    """The tags afterwards, sorted. Raises InvalidPayload when they would be too many."""
    _lock(tx, row)
    for word in remove:
        tx.execute(_UNTAG, {"number": row.number, "word": word})
    for word in add:
        tx.execute(_TAG, {"dataset": row.number, "tag": word, "space": row.space})
    words = sorted(found[0] for found in tx.execute(_TAGS_OF, {"number": row.number}))
    if len(words) > TAGS_MAX:
        raise InvalidPayload(fields={"add": [f"a dataset has {TAGS_MAX} tags at most"]})
    return words


def remove(tx: Transaction, row: Any) -> None:
    """Raises DatasetNotFound when another unit was faster."""
    _lock(tx, row)
    tx.execute(_UNTAG_ALL, {"number": row.number})
    tx.execute(_REMOVE, {"of": row.number})


def _lock(tx: Transaction, row: Any) -> None:
    """Nobody else tags or removes it from here on."""
    if tx.is_postgresql and tx.execute(_LOCK_ROW, {"number": row.number}).one_or_none() is None:
        raise DatasetNotFound()


def all_tags(tx: Transaction, me: str) -> list[str]:
    """Every tag that `me` may see, once, in the order of code points."""
    return sorted(row[0] for row in tx.execute(_TAGS, {"me": me}))


# --- lists ---------------------------------------------------------------------------------------------------------


def page(store: Store, me: str, limit: int | None, after: str | None) -> list[tuple[Any, list[str]]]:
    """Rows with their sorted tags, oldest first, at most `limit` from behind `after`. Raises DatasetNotFound."""
    behind = 0 if after is None else store.read(lambda tx: find(tx, me, after).number)
    found: list[tuple[Any, list[str]]] = []
    while limit is None or len(found) < limit:
        size = LISTED if limit is None else min(LISTED, limit - len(found))
        rows = store.read(functools.partial(_slice, me=me, behind=behind, size=size))
        found += rows
        if len(rows) < size:
            break
        behind = rows[-1][0].number
        time.sleep(0)
    return found


def everything(store: Store) -> list[tuple[Any, list[str]]]:
    """All rows with their sorted tags, those of every private space too; for the operator."""

    def unit(tx: Transaction) -> list[tuple[Any, list[str]]]:
        words: dict[int, list[str]] = {}
        for number, word in tx.execute(select(tags.c.dataset, tags.c.tag)):
            words.setdefault(number, []).append(word)
        return [(row, sorted(words.get(row.number, []))) for row in tx.execute(_EVERY)]

    return store.read(unit)


def _slice(tx: Transaction, me: str, behind: int, size: int) -> list[tuple[Any, list[str]]]:
    rows = tx.execute(_PAGE, {"me": me, "behind": behind, "size": size}).all()
    words: dict[int, list[str]] = {row.number: [] for row in rows}
    if rows:
        for number, word in tx.execute(_TAGS_BETWEEN, {"first": rows[0].number, "last": rows[-1].number}):
            if number in words:
                words[number].append(word)
    return [(row, sorted(words[row.number])) for row in rows]


def _columns(new: NewDataset, owner: str, space: str, now: float) -> dict[str, Any]:
    return {
        "id": new.dataset_id,
        "space": space,
        "owner": owner,
        "description": new.description,
        "uri": new.uri,
        "sha256": new.sha256,
        "size": new.size,
        "created_at": now,
    }
