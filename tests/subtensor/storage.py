"""Storage entries: how keys are hashed, and how an entry finds its values in a state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import xxhash

from tests.subtensor.scale import Cursor, Tuple, Type
from tests.subtensor.state import State

Table = Mapping[tuple[Any, ...], Any]
PREFIX_BYTES = 32


def twox_128(data: bytes) -> bytes:
    return b"".join(xxhash.xxh64_intdigest(data, seed).to_bytes(8, "little") for seed in (0, 1))


def _twox_64(data: bytes) -> bytes:
    return xxhash.xxh64_intdigest(data, 0).to_bytes(8, "little")


def _blake2_128(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


@dataclass(frozen=True)
class Hasher:
    """`index` is that of the metadata; the hash of a part stands in front of the part itself."""

    index: int
    hash: Callable[[bytes], bytes]
    size: int


BLAKE2_128_CONCAT = Hasher(2, _blake2_128, 16)
TWOX_64_CONCAT = Hasher(5, _twox_64, 8)
IDENTITY = Hasher(6, lambda _: b"", 0)


@dataclass(frozen=True)
class Entry:
    """`table` gives all values of a state by the parts of their keys; a plain entry has the key ().

    `default` is what the chain says where there is no value; None: it says that there is none.
    """

    name: str
    value: Type
    table: Callable[[State], Table]
    keys: Sequence[tuple[Hasher, Type]] = ()
    default: Any = None

    @property
    def key_type(self) -> Type:
        return self.keys[0][1] if len(self.keys) == 1 else Tuple([kind for _, kind in self.keys])

    def prefix(self, pallet: str) -> bytes:
        return twox_128(pallet.encode()) + twox_128(self.name.encode())

    def suffix(self, parts: Sequence[Any]) -> bytes:
        encoded = [(hasher, kind.encode(part)) for (hasher, kind), part in zip(self.keys, parts, strict=True)]
        return b"".join(hasher.hash(part) + part for hasher, part in encoded)

    def parts(self, suffix: bytes) -> tuple[Any, ...]:
        """Raises BadScale."""
        cursor, parts = Cursor(suffix), []
        for hasher, kind in self.keys:
            cursor.take(hasher.size)
            parts.append(kind.decode(cursor))
        return tuple(parts)


class Storage:
    """Every entry of the pallets, by keys as they go over the wire."""

    def __init__(self, pallets: Mapping[str, Sequence[Entry]]) -> None:
        self._entries = {entry.prefix(name): entry for name, entries in pallets.items() for entry in entries}

    def get(self, state: State, key: bytes) -> bytes | None:
        """Raises BadScale."""
        if (entry := self._entries.get(key[:PREFIX_BYTES])) is None:
            return None
        value = entry.table(state).get(entry.parts(key[PREFIX_BYTES:]))
        return None if value is None else entry.value.encode(value)

    def keys(self, state: State, prefix: bytes) -> Iterator[bytes]:
        """Sorted, those that begin with `prefix`."""
        if (entry := self._entries.get(head := prefix[:PREFIX_BYTES])) is None:
            return iter(())
        keys = (head + entry.suffix(parts) for parts in entry.table(state))
        return iter(sorted(key for key in keys if key.startswith(prefix)))
