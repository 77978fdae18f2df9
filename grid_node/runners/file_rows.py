"""Rows of files, and what is counted of them: per prediction in its row, per key in one of its own.

Who holds both holds the prediction first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import orjson
from sqlalchemy import and_, bindparam, delete, func, insert, select, text, tuple_, update

from grid_node.database import Transaction
from grid_node.runners.prediction import predictions
from grid_node.runners.tables import RunnerFile, RunnerUsage
from grid_node.statements import prepared

OUTPUT, INPUT, DATA = "output", "input", "data"

files: Any = RunnerFile.__table__
usage: Any = RunnerUsage.__table__
_BATCH = 500
"""Keys that one statement names."""

_INSERT = prepared(insert(files))
_BY_KEY = prepared(select(files).where(files.c.key == bindparam("key")))
_SAME = select(files).where(
    files.c.owner + "" == bindparam("owner"),
    files.c.kind == bindparam("kind"),
    files.c.sha256 == bindparam("sha256"),
    files.c.filename == bindparam("filename"),
    files.c.removed.is_(False),
)
"""In no order, and not by the bare owner: for either SQLite would look at every file that he has."""
_PLACE = ("prediction", "prediction_id", "index", "label")
_RENEW = prepared(update(files).where(files.c.key == bindparam("that")).values(expires_at=bindparam("at")))
_OPEN_USAGE = prepared(text("INSERT INTO runner_usage (owner, bytes) VALUES (:owner, 0) ON CONFLICT DO NOTHING"))
_HELD_USAGE = prepared(select(usage.c.bytes).where(usage.c.owner == bindparam("owner")).with_for_update())
_USAGE = prepared(select(usage.c.bytes).where(usage.c.owner == bindparam("owner")))
_USE = prepared(text("UPDATE runner_usage SET bytes = bytes + :size WHERE owner = :owner"))
_COUNTED = select(
    predictions.c.number,
    predictions.c.id,
    predictions.c.files,
    predictions.c.files_bytes,
    predictions.c.finished_at,
    predictions.c.data_removed,
)
_ROOM_OF_NUMBER = _COUNTED.where(predictions.c.number == bindparam("number"))
_ROOM_OF_ID = _COUNTED.where(
    predictions.c.runner_owner == bindparam("runner_owner"), predictions.c.id == bindparam("id")
)
_LOOK = {"number": prepared(_ROOM_OF_NUMBER), "id": prepared(_ROOM_OF_ID)}
_HOLD = {"number": prepared(_ROOM_OF_NUMBER.with_for_update()), "id": prepared(_ROOM_OF_ID.with_for_update())}
_COUNT = prepared(
    text(
        "UPDATE runner_predictions SET files = files + :files, files_bytes = files_bytes + :size WHERE number = :number"
    )
)
_UNLINKED = and_(
    files.c.owner == bindparam("sender"),
    files.c.prediction_id == bindparam("named"),
    files.c.prediction.is_(None),
    files.c.removed.is_(False),
)
_UNLINKED_ROOM = prepared(select(func.count(), func.coalesce(func.sum(files.c.size), 0)).where(_UNLINKED))
_LINK = prepared(update(files).where(_UNLINKED).values(prediction=bindparam("row")).returning(files.c.size))
_DUE = prepared(
    select(files.c.key, files.c.owner)
    .where(text("NOT removed"), files.c.expires_at <= bindparam("now"))
    .limit(bindparam("limit"))
)
"""The condition is that of the index, word by word."""
_KNOWN = select(predictions.c.id).where(
    predictions.c.runner_owner == bindparam("runner_owner"), predictions.c.id.in_(bindparam("ids", expanding=True))
)
_OF_PREDICTION = prepared(select(files).where(files.c.prediction == bindparam("number")))
_PAGE = (
    select(files)
    .where(files.c.owner == bindparam("owner"), files.c.kind == INPUT, files.c.removed.is_(False))
    .order_by(files.c.created_at.desc(), files.c.key.desc())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """See `tables.RunnerFile` for the members."""

    key: str
    owner: str
    kind: str
    prediction: int | None = None
    prediction_id: str | None = None
    index: int | None = None
    label: str | None = None
    filename: str
    content_type: str
    sniffed: str | None = None
    size: int
    sha256: str
    about: dict[str, Any] = field(default_factory=dict)
    created_at: float
    expires_at: float
    removed: bool = False


_ABOUT = "metadata"
_COLUMNS = tuple(column.name for column in files.c)


class Room(NamedTuple):
    """What a prediction has of files. `number` is None while no row says which prediction it is."""

    number: int | None
    id: str | None
    files: int
    files_bytes: int
    finished_at: float | None = None
    data_removed: bool = False


def of_row(row: Any) -> FileInfo:
    """By position: every tuple has an `index` of its own."""
    values = dict(zip(_COLUMNS, row, strict=True))
    about = orjson.loads(values.pop(_ABOUT))
    return FileInfo(**values, about=about)


def insert_file(tx: Transaction, file: FileInfo) -> None:
    values = asdict(file)
    values[_ABOUT] = orjson.dumps(values.pop("about")).decode()
    tx.execute(_INSERT, values)


def by_key(tx: Transaction, key: str) -> FileInfo | None:
    row = tx.execute(_BY_KEY, {"key": key}).one_or_none()
    return None if row is None else of_row(row)


def by_keys(tx: Transaction, keys: Iterable[str]) -> dict[str, FileInfo]:
    wanted, found = list(dict.fromkeys(keys)), {}
    for start in range(0, len(wanted), _BATCH):
        rows = tx.execute(select(files).where(files.c.key.in_(wanted[start : start + _BATCH])))
        found.update({row.key: of_row(row) for row in rows})
    return found


def same_file(tx: Transaction, file: FileInfo) -> FileInfo | None:
    """One that was sent before: the same bytes under the same name, in the same place of the same prediction."""
    where = [files.c[name] == getattr(file, name) for name in _PLACE]  # None becomes IS NULL
    given = {name: getattr(file, name) for name in ("owner", "kind", "sha256", "filename")}
    row = tx.execute(_SAME.where(*where).limit(1), given).one_or_none()
    return None if row is None else of_row(row)


def renew(tx: Transaction, key: str, expires_at: float) -> None:
    tx.execute(_RENEW, {"that": key, "at": expires_at})


# --- what is counted ----------------------------------------------------------------------------------------------


def held_usage(tx: Transaction, owner: str) -> int:
    """Bytes of the owner's files, which nobody else changes until the transaction ends."""
    tx.execute(_OPEN_USAGE, {"owner": owner})
    return int(tx.execute(_HELD_USAGE, {"owner": owner}).scalar_one())


def usage_of(tx: Transaction, owner: str) -> int:
    return int(tx.execute(_USAGE, {"owner": owner}).scalar() or 0)


def use(tx: Transaction, owner: str, size: int) -> None:
    tx.execute(_USE, {"owner": owner, "size": size})


def room_of_number(tx: Transaction, number: int, *, hold: bool = False) -> Room | None:
    row = tx.execute((_HOLD if hold else _LOOK)["number"], {"number": number}).one_or_none()
    return None if row is None else Room(*row)


def room_of_id(tx: Transaction, runner_owner: str, id: str, *, hold: bool = False) -> Room:
    """The prediction that the workers of this owner call `id`; if there is none yet, what waits for it."""
    row = tx.execute((_HOLD if hold else _LOOK)["id"], {"runner_owner": runner_owner, "id": id}).one_or_none()
    if row is not None:
        return Room(*row)
    waiting = tx.execute(_UNLINKED_ROOM, {"sender": runner_owner, "named": id}).one()
    return Room(None, id, int(waiting[0]), int(waiting[1]))


def count(tx: Transaction, number: int, sizes: Sequence[int]) -> None:
    """That prediction has so many files more."""
    tx.execute(_COUNT, {"files": len(sizes), "size": sum(sizes), "number": number})


def link(tx: Transaction, runner_owner: str, id: str, number: int) -> None:
    """What was sent for the prediction before anything was known of it is its own from now on."""
    sizes = [int(row.size) for row in tx.execute(_LINK, {"sender": runner_owner, "named": id, "row": number})]
    if sizes:
        count(tx, number, sizes)


def claim(tx: Transaction, number: int, keys: Iterable[str]) -> None:
    """Those of these files that were sent for no known prediction are of this one."""
    where = files.c.key.in_(list(keys)), files.c.prediction.is_(None), files.c.kind != INPUT
    claimed = tx.execute(update(files).where(*where).values(prediction=number).returning(files.c.size))
    sizes = [int(row.size) for row in claimed]
    if sizes:
        count(tx, number, sizes)


# --- several ------------------------------------------------------------------------------------------------------


def known_ids(tx: Transaction, runner_owner: str, ids: list[str]) -> set[str]:
    """Those of the ids that name a prediction of this owner's workers."""
    return set(tx.execute(_KNOWN, {"runner_owner": runner_owner, "ids": ids}).scalars()) if ids else set()


def of_prediction(tx: Transaction, number: int) -> list[FileInfo]:
    return [of_row(row) for row in tx.execute(_OF_PREDICTION, {"number": number})]


def inputs_of(tx: Transaction, owner: str, edge: tuple[float, str] | None, limit: int) -> list[FileInfo]:
    """Files of a client, newest first, from before `edge`: the time and key of the last one before."""
    page = _PAGE.limit(limit)
    if edge is not None:
        page = page.where(tuple_(files.c.created_at, files.c.key) < edge)
    return [of_row(row) for row in tx.execute(page, {"owner": owner})]


def remove(tx: Transaction, unwanted: Iterable[FileInfo]) -> list[FileInfo]:
    """The rows are gone; the bytes are nobody's if no other row needs them. Those that were there, as they were."""
    keys, gone = [file.key for file in unwanted], list[FileInfo]()
    for start in range(0, len(keys), _BATCH):
        removal = delete(files).where(files.c.key.in_(keys[start : start + _BATCH])).returning(*files.c)
        gone += [of_row(row) for row in tx.execute(removal)]
    return gone


def due(tx: Transaction, now: float, limit: int) -> list[Any]:
    """`key` and `owner` of files that are past their time and not marked yet."""
    return list(tx.execute(_DUE, {"now": now, "limit": limit}))


def expire(tx: Transaction, keys: list[str]) -> list[FileInfo]:
    """Mark these files, each once; their rows stay."""
    if not keys:
        return []
    mark = update(files).where(files.c.key.in_(keys), files.c.removed.is_(False)).values(removed=True)
    return [of_row(row) for row in tx.execute(mark.returning(*files.c))]


def forget_expired(tx: Transaction, edge: float) -> None:
    tx.execute(delete(files).where(files.c.removed.is_(True), files.c.expires_at <= edge))
