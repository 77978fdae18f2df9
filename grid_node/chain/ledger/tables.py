"""Rows of the ledger.

Rows with `valid_from` and `valid_to` are history: they say what was so in the blocks `valid_from` to `valid_to - 1`.
They are never changed but for `valid_to`, which is `OPEN` until the row is replaced or ended. Hotkeys and coldkeys are
SS58, stakes are rao.
"""

from sqlalchemy import BigInteger, Index, LargeBinary, PrimaryKeyConstraint, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from grid_node.chain.ports import BLOCK_MAX
from grid_node.database import Base

OPEN = BLOCK_MAX + 1
"""`valid_to` of what still holds: behind the last block there can be."""
_IS_OPEN = text(f"valid_to = {OPEN}")

Ss58 = String(48)


class ChainMeta(Base):
    """The ledger itself, one row. Whoever adds a block locks it first, so that blocks come one after the other."""

    __tablename__ = "chain_meta"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    genesis: Mapped[str] = mapped_column(String(66))
    """Hash of block 0."""
    founded_at: Mapped[float]
    reached: Mapped[int] = mapped_column(BigInteger)
    """The highest block that anybody was told of: the head never falls below it."""


class ChainBlock(Base):
    """A block in which something was written, and block 0. What lies between two of them is empty."""

    __tablename__ = "chain_blocks"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(66))
    at: Mapped[float]
    pace: Mapped[float]
    """Seconds from one block to the next, from this block on."""


class ChainExtrinsic(Base):
    """A write. `address` is the signer, null for an operator's command; `args` is Pylon's `call_args` as JSON."""

    __tablename__ = "chain_extrinsics"
    __table_args__ = (
        PrimaryKeyConstraint("block", "index"),
        Index("ix_chain_extrinsics_hash", "hash", unique=True),
        Index("ix_chain_extrinsics_nonce", "address", "nonce", unique=True),
    )

    block: Mapped[int] = mapped_column(BigInteger)
    index: Mapped[int]
    hash: Mapped[str] = mapped_column(String(66))
    address: Mapped[str | None] = mapped_column(Ss58)
    nonce: Mapped[int | None] = mapped_column(BigInteger)
    length: Mapped[int]
    module: Mapped[str] = mapped_column(String(64))
    function: Mapped[str] = mapped_column(String(64))
    args: Mapped[str] = mapped_column(Text)


class ChainSubnet(Base):
    """A subnet, from block `created` on. `tempo` is in blocks and never changes."""

    __tablename__ = "chain_subnets"

    netuid: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tempo: Mapped[int]
    created: Mapped[int] = mapped_column(BigInteger)


class ChainMetagraphChange(Base):
    """A block that changed what the metagraph of a subnet is made of: neurons, stakes, axons or weights."""

    __tablename__ = "chain_metagraph_changes"
    __table_args__ = (PrimaryKeyConstraint("netuid", "block"), {"sqlite_with_rowid": False})

    netuid: Mapped[int]
    block: Mapped[int] = mapped_column(BigInteger)


class ChainNeuron(Base):
    """A neuron with its stake and its axon. `registered` is the block in which its hotkey got the uid."""

    __tablename__ = "chain_neurons"
    __table_args__ = (
        PrimaryKeyConstraint("netuid", "uid", "valid_from"),
        Index("ix_chain_neurons_valid", "netuid", "valid_to"),
        Index(
            "ix_chain_neurons_hotkey",
            "netuid",
            "hotkey",
            unique=True,
            sqlite_where=_IS_OPEN,
            postgresql_where=_IS_OPEN,
        ),
    )

    netuid: Mapped[int]
    uid: Mapped[int]
    valid_from: Mapped[int] = mapped_column(BigInteger)
    valid_to: Mapped[int] = mapped_column(BigInteger)
    hotkey: Mapped[str] = mapped_column(Ss58)
    coldkey: Mapped[str] = mapped_column(Ss58)
    registered: Mapped[int] = mapped_column(BigInteger)
    validator_permit: Mapped[bool]
    alpha: Mapped[int] = mapped_column(BigInteger)
    tao: Mapped[int] = mapped_column(BigInteger)
    ip: Mapped[str] = mapped_column(String(45))
    port: Mapped[int]
    protocol: Mapped[int]
    last_update: Mapped[int] = mapped_column(BigInteger)


class ChainWeightRow(Base):
    """The weights of one validator. `row` is pairs of uid and value, each an unsigned little-endian 16-bit number."""

    __tablename__ = "chain_weight_rows"
    __table_args__ = (
        PrimaryKeyConstraint("netuid", "uid", "valid_from"),
        Index("ix_chain_weight_rows_valid", "netuid", "valid_to"),
    )

    netuid: Mapped[int]
    uid: Mapped[int]
    valid_from: Mapped[int] = mapped_column(BigInteger)
    valid_to: Mapped[int] = mapped_column(BigInteger)
    row: Mapped[bytes] = mapped_column(LargeBinary)


class ChainCommitment(Base):
    """What a hotkey committed in block `valid_from`: 1 to 128 bytes."""

    __tablename__ = "chain_commitments"
    __table_args__ = (
        PrimaryKeyConstraint("netuid", "hotkey", "valid_from"),
        Index("ix_chain_commitments_valid", "netuid", "valid_to"),
    )

    netuid: Mapped[int]
    hotkey: Mapped[str] = mapped_column(Ss58)
    valid_from: Mapped[int] = mapped_column(BigInteger)
    valid_to: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class ChainCertificate(Base):
    """The public half of a neuron's certificate."""

    __tablename__ = "chain_certificates"
    __table_args__ = (
        PrimaryKeyConstraint("netuid", "hotkey", "valid_from"),
        Index("ix_chain_certificates_valid", "netuid", "valid_to"),
    )

    netuid: Mapped[int]
    hotkey: Mapped[str] = mapped_column(Ss58)
    valid_from: Mapped[int] = mapped_column(BigInteger)
    valid_to: Mapped[int] = mapped_column(BigInteger)
    algorithm: Mapped[int]
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
