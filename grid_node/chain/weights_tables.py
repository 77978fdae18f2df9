"""Rows of weights: what identities asked for, what was sent, who sends. Times are seconds since 1970-01-01 UTC."""

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import BigInteger, Index, String, Text, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base
from grid_node.streams.tables import RowId

SCHEDULED, RUNNING, COMPLETED = "scheduled", "running", "completed"
SUPERSEDED, EXPIRED, FAILED = "superseded", "tempo_expired", "failed"
UNFINISHED = (SCHEDULED, RUNNING)
CLIENT, AUTO = "client", "auto"

_UNFINISHED = text("status IN ('scheduled', 'running')")
_AUTO = text("source = 'auto'")
_SENT, _SENT_SQLITE = text("in_flight IS true"), text("in_flight IS 1")


class WeightsJob(Base):
    """Weights that an identity put. The newest row of an identity has its greatest `number`.

    At most one job of an identity is unfinished, and an epoch has at most one automatic one: the indexes say so, too.
    """

    __tablename__ = "chain_weights_jobs"
    __table_args__ = (
        Index("ix_chain_weights_jobs_identity", "identity", "number"),
        Index(
            "uq_chain_weights_jobs_unfinished",
            "identity",
            unique=True,
            sqlite_where=_UNFINISHED,
            postgresql_where=_UNFINISHED,
        ),
        Index(
            "uq_chain_weights_jobs_auto",
            "identity",
            "netuid",
            "epoch_start",
            unique=True,
            sqlite_where=_AUTO,
            postgresql_where=_AUTO,
        ),
        Index("ix_chain_weights_jobs_sent", "number", sqlite_where=_SENT_SQLITE, postgresql_where=_SENT),
    )

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    identity: Mapped[str] = mapped_column(String(255))
    netuid: Mapped[int]
    source: Mapped[str] = mapped_column(String(8))
    status: Mapped[str] = mapped_column(String(16))
    weights: Mapped[str] = mapped_column(Text)
    """JSON of the weights that are to be set, by hotkey: without those that were dropped when they were put."""
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 of all that was put: equal requests have equal digests."""
    count: Mapped[int]
    """Entries of the request."""
    dropped: Mapped[str] = mapped_column(Text)
    """JSON list of the hotkeys that were not on the subnet, when they were put or at the last attempt."""
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[float]
    updated_at: Mapped[float]
    started_at: Mapped[float | None]
    next_attempt_at: Mapped[float | None]
    chain: Mapped[str | None] = mapped_column(String(66))
    """Hash of block 0 of the chain that they are for; None until one was known."""
    put_block: Mapped[int | None] = mapped_column(BigInteger)
    """Head of the chain when it was put, where one was known."""
    epoch_start: Mapped[int | None] = mapped_column(BigInteger)
    epoch_end: Mapped[int | None] = mapped_column(BigInteger)
    in_flight: Mapped[bool] = mapped_column(default=False)
    """The extrinsic of the next five columns may have been sent, and nobody knows yet what became of it."""
    extrinsic_hash: Mapped[str | None] = mapped_column(String(66))
    nonce: Mapped[int | None] = mapped_column(BigInteger)
    era_start: Mapped[int | None] = mapped_column(BigInteger)
    era_end: Mapped[int | None] = mapped_column(BigInteger)
    reveal_round: Mapped[int | None] = mapped_column(BigInteger)
    landed: Mapped[bool] = mapped_column(default=False)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    last_error: Mapped[str | None] = mapped_column(Text)


class ChainLease(Base):
    """Who may send extrinsics, and until when."""

    __tablename__ = "chain_leases"
    __table_args__ = ({"sqlite_with_rowid": False},)

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(512))
    until: Mapped[float]


jobs = WeightsJob.__table__
IS_UNFINISHED = literal_column("status").in_([literal_column(f"'{status}'") for status in UNFINISHED])
"""In the words of the index, which holds these rows alone."""
leases = ChainLease.__table__


def as_text(value: Any) -> str:
    """JSON, the same for equal values. Control characters are escaped: PostgreSQL takes no NUL in a text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def without(hotkeys: Iterable[str], known: Iterable[str]) -> list[str]:
    """The hotkeys that are not among the known, in their order."""
    there = set(known)
    return [hotkey for hotkey in hotkeys if hotkey not in there]


def status_body(row: Any, retries: int) -> dict[str, Any]:
    """WeightsStatus of a row; `retries` is how often a failed attempt is repeated. Times are seconds since 1970."""
    epoch = None if row.epoch_end is None else {"start": row.epoch_start, "end": row.epoch_end}
    return {
        "job_id": row.id,
        "identity_name": row.identity,
        "netuid": row.netuid,
        "status": row.status,
        "weights_submitted": row.landed,
        "count": row.count,
        "dropped": orjson.loads(row.dropped),
        "source": row.source,
        "attempts": row.attempts,
        "max_attempts": 1 + retries,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "next_attempt_at": row.next_attempt_at if row.status in UNFINISHED else None,
        "epoch": epoch,
        "block_number": row.block_number,
        "extrinsic_hash": row.extrinsic_hash,
        "reveal_round": row.reveal_round,
        "last_error": row.last_error,
    }
