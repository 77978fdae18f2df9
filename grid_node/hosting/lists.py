"""Lists of hosted models, oldest first; deleted ones and, but for their owner, shares are not in them."""

from typing import Any

from sqlalchemy import Select, and_, null, select

from grid_node.database import Transaction
from grid_node.errors import ModelNotFound
from grid_node.hosting.rows import COLUMNS, JOINED, VersionRow, models, tags, versions
from grid_node.statements import prepared

MANY = 500
"""Models above which the versions of all are read, instead of those asked for."""
_LISTED = and_(models.c.place.is_not(None), models.c.hidden.is_(False))
_ORDER = (models.c.place, models.c.number)
_LONG = ("signature", "architecture")
_SHOWN = [null().label(column.name) if column.name in _LONG else column for column in COLUMNS]
"""What a list shows: not the long texts, of which it would read megabytes for nothing."""
_IDS = prepared(select(models.c.id).where(_LISTED).order_by(*_ORDER))
_VERSIONS = prepared(
    select(versions.c.model, versions.c.version)
    .select_from(JOINED)
    .where(models.c.place.is_not(None))
    .order_by(versions.c.model, versions.c.version)
)


def ids(tx: Transaction) -> list[str]:
    """Ids of all models, oldest first; shares are not among them."""
    return [row[0] for row in tx.execute(_IDS)]


def page_of_ids(tx: Transaction, limit: int, after: str | None) -> list[str]:
    """At most `limit` ids from behind `after`."""
    statement = select(models.c.id).where(_LISTED, *_behind(tx, after, _LISTED)).order_by(*_ORDER).limit(limit)
    return list(tx.execute(statement).scalars())


def page(
    tx: Transaction, owner: str, limit: int | None, after: str | None, tag: str | None
) -> list[tuple[VersionRow, list[int]]]:
    """Newest versions, but for what says how they run, with the numbers of all; shares only for their owner."""
    listed = models.c.hidden.is_(False) if not owner else (models.c.hidden.is_(False)) | (models.c.owner == owner)
    statement = (
        select(*_SHOWN)
        .select_from(JOINED)
        .where(versions.c.version == models.c.newest, models.c.place.is_not(None), listed, *_behind(tx, after, listed))
        .order_by(*_ORDER)
        .limit(limit)
    )
    if tag is not None:
        statement = statement.where(models.c.number.in_(select(tags.c.model).where(tags.c.tag == tag)))
    found = [VersionRow(*row) for row in tx.execute(statement)]
    return list(zip(found, _all_versions(tx, found), strict=True))


def every_version() -> Select[Any]:
    """Columns of VersionRow for every version of every model that is there, shares too; oldest model first."""
    there = select(*COLUMNS).select_from(JOINED).where(models.c.place.is_not(None))
    return there.order_by(*_ORDER, versions.c.version)


def _all_versions(tx: Transaction, rows: list[VersionRow]) -> list[list[int]]:
    if len(rows) <= MANY:
        wanted = [row.number for row in rows]
        statement = select(versions.c.model, versions.c.version).where(versions.c.model.in_(wanted))
        pairs = tx.execute(statement.order_by(versions.c.version))
    else:
        pairs = tx.execute(_VERSIONS)
    found: dict[int, list[int]] = {}
    for number, version in pairs:
        found.setdefault(number, []).append(version)
    return [found.get(row.number, [row.version]) for row in rows]


def _behind(tx: Transaction, after: str | None, seen: Any) -> list[Any]:
    """Conditions that leave out everything up to `after`. Raises ModelNotFound for one that the caller does not see."""
    if after is None:
        return []
    place = tx.execute(select(models.c.place, models.c.number).where(models.c.id == after, seen)).one_or_none()
    if place is None or place.place is None:
        raise ModelNotFound()
    return [(models.c.place > place.place) | ((models.c.place == place.place) & (models.c.number > place.number))]
