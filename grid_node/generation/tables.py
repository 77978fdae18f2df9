"""Rows of generation: tasks, copies, workers, turns of keys. Times are seconds since 1970-01-01 UTC."""

from sqlalchemy import BigInteger, Index, LargeBinary, String, Text, UniqueConstraint, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base
from grid_node.streams.tables import RowId

QUEUED = literal_column("'queued'", String)
LEASED = literal_column("'leased'", String)
SCORING = literal_column("'scoring'", String)
"""States as text of the statement: with a parameter in their place SQLite plans the statement anew at each run, since
only the value says whether a partial index serves."""

_OPEN = text("finished_at IS NULL")
_QUEUED = text("status = 'queued'")
_ABANDONED = text("abandoned_at IS NOT NULL AND finished_at IS NULL")
_KEYED = text("idempotency_key IS NOT NULL")
_LEASED = text("state = 'leased'")
_SCORING = text("state = 'scoring'")
_JUDGED = text("verdict_at IS NOT NULL")


class Task(Base):
    """A request of a client. `number` is the order of acceptance; `due_at` is when the task must next be looked at."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index("ix_tasks_open", "kind", "number", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_tasks_abandoned", "abandoned_at", sqlite_where=_ABANDONED, postgresql_where=_ABANDONED),
        Index("ix_tasks_due", "due_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_tasks_queued", "key_id", "number", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index("ix_tasks_key", "key_id", "number"),
        Index(
            "uq_tasks_idempotency",
            "key_id",
            "idempotency_key",
            unique=True,
            sqlite_where=_KEYED,
            postgresql_where=_KEYED,
        ),
    )

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    key_id: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(64))
    prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    copies: Mapped[int]
    send_first_results: Mapped[bool]
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    seq: Mapped[int]
    open_slots: Mapped[int]
    strong_taken: Mapped[bool]
    attempts: Mapped[int]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    first_result_at: Mapped[float | None]
    finished_at: Mapped[float | None] = mapped_column(index=True)
    deadline: Mapped[float]
    settle_at: Mapped[float | None]
    abandoned_at: Mapped[float | None]
    """When the client's raw WebSocket was lost; empty again once somebody asks for the task."""
    due_at: Mapped[float]
    best: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)


class Copy(Base):
    """One worker's attempt at one task. Its lease id is its fence: it is granted once and never again."""

    __tablename__ = "copies"
    __table_args__ = (
        UniqueConstraint("task_id", "worker"),
        Index("ix_copies_leased", "worker", sqlite_where=_LEASED, postgresql_where=_LEASED),
        Index("ix_copies_expiry", "lease_expires_at", sqlite_where=_LEASED, postgresql_where=_LEASED),
        Index("ix_copies_scoring", "job_due_at", sqlite_where=_SCORING, postgresql_where=_SCORING),
        Index("ix_copies_verdict", "verdict_at", sqlite_where=_JUDGED, postgresql_where=_JUDGED),
    )

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    lease_id: Mapped[str] = mapped_column(String(36), unique=True)
    task_id: Mapped[str] = mapped_column(String(36))
    worker: Mapped[str] = mapped_column(String(128))
    strong: Mapped[bool]
    extra: Mapped[bool]
    state: Mapped[str] = mapped_column(String(20))
    granted_at: Mapped[float]
    lease_expires_at: Mapped[float]
    lease_until: Mapped[float]
    submitted_at: Mapped[float | None]
    late: Mapped[bool] = mapped_column(default=False)
    verdict_at: Mapped[float | None]
    format: Mapped[str | None] = mapped_column(String(16))
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    inline: Mapped[bytes | None] = mapped_column(LargeBinary)
    score: Mapped[float | None]
    n: Mapped[int | None]
    credited: Mapped[bool] = mapped_column(default=False)
    report: Mapped[str | None] = mapped_column(Text)
    artifacts: Mapped[str | None] = mapped_column(Text)
    assets_gone: Mapped[bool] = mapped_column(default=False)
    job_attempts: Mapped[int] = mapped_column(default=0)
    job_due_at: Mapped[float | None]
    job_until: Mapped[float | None]
    job_owner: Mapped[str | None] = mapped_column(String(36))


class Worker(Base):
    """What the node remembers of a worker. `recent` holds its last 20 scores as a JSON list, newest last."""

    __tablename__ = "workers"

    identity: Mapped[str] = mapped_column(String(128), primary_key=True)
    kinds: Mapped[str] = mapped_column(Text, default=" ")
    max_parallel: Mapped[int] = mapped_column(default=1)
    seen_at: Mapped[float] = mapped_column(default=0.0, index=True)
    recent: Mapped[str] = mapped_column(Text, default="[]")
    low_streak: Mapped[int] = mapped_column(default=0)
    skip_streak: Mapped[int] = mapped_column(default=0)
    cooldown_until: Mapped[float] = mapped_column(default=0.0)
    cooldown_reason: Mapped[str | None] = mapped_column(String(32))
    violations: Mapped[int] = mapped_column(default=0)
    feedback_seq: Mapped[int] = mapped_column(default=0)
    notice_seq: Mapped[int] = mapped_column(default=0)


class KeyTurn(Base):
    """When a key was last served: the number of the newest copy granted to one of its tasks."""

    __tablename__ = "key_turns"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    turn: Mapped[int] = mapped_column(BigInteger)


class Heartbeat(Base):
    """When a node last lived: after a restart leases are extended by the time between."""

    __tablename__ = "heartbeats"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
