"""Rows of identity: keys and what they used, requests seen, miners allowed and refused."""

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.database import Base


class ApiKey(Base):
    """A key in the hands of a client, worker, runner or operator. The key itself is not here, only its sha256."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(8), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    scopes: Mapped[str] = mapped_column(String(200))
    """Comma separated, in the order of `keys.SCOPES`."""
    max_requests: Mapped[int]
    period: Mapped[int]
    max_concurrent: Mapped[int] = mapped_column(default=0)
    """Unfinished tasks at a time; 0: no limit."""
    created_at: Mapped[float]
    last_used_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    disabled_at: Mapped[float | None]
    charges: Mapped[int] = mapped_column(BigInteger, default=0)
    """Ordinal of the newest charge."""
    charged_at: Mapped[float] = mapped_column(default=0.0)
    """Time of the newest charge: the next one is never dated before it."""


class Charge(Base):
    """One accepted request of a key. Times of a key never fall as its ordinals rise."""

    __tablename__ = "charges"
    __table_args__ = (
        PrimaryKeyConstraint("key_id", "ordinal"),
        Index("ix_charges_window", "key_id", "at", "ordinal"),
        {"sqlite_with_rowid": False},
    )

    key_id: Mapped[str] = mapped_column(String(8))
    ordinal: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    at: Mapped[float]


class KeyEpoch(Base):
    """One row that counts the changes of keys, allow-list and blacklist: other processes notice one by a number."""

    __tablename__ = "key_epoch"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger)


class UsedRequest(Base):
    """A signed request that was accepted; the same one is refused until `expires_at`."""

    __tablename__ = "request_uuids"
    __table_args__ = (PrimaryKeyConstraint("public_key", "uuid"), {"sqlite_with_rowid": False})

    public_key: Mapped[str] = mapped_column(String(64))
    uuid: Mapped[str] = mapped_column(String(36))
    expires_at: Mapped[float] = mapped_column(index=True)


class AllowedMiner(Base):
    """A hotkey that counts as registered while no chain says so. `public_key` is 64 lower hex digits."""

    __tablename__ = "miner_allowlist"

    public_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    added_at: Mapped[float]


class BlacklistedMiner(Base):
    """A hotkey that is refused, until `until` (never ends if null)."""

    __tablename__ = "miner_blacklist"

    public_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    reason: Mapped[str] = mapped_column(String(200))
    until: Mapped[float | None]
    added_at: Mapped[float]
