"""Blocks of the ledger: which is the head, what they are called, and how one is added.

Only blocks with a write are rows. The others are worked out from the last one before them: they follow each other at
its pace, and are named by the hash of the genesis, their number and its name. So that a block that somebody saw as
empty is never filled afterwards, a head is *claimed* in the row of the ledger before it is told to anybody; whoever
writes locks that row and adds the block after it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, insert, select, update

from grid_node.chain.ledger.tables import ChainBlock, ChainExtrinsic, ChainMeta, ChainMetagraphChange
from grid_node.chain.ports import BLOCK_MAX, Block, BlockUnknown, NodeUnreachable, WriteRefused
from grid_node.database import Transaction
from grid_node.statements import prepared

_BLOCK = select(ChainBlock.number, ChainBlock.hash, ChainBlock.at, ChainBlock.pace)
_META = select(ChainMeta.genesis, ChainMeta.reached)
_READ_META = prepared(_META)
_LOCK_META = prepared(_META.with_for_update())
_CLAIM = prepared(update(ChainMeta).values(reached=bindparam("number")))
_NEWEST = prepared(_BLOCK.order_by(ChainBlock.number.desc()).limit(1))
_UPTO = prepared(_BLOCK.where(ChainBlock.number <= bindparam("number")).order_by(ChainBlock.number.desc()).limit(1))
_AFTER = prepared(
    select(ChainBlock.at).where(ChainBlock.number > bindparam("number")).order_by(ChainBlock.number).limit(1)
)
_ADD_BLOCK = prepared(
    insert(ChainBlock).values(
        number=bindparam("number"), hash=bindparam("hash"), at=bindparam("at"), pace=bindparam("pace")
    )
)
_NEXT_NONCE = prepared(select(func.max(ChainExtrinsic.nonce)).where(ChainExtrinsic.address == bindparam("address")))


class Stored(NamedTuple):
    """A block that is a row: of the blocks after it `number + n` is `n * pace` seconds later."""

    number: int
    hash: str
    at: float
    pace: float

    def reached(self, now: float) -> int:
        """Number of the last block that is due, were nothing written since."""
        return self.number + max(0, math.floor((now - self.at) / self.pace))

    def time_of(self, number: int) -> float:
        return self.at + (number - self.number) * self.pace


class Meta(NamedTuple):
    genesis: str
    reached: int


def hash_of(*parts: bytes) -> str:
    """blake2b-256 of the parts, as a chain writes it."""
    return "0x" + blake2b(b"".join(parts), digest_size=32).hexdigest()


def canonical_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _raw(hash_text: str) -> bytes:
    return bytes.fromhex(hash_text[2:])


def _number(number: int) -> bytes:
    return number.to_bytes(4, "little")


def meta(tx: Transaction) -> Meta:
    """Raises NodeUnreachable where no ledger was founded yet."""
    row = tx.execute(_READ_META).one_or_none()
    if row is None:
        raise NodeUnreachable("The ledger has no first block yet.")
    return Meta(*row)


def stored_upto(tx: Transaction, number: int) -> Stored:
    return Stored(*tx.execute(_UPTO, {"number": number}).one())


def require_block(tx: Transaction, number: int) -> Meta:
    """Raises BlockUnknown for numbers that nobody was told of yet."""
    ledger = meta(tx)
    if not 0 <= number <= ledger.reached:
        raise BlockUnknown(f"Block {number} not found.")
    return ledger


def block_at(tx: Transaction, number: int) -> Block:
    """Raises BlockUnknown."""
    ledger = require_block(tx, number)
    stored = stored_upto(tx, number)
    if stored.number == number:
        return Block(number, stored.hash, int(stored.at))
    following = tx.execute(_AFTER, {"number": number}).scalar()
    at = stored.time_of(number) if following is None else min(stored.time_of(number), following)
    return Block(number, hash_of(_raw(ledger.genesis), _number(number), _raw(stored.hash)), int(at))


def is_due(tx: Transaction, now: float) -> bool:
    """Whether a block after the claimed head has come."""
    return Stored(*tx.execute(_NEWEST).one()).reached(now) > meta(tx).reached


def claim(tx: Transaction, now: float) -> Block:
    """The head, claimed: from here on whoever writes does so behind it."""
    ledger = Meta(*tx.execute(_LOCK_META).one())
    due = min(Stored(*tx.execute(_NEWEST).one()).reached(now), BLOCK_MAX)
    if due > ledger.reached:
        tx.execute(_CLAIM, {"number": due})
    return block_at(tx, max(due, ledger.reached))


def found(tx: Transaction, now: float, seed: str, pace: float) -> None:
    """Make the ledger with its block 0, where there is none. `seed` is what makes its genesis hash its own."""
    if tx.execute(_READ_META).one_or_none() is not None:
        return
    genesis = hash_of(b"grid ledger", seed.encode())
    tx.execute(insert(ChainMeta), {"id": 1, "genesis": genesis, "founded_at": now, "reached": 0})
    tx.execute(_ADD_BLOCK, {"number": 0, "hash": genesis, "at": now, "pace": pace})


@dataclass(frozen=True)
class Extrinsic:
    """A write as it is kept. `args` is Pylon's `call_args`."""

    address: str | None
    nonce: int | None
    module: str
    function: str
    args: Sequence[dict[str, Any]]
    hash: str | None = None
    """None: of a command, which is named by its place."""


class NewBlock:
    """A block that is being made, inside one unit of work. Nobody else adds one until the unit ends.

    What the block holds is written with `number` before `seal`, which gives it its name.
    """

    def __init__(self, tx: Transaction, now: float, pace: float, *, skip: int = 0) -> None:
        """`skip` empty blocks come before it. Raises WriteRefused behind the last number."""
        self.tx = tx
        self._meta = Meta(*tx.execute(_LOCK_META).one())
        self._before = Stored(*tx.execute(_NEWEST).one())
        head = max(self._before.reached(now), self._meta.reached)
        self.number = head + 1 + skip
        if self.number > BLOCK_MAX:
            raise WriteRefused(f"A ledger has at most {BLOCK_MAX} blocks.")
        self._at = max(now, self._before.time_of(head))
        self._pace = pace
        self._hashes: list[bytes] = []
        self._touched: set[int] = set()

    def touch(self, netuid: int) -> None:
        """The metagraph of this subnet is another one from this block on."""
        self._touched.add(netuid)

    def next_nonce(self, address: str) -> int:
        return next_nonce(self.tx, address)

    def add(self, extrinsic: Extrinsic) -> str:
        """Returns its hash."""
        index = len(self._hashes) + 1  # Timestamp.set is the first of every block
        called = [extrinsic.module, extrinsic.function, list(extrinsic.args)]
        place = _raw(self._meta.genesis) + _number(self.number) + _number(index)
        name = extrinsic.hash or hash_of(place, canonical_json(called))
        self._hashes.append(_raw(name))
        row = {
            "block": self.number,
            "index": index,
            "hash": name,
            "address": extrinsic.address,
            "nonce": extrinsic.nonce,
            "length": len(canonical_json(called)),
            "module": extrinsic.module,
            "function": extrinsic.function,
            "args": json.dumps(list(extrinsic.args)),
        }
        self.tx.execute(insert(ChainExtrinsic), row)
        return name

    def seal(self) -> Block:
        """Give the block its name and make it the head."""
        before = _raw(self._before.hash)
        name = hash_of(_raw(self._meta.genesis), _number(self.number), before, b"sealed", *self._hashes)
        row = {"number": self.number, "hash": name, "at": self._at, "pace": self._pace}
        self.tx.execute(_ADD_BLOCK, row)
        self.tx.execute(_CLAIM, {"number": self.number})
        for netuid in sorted(self._touched):
            self.tx.execute(insert(ChainMetagraphChange), {"netuid": netuid, "block": self.number})
        return Block(self.number, name, int(self._at))


def next_nonce(tx: Transaction, address: str) -> int:
    """How many extrinsics the signer has written."""
    newest: int | None = tx.execute(_NEXT_NONCE, {"address": address}).scalar()
    return 0 if newest is None else newest + 1
