"""Units of work on the rows of uploads. `now` is seconds since 1970-01-01 UTC."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, or_, select, text, update

from grid_node.database import Transaction
from grid_node.errors import QuotaExceeded, RateLimited
from grid_node.uploads.tables import CHECKING, RECEIVING, STORED, Upload

uploads: Any = Upload.__table__

OPEN_STATES = (RECEIVING, CHECKING, STORED)


@dataclass(frozen=True)
class UploadRow:
    """A row as it was read."""

    id: str
    kind: str
    owner: str
    length: int
    state: str
    upload_metadata: str
    unverified_from: int | None
    sha256: str | None
    answer: str | None
    expires_at: float

    @property
    def is_open(self) -> bool:
        return self.state in (RECEIVING, CHECKING)

    @property
    def told(self) -> dict[str, Any]:
        """What the target said, once it did: `fields` or `error`."""
        return json.loads(self.answer) if self.answer else {}


_COLUMNS = [uploads.c[name] for name in UploadRow.__dataclass_fields__]
_BY_ID = select(*_COLUMNS).where(uploads.c.id == bindparam("upload_id"))
_WHERE_ID = uploads.c.id == bindparam("upload_id")
_COUNT_OPEN = select(func.count().label("count"), func.coalesce(func.sum(uploads.c.length), 0).label("size")).where(
    uploads.c.kind == bindparam("kind"),
    uploads.c.owner == bindparam("owner"),
    uploads.c.state.in_(OPEN_STATES),
    uploads.c.taken_at.is_(None),
    uploads.c.expires_at > bindparam("now"),
)
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtext(:owner))")
_MARK_UNVERIFIED = (
    update(uploads).where(_WHERE_ID).values(unverified_from=bindparam("offset", type_=uploads.c.length.type))
)
_MARK_CHECKING = (
    update(uploads)
    .where(_WHERE_ID, uploads.c.state == RECEIVING)
    .values(state=CHECKING, sha256=bindparam("digest"), unverified_from=None)
)
_MARK_LOST = update(uploads).where(_WHERE_ID, uploads.c.state == CHECKING).values(state=RECEIVING, sha256=None)
_MARK_OUTCOME = (
    update(uploads)
    .where(_WHERE_ID, uploads.c.state == CHECKING)
    .values(
        state=bindparam("outcome"),
        answer=bindparam("told"),
        expires_at=bindparam("until"),
        upload_metadata=bindparam("metadata"),
        # what is not here to be taken is its target's business, which may want its digest known to nobody
        sha256=case((bindparam("outcome") == STORED, uploads.c.sha256)),
    )
)
_TAKE = (
    update(uploads)
    .where(_WHERE_ID, uploads.c.state == STORED)
    .values(taken_at=func.coalesce(uploads.c.taken_at, bindparam("now")))
)
_DELETE = delete(uploads).where(_WHERE_ID)
_FORGET = delete(uploads).where(uploads.c.expires_at < bindparam("before"))


def find(tx: Transaction, upload_id: str) -> UploadRow | None:
    row = tx.execute(_BY_ID, {"upload_id": upload_id}).mappings().one_or_none()
    return None if row is None else UploadRow(**row)


def create(tx: Transaction, values: dict[str, Any], open_max: int, room: int | None, now: float) -> None:
    """Raises RateLimited when the owner already has `open_max` open uploads of this kind, QuotaExceeded when they
    and this one are more than `room` bytes together."""
    if tx.is_postgresql:
        tx.execute(_LOCK_OWNER, {"owner": values["owner"]})
    held = tx.execute(_COUNT_OPEN, {"kind": values["kind"], "owner": values["owner"], "now": now}).one()
    if held.count >= open_max:
        raise RateLimited("Too many unfinished uploads", retry_after=60, limit=open_max)
    if room is not None and held.size + values["length"] > room:
        raise QuotaExceeded("No bytes left in the quota for unfinished uploads", used=int(held.size), limit=room)
    tx.execute(insert(uploads), {**values, "state": RECEIVING, "created_at": now})


def mark_unverified(tx: Transaction, upload_id: str, offset: int | None) -> None:
    tx.execute(_MARK_UNVERIFIED, {"upload_id": upload_id, "offset": offset})


def mark_checking(tx: Transaction, upload_id: str, sha256: str) -> None:
    tx.execute(_MARK_CHECKING, {"upload_id": upload_id, "digest": sha256})


def mark_lost(tx: Transaction, upload_id: str) -> None:
    """Its bytes are gone: it begins again from nothing."""
    tx.execute(_MARK_LOST, {"upload_id": upload_id})


def mark_outcome(
    tx: Transaction, upload_id: str, state: str, told: dict[str, Any], metadata: str, expires_at: float
) -> None:
    values = {"upload_id": upload_id, "outcome": state, "told": json.dumps(told), "until": expires_at}
    values["metadata"] = metadata
    tx.execute(_MARK_OUTCOME, values)


def take(tx: Transaction, upload_id: str, now: float) -> None:
    tx.execute(_TAKE, {"upload_id": upload_id, "now": now})


def remove(tx: Transaction, upload_id: str) -> None:
    tx.execute(_DELETE, {"upload_id": upload_id})


def forget(tx: Transaction, before: float) -> None:
    """Drop the rows of uploads that ended before then; their ids answer 404 from now on."""
    tx.execute(_FORGET, {"before": before})


def receiving(tx: Transaction, upload_ids: list[str], now: float) -> set[str]:
    """Those that may still need their partial file."""
    statement = select(uploads.c.id).where(
        uploads.c.id.in_(upload_ids),
        uploads.c.state.in_((RECEIVING, CHECKING)),
        uploads.c.expires_at > now,
    )
    return set(tx.execute(statement).scalars())


def unfinished(tx: Transaction, kind: str, now: float) -> list[UploadRow]:
    statement = select(*_COLUMNS).where(
        uploads.c.kind == kind,
        uploads.c.state.in_((RECEIVING, CHECKING)),
        uploads.c.expires_at > now,
    )
    return [UploadRow(**row) for row in tx.execute(statement).mappings()]


def referenced(tx: Transaction, digests: list[str], now: float) -> set[str]:
    """Those digests that an upload holds until its target decided, or until it is taken or past its time."""
    statement = select(uploads.c.sha256).where(
        uploads.c.sha256.in_(digests),
        or_(uploads.c.state == CHECKING, and_(uploads.c.state == STORED, uploads.c.expires_at > now)),
    )
    return set(tx.execute(statement).scalars())
