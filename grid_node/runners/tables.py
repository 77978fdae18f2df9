"""Rows of runners: models, predictions, reports, files, deliveries. Times are seconds since 1970-01-01 UTC."""

from sqlalchemy import BigInteger, Index, LargeBinary, PrimaryKeyConstraint, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base
from grid_node.streams.tables import RowId

_OPEN = text("finished_at IS NULL")
_QUEUED = text("state = 'queued'")
_PENDING = text("state = 'pending'")
_WAITS, _WAITS_SQLITE = text("merged IS false"), text("merged IS 0")
_GENERATING = text("generation IS NOT NULL")
_TENDED = text("due_at IS NOT NULL")
_KEPT = text("NOT removed")


class RunnerModel(Base):
    """A registered model. `document` is the registration as it came; `envelope` the tunnel's secrets, encrypted."""

    __tablename__ = "runner_models"
    __table_args__ = (
        UniqueConstraint("owner", "name"),
        Index("ix_runner_models_due", "due_at", sqlite_where=_TENDED, postgresql_where=_TENDED),
        Index("ix_runner_models_generation", "id", sqlite_where=_GENERATING, postgresql_where=_GENERATING),
    )

    id: Mapped[str] = mapped_column(String(22), primary_key=True)
    owner: Mapped[str] = mapped_column(String(16))
    account: Mapped[str] = mapped_column(String(64), index=True)
    """The owner's name in addresses."""
    name: Mapped[str] = mapped_column(String(63))
    visibility: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(10))
    version: Mapped[str] = mapped_column(String(64))
    document: Mapped[str] = mapped_column(Text)
    generation: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int]
    provider: Mapped[str] = mapped_column(String(16))
    hostname: Mapped[str] = mapped_column(String(255))
    tunnel_id: Mapped[str | None] = mapped_column(String(64))
    dns_record_id: Mapped[str | None] = mapped_column(String(64))
    envelope: Mapped[str | None] = mapped_column(Text)
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    """sha256 of the tunnel's token: what an agent shows is compared with it."""
    cog_version: Mapped[str | None] = mapped_column(String(32))
    run_count: Mapped[int] = mapped_column(default=0)
    seen_at: Mapped[float | None]
    due_at: Mapped[float | None]
    """When the janitor must look at the row; null: never."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


class RunnerVersion(Base):
    """A signature that a model has or had: predictions keep the one that they were checked against."""

    __tablename__ = "runner_versions"
    __table_args__ = (PrimaryKeyConstraint("model_id", "version"),)

    model_id: Mapped[str] = mapped_column(String(22))
    version: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float]


class RunnerRequest(Base):
    """An idempotency key and what its first request made; 24 hours long. Marks of leases lie here too, see
    `adapters.cog_leases`."""

    __tablename__ = "runner_requests"
    __table_args__ = (PrimaryKeyConstraint("owner", "kind", "key"), {"sqlite_with_rowid": False})

    owner: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64))
    made: Mapped[str] = mapped_column(String(128))
    at: Mapped[float] = mapped_column(index=True)


class RunnerAgent(Base):
    """An agent that is or was connected, at whichever node process. `health` is the worker's last health-check."""

    __tablename__ = "runner_agents"
    __table_args__ = (PrimaryKeyConstraint("model_id", "instance"), {"sqlite_with_rowid": False})

    model_id: Mapped[str] = mapped_column(String(22))
    instance: Mapped[str] = mapped_column(String(32))
    node: Mapped[str] = mapped_column(String(36), index=True)
    status: Mapped[str] = mapped_column(String(16))
    connected: Mapped[bool]
    health: Mapped[str] = mapped_column(Text)
    agent: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[float]


class RunnerPrediction(Base):
    """One run of one model. `number` is the order of acceptance, `due_at` when it must next be looked at.

    Members that are JSON are text here; `prediction.Prediction` is the same row, parsed.
    """

    __tablename__ = "runner_predictions"
    __table_args__ = (
        UniqueConstraint("runner_owner", "id"),
        Index("ix_runner_predictions_owner", "owner", "number"),
        Index("ix_runner_predictions_id", "id"),
        Index("ix_runner_predictions_open", "model_id", "number", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_runner_predictions_queued", "model_id", "number", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index("ix_runner_predictions_due", "due_at", sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("ix_runner_predictions_finished", "finished_at"),
    )

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(128))
    owner: Mapped[str] = mapped_column(String(16))
    """The key that asked; it alone may look."""
    runner_owner: Mapped[str] = mapped_column(String(16))
    """The key whose model it is: its worker reports and uploads."""
    model_id: Mapped[str | None] = mapped_column(String(22))
    model: Mapped[str] = mapped_column(String(140))
    version: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(12))
    input: Mapped[str] = mapped_column(Text)
    output: Mapped[str] = mapped_column(Text, default="null")
    logs: Mapped[str] = mapped_column(Text, default="")
    logs_length: Mapped[int] = mapped_column(BigInteger, default=0)
    """Characters that the worker reported, of which `logs` keeps the last."""
    error: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[str] = mapped_column(Text, default="{}")
    extra: Mapped[str] = mapped_column(Text, default="{}")
    warnings: Mapped[str] = mapped_column(Text, default="[]")
    times: Mapped[str] = mapped_column(Text, default="{}")
    """`created_at`, `started_at`, `completed_at` as they are told, and `source`: worker or node."""
    seen_items: Mapped[int] = mapped_column(default=0)
    """Most items that any report's output had."""
    webhook: Mapped[str | None] = mapped_column(Text)
    webhook_events: Mapped[str] = mapped_column(String(64), default="")
    seq: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    runner: Mapped[str | None] = mapped_column(String(32))
    """Instance of the agent that has it."""
    claimed_until: Mapped[float | None]
    dispatched_at: Mapped[float | None]
    reported_at: Mapped[float | None]
    cancel_at: Mapped[float | None]
    """When somebody asked for the cancel."""
    deadline: Mapped[float | None]
    """Cancel-After, or the deadline of the task that it is for."""
    due_at: Mapped[float]
    events: Mapped[int] = mapped_column(default=0)
    events_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    files: Mapped[int] = mapped_column(default=0)
    files_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    data_removed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class RunnerEvent(Base):
    """One report of a worker as it came. `body` is compressed (see `event_log`); null: it is not kept."""

    __tablename__ = "runner_events"
    __table_args__ = (
        UniqueConstraint("prediction", "seq"),
        Index("ix_runner_events_waiting", "prediction", "seq", sqlite_where=_WAITS_SQLITE, postgresql_where=_WAITS),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    prediction: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int]
    received_at: Mapped[float]
    auth: Mapped[str] = mapped_column(String(8))
    status: Mapped[str | None] = mapped_column(String(32))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    late: Mapped[bool]
    merged: Mapped[bool]


class RunnerFile(Base):
    """A file of a worker or a client under a key that cannot be guessed. The bytes are a blob."""

    __tablename__ = "runner_files"
    __table_args__ = (
        Index("ix_runner_files_prediction", "prediction", "sha256"),
        Index("ix_runner_files_owner", "owner", "created_at"),
        Index("ix_runner_files_named", "owner", "prediction_id"),
        Index("ix_runner_files_kept", "expires_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
    )

    key: Mapped[str] = mapped_column(String(48), primary_key=True)
    owner: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(8))
    """output: of a worker; input: of a client; data: was inside a message."""
    prediction: Mapped[int | None] = mapped_column(BigInteger)
    prediction_id: Mapped[str | None] = mapped_column(String(128))
    index: Mapped[int | None]
    label: Mapped[str | None] = mapped_column(String(64))
    """Key of a dict output, where the name had one in place of an index."""
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(255))
    sniffed: Mapped[str | None] = mapped_column(String(32))
    """Type found in the first bytes, of those that a browser may show."""
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    about: Mapped[str] = mapped_column("metadata", Text, default="{}")
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)
    removed: Mapped[bool] = mapped_column(default=False)


class RunnerUsage(Base):
    """Bytes of all files of one key: read at each upload, so it is kept and not added up."""

    __tablename__ = "runner_usage"

    owner: Mapped[str] = mapped_column(String(16), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


class RunnerDelivery(Base):
    """A webhook that is owed to a client. `body` is what is sent, the same at each try."""

    __tablename__ = "runner_deliveries"
    __table_args__ = (
        Index("ix_runner_deliveries_prediction", "prediction", "created_at"),
        Index("ix_runner_deliveries_due", "due_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Its header webhook-id too."""
    prediction: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(String(16))
    event: Mapped[str] = mapped_column(String(10))
    url: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(10))
    """pending, delivered, failed or dropped."""
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float]
    claimed_until: Mapped[float | None]
    created_at: Mapped[float]


class RunnerDeliveryTry(Base):
    """One try of a delivery. `answer` is the first KiB of what the receiver said."""

    __tablename__ = "runner_delivery_tries"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    delivery: Mapped[str] = mapped_column(String(32), index=True)
    attempt: Mapped[int]
    at: Mapped[float]
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(200))
    ms: Mapped[int]
    answer: Mapped[str] = mapped_column(Text)


class RunnerHookSecret(Base):
    """The secret that signs a client's webhooks, encrypted; after a rotation the one before still signs for a day."""

    __tablename__ = "runner_hook_secrets"

    owner: Mapped[str] = mapped_column(String(16), primary_key=True)
    box: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    rotated_at: Mapped[float]
