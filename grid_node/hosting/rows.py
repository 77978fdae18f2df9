"""Units of work on the rows of hosted models. `now` is seconds since 1970-01-01 UTC."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, text, update

from grid_node.blobs.references import refer, release
from grid_node.database import Transaction
from grid_node.errors import ModelExists, ModelNotFound, QuotaExceeded, VersionConflict
from grid_node.hosting.rights import ModelCaller, require_change
from grid_node.hosting.tables import Model, ModelShare, ModelTag, ModelVersion
from grid_node.statements import prepared
from models_store.tensors import Signature

models: Any = Model.__table__
versions: Any = ModelVersion.__table__
shares: Any = ModelShare.__table__
tags: Any = ModelTag.__table__


@dataclass(frozen=True)
class VersionRow:
    """One version as it was read, together with its model."""

    number: int
    id: str
    hidden: bool
    newest: int
    version: int
    owner: str
    sha256: str | None
    size: int
    format: str
    allow_download: bool
    allow_remote_inference: bool
    mpc: bool
    tags: str
    description: str
    signature: str | None
    architecture: str | None
    derived_sha256: str | None
    created_at: float
    kills: int
    share_set: str | None
    share_precision: int | None
    share_provider: str | None
    share_token_sha256: str | None

    @property
    def key(self) -> str:
        """Names these bytes and what was said of them for good."""
        return f"{self.number}/{self.version}"

    @property
    def reference(self) -> str:
        """Owner of the blobs of this version."""
        return f"model-{self.number}-{self.version}"

    @property
    def digests(self) -> list[str]:
        """Of the blobs of this version."""
        return [digest for digest in (self.sha256, self.derived_sha256) if digest]

    @cached_property
    def takes(self) -> Signature | None:
        """Inputs and outputs; None for what does not run."""
        return None if self.signature is None else Signature.of(json.loads(self.signature))


_OWN = ("number", "id", "hidden", "newest")
COLUMNS = [
    *(models.c[name] for name in _OWN),
    *(versions.c[n] for n in VersionRow.__dataclass_fields__ if n not in _OWN and n != "owner"),
]
COLUMNS.insert(5, models.c.owner)
JOINED = models.join(versions, versions.c.model == models.c.number)
_BY_ID = models.c.id == bindparam("model_id")
_NEWEST = prepared(select(*COLUMNS).select_from(JOINED).where(_BY_ID, versions.c.version == models.c.newest))
_EXACT = prepared(select(*COLUMNS).select_from(JOINED).where(_BY_ID, versions.c.version == bindparam("version")))
_MODEL = prepared(select(models).where(_BY_ID))
_HELD = prepared(select(models).where(_BY_ID).with_for_update())
_USED = prepared(
    select(func.coalesce(func.sum(versions.c.size), 0).label("size"), func.count().label("count")).where(
        versions.c.owner == bindparam("owner")
    )
)
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtext('models ' || :owner))")
_NEXT_PLACE = select(func.coalesce(func.max(models.c.place), 0) + 1).scalar_subquery()
_CREATE = prepared(
    text(
        "INSERT INTO models (id, owner, hidden, place, newest, last_version)"
        " VALUES (:id, :owner, :hidden, (SELECT COALESCE(MAX(place), 0) + 1 FROM models), 1, 1)"
        " ON CONFLICT DO NOTHING"
    )
)
_THIS = models.c.number == bindparam("of")
_AGAIN = prepared(
    update(models)
    .where(_THIS, models.c.newest.is_(None))
    .values(
        owner=bindparam("by"),
        hidden=bindparam("hide"),
        place=_NEXT_PLACE,
        last_version=models.c.last_version + 1,
        newest=models.c.last_version + 1,
    )
)
_ADVANCE = prepared(
    update(models)
    .where(_THIS, models.c.newest.is_not(None), models.c.last_version == bindparam("seen"))
    .values(last_version=models.c.last_version + 1, newest=models.c.last_version + 1)
)
_SIZES = select(versions.c.version).where(versions.c.model == bindparam("of"))


@dataclass(frozen=True)
class Quota:
    """What one owner may keep here."""

    size: int
    """Bytes of all versions together."""
    count: int
    """Versions."""


def find(tx: Transaction, model_id: str, version: int | None = None) -> VersionRow:
    """The version, by default the newest. Raises ModelNotFound."""
    if version is None:
        row = tx.execute(_NEWEST, {"model_id": model_id}).one_or_none()
    else:
        row = tx.execute(_EXACT, {"model_id": model_id, "version": version}).one_or_none()
    if row is None:
        raise ModelNotFound()
    return VersionRow(*row)


def check_next(
    tx: Transaction, caller: ModelCaller, model_id: str, wish: int | str | None, *, hold: bool = False
) -> Any:
    """The model's row, or None for an id that was never served, if a serve with this wish may go on.

    `hold`: nobody else changes the row until the transaction ends.

    Raises ModelExists, ModelNotFound, VersionConflict, and what `require_change` raises.
    """
    model = tx.execute(_HELD if hold else _MODEL, {"model_id": model_id}).one_or_none()
    if model is None or model.newest is None:
        if wish is not None:
            raise ModelNotFound()
        return model
    if wish is None:
        raise ModelExists()
    require_change(caller, find(tx, model_id))
    if wish != "new" and wish != model.last_version + 1:
        raise _conflict(model.last_version + 1)
    return model


def one_at_a_time(tx: Transaction, owner: str) -> None:
    """Nobody else serves for this owner until the transaction ends; what is read from now on is what they left."""
    if tx.is_postgresql:  # SQLite has one writer
        tx.execute(_LOCK_OWNER, {"owner": owner})


def _conflict(following: int) -> VersionConflict:
    return VersionConflict(f"The version must be the next one, {following}", version=following)


def check_quota(tx: Transaction, owner: str, size: int, quota: Quota) -> None:
    """Raises QuotaExceeded when `size` more bytes, or one more version, are too many."""
    used = tx.execute(_USED, {"owner": owner}).one()
    if used.size + size > quota.size:
        raise QuotaExceeded("No bytes left in the quota", used=int(used.size), limit=quota.size)
    if used.count >= quota.count:
        raise QuotaExceeded("No models left in the quota", used=used.count, limit=quota.count)


def add(
    tx: Transaction, caller: ModelCaller, model_id: str, wish: int | str | None, hidden: bool, values: dict[str, Any]
) -> VersionRow:
    """A new version; `values` are columns of ModelVersion. The unique id decides between serves that race."""
    model = check_next(tx, caller, model_id, wish, hold=True)
    number, version = _claim(tx, caller, model, model_id, hidden)
    tx.execute(insert(versions), {**values, "model": number, "version": version})
    _retag(tx, number, json.loads(values["tags"]))
    row = find(tx, model_id, version)
    refer(tx, row.reference, [digest for digest in (row.sha256, row.derived_sha256) if digest])
    return row


def _claim(tx: Transaction, caller: ModelCaller, model: Any, model_id: str, hidden: bool) -> tuple[int, int]:
    """The model's number and its next version, ours alone. Raises ModelExists, VersionConflict."""
    if model is None:
        if tx.execute(_CREATE, {"id": model_id, "owner": caller.key_id, "hidden": hidden}).rowcount != 1:
            raise ModelExists()
        return tx.execute(_MODEL, {"model_id": model_id}).one().number, 1
    if model.newest is None:
        if tx.execute(_AGAIN, {"of": model.number, "by": caller.key_id, "hide": hidden}).rowcount != 1:
            raise ModelExists()
    elif tx.execute(_ADVANCE, {"of": model.number, "seen": model.last_version}).rowcount != 1:
        raise _conflict(model.last_version + 2)
    return model.number, model.last_version + 1


def remove(tx: Transaction, caller: ModelCaller, model_id: str, version: int | None) -> list[VersionRow]:
    """Delete one version, or all; returns what was deleted. Raises ModelNotFound, Forbidden, MissingKey."""
    model = tx.execute(_HELD, {"model_id": model_id}).one_or_none()
    row = find(tx, model_id, version)
    require_change(caller, row)
    numbers = [row.version] if version is not None else list(tx.execute(_SIZES, {"of": row.number}).scalars())
    gone = [find(tx, model_id, number) for number in numbers]
    release(tx, [one.reference for one in gone])
    for table in (versions, shares):
        tx.execute(delete(table).where(table.c.model == model.number, table.c.version.in_(numbers)))
    _settle_newest(tx, model.number, model_id)
    return gone


def _settle_newest(tx: Transaction, number: int, model_id: str) -> None:
    """After a deletion: the newest version that is left, or none."""
    newest = tx.execute(select(func.max(versions.c.version)).where(versions.c.model == number)).scalar()
    change = {"newest": newest} if newest is not None else {"newest": None, "place": None}
    tx.execute(update(models).where(models.c.number == number).values(**change))
    _retag(tx, number, json.loads(find(tx, model_id).tags) if newest is not None else [])


def _retag(tx: Transaction, number: int, words: list[str]) -> None:
    tx.execute(delete(tags).where(tags.c.model == number))
    for word in dict.fromkeys(words):
        tx.execute(insert(tags), {"tag": word, "model": number})


def any_runnable(tx: Transaction) -> bool:
    """Whether some model here may be run."""
    wanted = select(versions.c.version).where(versions.c.allow_remote_inference.is_(True)).limit(1)
    return tx.execute(wanted).first() is not None


_BY_KEY = (versions.c.model == bindparam("of"), versions.c.version == bindparam("number"))


def note_kill(tx: Transaction, key: str) -> None:
    """A compute process died over this version (see `VersionRow.key`)."""
    tx.execute(update(versions).where(*_BY_KEY).values(kills=versions.c.kills + 1), _of_key(key))


def clear_kills(tx: Transaction, key: str) -> None:
    """The operator says that the version may run again."""
    tx.execute(update(versions).where(*_BY_KEY).values(kills=0), _of_key(key))


def _of_key(key: str) -> dict[str, int]:
    number, version = key.split("/")
    return {"of": int(number), "number": int(version)}
