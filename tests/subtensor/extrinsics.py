"""Extrinsics of version 4: reading them, and the checks that a node makes before it takes one into its pool."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from grid_node import ss58
from tests.subtensor import shapes
from tests.subtensor.metadata import EXTRINSIC_VERSION, TRANSACTION_VERSION
from tests.subtensor.pallets import RUNTIME_CALL
from tests.subtensor.scale import BadScale, Cursor, blob
from tests.subtensor.state import State

SIGNED = 0x80
PAYLOAD_MAX = 256
"""A longer payload is hashed before it is signed."""

Call = tuple[str, str, dict[str, Any]]
"""Pallet, function and arguments."""


class Refused(Exception):
    """A JSON-RPC error: a node's code, message and data."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, Any]:
        body = {"code": self.code, "message": self.message}
        return body if self.data is None else body | {"data": self.data}


def invalid(why: str) -> Refused:
    return Refused(1010, "Invalid Transaction", why)


BAD_PROOF, STALE = "Transaction has a bad signature", "Transaction is outdated"


def blake2_256(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


@dataclass(frozen=True)
class Era:
    """Blocks that an extrinsic may be included in; `period` is 0 for one that never dies."""

    period: int = 0
    phase: int = 0

    @classmethod
    def of(cls, value: tuple[str, Any]) -> "Era":
        """Raises BadScale."""
        name, fields = value
        if name == "Immortal":
            return cls()
        encoded = int(name.removeprefix("Mortal")) | fields[0] << 8
        period = 2 << encoded % 16
        phase = (encoded >> 4) * max(period >> 12, 1)
        if period < 4 or phase >= period:
            raise BadScale("this is no era")
        return cls(period, phase)

    def birth(self, current: int) -> int:
        if not self.period:
            return 0
        return (max(current, self.phase) - self.phase) // self.period * self.period + self.phase


@dataclass(frozen=True)
class Extrinsic:
    """`raw` has the length in front, and is what the hash is made of. An unsigned one has no `signer`."""

    raw: bytes
    call: Call
    signer: bytes | None = None
    signature: bytes = b""
    era: Era = Era()
    nonce: int = 0
    tip: int = 0
    extra: bytes = b""
    """Era, nonce, tip and mode as they stand in it."""
    call_bytes: bytes = b""

    @property
    def hash(self) -> bytes:
        return blake2_256(self.raw)


def _call(cursor: Cursor) -> Call:
    pallet, fields = RUNTIME_CALL.decode(cursor)
    function, arguments = fields[0]
    return pallet, function, arguments


def parse(raw: bytes) -> Extrinsic:
    """A signed extrinsic with an sr25519 signature. Raises BadScale."""
    cursor = Cursor(raw)
    if cursor.compact() != len(raw) - cursor.at:
        raise BadScale("the length in front is another")
    if cursor.take(1)[0] != SIGNED | EXTRINSIC_VERSION:
        raise BadScale("this is no signed extrinsic of version 4")
    address, account = shapes.MULTI_ADDRESS.decode(cursor)
    scheme, signature = shapes.MULTI_SIGNATURE.decode(cursor)
    if (address, scheme) != ("Id", "Sr25519"):
        raise BadScale("only accounts by id that sign with sr25519 are known here")
    start = cursor.at
    era = Era.of(shapes.ERA.decode(cursor))
    nonce: int = shapes.CHECK_NONCE.decode(cursor)
    tip: int = shapes.CHARGE.decode(cursor)
    shapes.CHECK_METADATA.decode(cursor)
    end = cursor.at
    call = _call(cursor)
    if cursor.at != len(raw):
        raise BadScale("there are bytes too many")
    return Extrinsic(raw, call, account[0], signature[0], era, nonce, tip, raw[start:end], raw[end:])


def inherent(now: int) -> Extrinsic:
    """`Timestamp.set`, which opens every block. `now` is in milliseconds."""
    call_bytes = RUNTIME_CALL.encode(("Timestamp", [("set", {"now": now})]))
    raw = blob(bytes([EXTRINSIC_VERSION]) + call_bytes)
    return Extrinsic(raw, ("Timestamp", "set", {"now": now}), call_bytes=call_bytes)


def check(one: Extrinsic, head: State, hash_of: Callable[[int], bytes | None]) -> None:
    """Whether the block after `head` may include it, nonces aside. Raises Refused, as a node would."""
    current = head.number + 1
    birth = hash_of(one.era.birth(current))
    if birth is None:
        raise invalid("Transaction birth block ancient")
    genesis = hash_of(0)
    assert genesis is not None
    assert one.signer is not None
    versions = b"".join(number.to_bytes(4, "little") for number in (head.spec_version, TRANSACTION_VERSION))
    payload = one.call_bytes + one.extra + versions + genesis + birth + shapes.METADATA_HASH.encode(None)
    if len(payload) > PAYLOAD_MAX:
        payload = blake2_256(payload)
    if not ss58.keypair(one.signer).verify(payload, one.signature):
        raise invalid(BAD_PROOF)
