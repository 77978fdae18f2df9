"""Rows of hosted models, their versions and shares, and of datasets. Times are seconds since 1970-01-01 UTC."""

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base
from grid_node.streams.tables import RowId

ANONYMOUS = ""
"""Owner of what was served without a key: everybody."""

EVERYBODY = ""
"""Space of a dataset that is not private."""


class Model(Base):
    """An id that was ever served. The row outlives the deletion of the model: its numbers are never used again."""

    __tablename__ = "models"
    __table_args__ = (Index("ix_models_place", "place"), Index("ix_models_owner", "owner"))

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    owner: Mapped[str] = mapped_column(String(16))
    """Id of the key that served it, or ANONYMOUS."""
    hidden: Mapped[bool] = mapped_column(default=False)
    """A share: it exists for its owner alone and is listed to nobody else."""
    place: Mapped[int | None] = mapped_column(BigInteger)
    """Order of serving among the models that are there; null once the model is deleted."""
    newest: Mapped[int | None]
    """The newest version that is there."""
    last_version: Mapped[int]
    """The highest number ever given."""


class ModelVersion(Base):
    """One version: bytes and what was said of them. Nothing of it changes until it is deleted."""

    __tablename__ = "model_versions"
    __table_args__ = (
        PrimaryKeyConstraint("model", "version"),
        Index("ix_model_versions_sha256", "sha256"),
        # with the size, so that a quota is summed from the index alone
        Index("ix_model_versions_owner_size", "owner", "size"),
    )

    model: Mapped[int] = mapped_column(BigInteger)
    """`number` of the model."""
    version: Mapped[int]
    owner: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str | None] = mapped_column(String(64))
    """Null for an encrypted model: its bytes are elsewhere."""
    size: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str] = mapped_column(String(16))
    allow_download: Mapped[bool]
    allow_remote_inference: Mapped[bool]
    mpc: Mapped[bool]
    tags: Mapped[str] = mapped_column(Text)
    """JSON list."""
    description: Mapped[str] = mapped_column(Text)
    signature: Mapped[str | None] = mapped_column(Text)
    """JSON of `models_store.tensors.Signature`; null for what does not run here."""
    architecture: Mapped[str | None] = mapped_column(Text)
    derived_sha256: Mapped[str | None] = mapped_column(String(64))
    """The safetensors file that was made of a syft file, for inference."""
    created_at: Mapped[float]
    kills: Mapped[int] = mapped_column(default=0)
    """Compute processes that died over this version."""
    share_set: Mapped[str | None] = mapped_column(String(32))
    share_precision: Mapped[int | None]
    share_provider: Mapped[str | None] = mapped_column(Text)
    """JSON `{"id", "address"}` of the crypto provider."""
    share_token_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of a share held here: sha256 of the token that reads it."""


class ModelShare(Base):
    """Where one share of an encrypted model is."""

    __tablename__ = "model_shares"
    __table_args__ = (PrimaryKeyConstraint("model", "version", "index"),)

    model: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int]
    index: Mapped[int]
    worker: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    placed: Mapped[bool] = mapped_column(default=False)
    """This node placed it, so this node deletes it."""


class ServeRequest(Base):
    """The first answer to an idempotency key, for 24 hours."""

    __tablename__ = "serve_requests"
    __table_args__ = (PrimaryKeyConstraint("owner", "key"), Index("ix_serve_requests_at", "at"))

    owner: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(Text)
    at: Mapped[float]


class DamagedBlob(Base):
    """A stored file that no longer has its digest. Serving the same bytes again heals it."""

    __tablename__ = "damaged_blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    found_at: Mapped[float]


class Placement(Base):
    """Shares that this node is placing or taking back, so that a restart can go on with it."""

    __tablename__ = "placements"
    __table_args__ = (Index("ix_placements_due", "due_at"),)

    share: Mapped[str] = mapped_column(String(64), primary_key=True)
    """`share-<set>-<index>`: the id of the model at the holder."""
    address: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    """`placing` or `removing`."""
    due_at: Mapped[float]
    since: Mapped[float]


class Dataset(Base):
    """A description of data that lies elsewhere; `uri` is never fetched."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("id", "space"), Index("ix_datasets_owner", "owner"))

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64))
    space: Mapped[str] = mapped_column(String(16))
    """Id of the only key that sees it, or EVERYBODY: an id that is taken in private is not taken for the others."""
    owner: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(Text)
    uri: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[float]


class DatasetTag(Base):
    __tablename__ = "dataset_tags"
    __table_args__ = (PrimaryKeyConstraint("dataset", "tag"), Index("ix_dataset_tags_found", "space", "tag", "dataset"))

    dataset: Mapped[int] = mapped_column(BigInteger)
    """`number` of the dataset."""
    tag: Mapped[str] = mapped_column(String(64))
    space: Mapped[str] = mapped_column(String(16))
    """That of the dataset."""


class ModelTag(Base):
    """Tags of the newest versions, for the list by tag."""

    __tablename__ = "model_tags"
    __table_args__ = (PrimaryKeyConstraint("tag", "model"), Index("ix_model_tags_model", "model"))

    tag: Mapped[str] = mapped_column(String(64))
    model: Mapped[int] = mapped_column(BigInteger)
