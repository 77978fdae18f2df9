"""SCALE types that encode and decode values and describe themselves to a metadata registry.

One definition serves both ends: what the metadata tells a client and what the double puts on the wire cannot differ.
The encoding is that of parity-scale-codec, the description that of scale-info's portable registry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMPACT_BYTES_MAX = 16
"""Bytes of the largest compact number: a u128."""


class BadScale(Exception):
    """The bytes are not what the type says."""


class Cursor:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise BadScale("the bytes end too early")
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        first = self.take(1)[0]
        if (mode := first & 3) == 3:
            count = (first >> 2) + 4
            if count > COMPACT_BYTES_MAX:
                raise BadScale("a compact number is too long")
            return self.number(count)
        size = (1, 2, 4)[mode]
        return int.from_bytes(bytes([first]) + self.take(size - 1), "little") >> 2


def compact(value: int) -> bytes:
    """Compact encoding of an unsigned number."""
    if value < 0:
        raise BadScale("a compact number is not negative")
    for mode, size in ((0, 1), (1, 2), (2, 4)):
        if value < 1 << (8 * size - 2):
            return (value << 2 | mode).to_bytes(size, "little")
    size = max(4, (value.bit_length() + 7) // 8)
    return bytes([(size - 4) << 2 | 3]) + value.to_bytes(size, "little")


def text(value: str) -> bytes:
    return blob(value.encode())


def blob(value: bytes) -> bytes:
    return compact(len(value)) + value


def listed(parts: Sequence[bytes]) -> bytes:
    return compact(len(parts)) + b"".join(parts)


def optional(part: bytes | None) -> bytes:
    return b"\0" if part is None else b"\1" + part


class Registry:
    """Ids of the types of one metadata, given in the order in which they are first met."""

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}
        self._kept: list[Type] = []
        self._entries: list[bytes] = []

    def add(self, kind: "Type") -> int:
        if id(kind) in self._ids:
            return self._ids[id(kind)]
        number = self._ids[id(kind)] = len(self._kept)
        self._kept.append(kind)
        self._entries.append(b"")
        self._entries[number] = compact(number) + self._describe(kind)
        return number

    def _describe(self, kind: "Type") -> bytes:
        path: Sequence[str] = getattr(kind, "path", ())
        params: Sequence[tuple[str, Type | None]] = getattr(kind, "params", ())
        known = [text(name) + optional(None if one is None else compact(self.add(one))) for name, one in params]
        return listed([text(part) for part in path]) + listed(known) + kind.definition(self) + listed([])

    def scale(self) -> bytes:
        return listed(self._entries)


class Type:
    """Types with a name of their own have its `path` in Rust, and its generic `params`."""

    def definition(self, registry: Registry) -> bytes:
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        raise NotImplementedError

    def decode(self, data: Cursor) -> Any:
        raise NotImplementedError

    def read(self, data: bytes) -> Any:
        """The value of all the bytes. Raises BadScale also when some are left."""
        cursor = Cursor(data)
        value = self.decode(cursor)
        if cursor.at != len(data):
            raise BadScale("there are bytes too many")
        return value


@dataclass(eq=False)
class Number(Type):
    """An integer of `size` bytes."""

    index: int
    size: int
    signed: bool = False

    @property
    def name(self) -> str:
        return f"{'i' if self.signed else 'u'}{8 * self.size}"

    def definition(self, registry: Registry) -> bytes:
        return bytes([5, self.index])

    def encode(self, value: Any) -> bytes:
        return int(value).to_bytes(self.size, "little", signed=self.signed)

    def decode(self, data: Cursor) -> int:
        return int.from_bytes(data.take(self.size), "little", signed=self.signed)


class Boolean(Type):
    name = "bool"

    def definition(self, registry: Registry) -> bytes:
        return bytes([5, 0])

    def encode(self, value: Any) -> bytes:
        return bytes([bool(value)])

    def decode(self, data: Cursor) -> bool:
        if (byte := data.take(1)[0]) > 1:
            raise BadScale("a truth is 0 or 1")
        return byte == 1


class Text(Type):
    name = "str"

    def definition(self, registry: Registry) -> bytes:
        return bytes([5, 2])

    def encode(self, value: Any) -> bytes:
        return text(value)

    def decode(self, data: Cursor) -> str:
        return data.take(data.compact()).decode()


BOOL, STR = Boolean(), Text()
U8, U16, U32, U64, U128 = (Number(3 + n, 1 << n) for n in range(5))
I64 = Number(12, 8, signed=True)


@dataclass(eq=False)
class List(Type):
    """Vec<T>; of bytes where the item is U8."""

    item: Type

    def definition(self, registry: Registry) -> bytes:
        return b"\2" + compact(registry.add(self.item))

    def encode(self, value: Any) -> bytes:
        return blob(bytes(value)) if self.item is U8 else listed([self.item.encode(one) for one in value])

    def decode(self, data: Cursor) -> Any:
        count = data.compact()
        return data.take(count) if self.item is U8 else [self.item.decode(data) for _ in range(count)]


@dataclass(eq=False)
class Array(Type):
    """[T; N]; bytes where the item is U8."""

    item: Type
    length: int

    def definition(self, registry: Registry) -> bytes:
        return b"\3" + self.length.to_bytes(4, "little") + compact(registry.add(self.item))

    def encode(self, value: Any) -> bytes:
        if len(value) != self.length:
            raise BadScale(f"an array of {self.length} has {len(value)} items")
        return bytes(value) if self.item is U8 else b"".join(self.item.encode(one) for one in value)

    def decode(self, data: Cursor) -> Any:
        if self.item is U8:
            return data.take(self.length)
        return [self.item.decode(data) for _ in range(self.length)]


@dataclass(eq=False)
class Tuple(Type):
    items: Sequence[Type] = ()

    def definition(self, registry: Registry) -> bytes:
        return b"\4" + listed([compact(registry.add(item)) for item in self.items])

    def encode(self, value: Any) -> bytes:
        return b"".join(item.encode(one) for item, one in zip(self.items, value, strict=True))

    def decode(self, data: Cursor) -> tuple[Any, ...]:
        return tuple(item.decode(data) for item in self.items)


@dataclass(eq=False)
class Compact(Type):
    """An unsigned number, or a struct of one, in compact form."""

    item: Type

    def definition(self, registry: Registry) -> bytes:
        return b"\6" + compact(registry.add(self.item))

    def encode(self, value: Any) -> bytes:
        return compact(int(value))

    def decode(self, data: Cursor) -> int:
        return data.compact()


@dataclass(eq=False)
class Struct(Type):
    """Fields by name. A value is a mapping."""

    path: Sequence[str]
    fields: Mapping[str, Type]
    params: Sequence[tuple[str, Type | None]] = ()

    def definition(self, registry: Registry) -> bytes:
        return b"\0" + _fields(registry, self.fields.items())

    def encode(self, value: Any) -> bytes:
        if value.keys() != self.fields.keys():
            raise BadScale(f"{self.path[-1]} has other fields: {value.keys() ^ self.fields.keys()}")
        return b"".join(kind.encode(value[name]) for name, kind in self.fields.items())

    def decode(self, data: Cursor) -> dict[str, Any]:
        return {name: kind.decode(data) for name, kind in self.fields.items()}


@dataclass(eq=False)
class Wrapped(Type):
    """A struct of one unnamed field: its value is the field's."""

    path: Sequence[str]
    item: Type
    params: Sequence[tuple[str, Type | None]] = ()

    def definition(self, registry: Registry) -> bytes:
        return b"\0" + _fields(registry, [(None, self.item)])

    def encode(self, value: Any) -> bytes:
        return self.item.encode(value)

    def decode(self, data: Cursor) -> Any:
        return self.item.decode(data)


@dataclass(frozen=True)
class Variant:
    """One case of an enum; `fields` without names have None for one."""

    index: int
    name: str
    fields: Sequence[tuple[str | None, Type]] = ()

    def encode(self, value: Any) -> bytes:
        values = value.values() if isinstance(value, Mapping) else value
        return bytes([self.index]) + b"".join(k.encode(one) for (_, k), one in zip(self.fields, values, strict=True))

    def decode(self, data: Cursor) -> dict[str, Any] | list[Any]:
        if self.fields and self.fields[0][0] is not None:
            return {str(name): kind.decode(data) for name, kind in self.fields}
        return [kind.decode(data) for _, kind in self.fields]


@dataclass(eq=False)
class Enum(Type):
    """A value is `(name, fields)`; fields are a mapping where they have names, else a list."""

    path: Sequence[str]
    variants: Sequence[Variant]
    params: Sequence[tuple[str, Type | None]] = ()
    _by_name: dict[str, Variant] = field(init=False, repr=False)
    _by_index: dict[int, Variant] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_name = {variant.name: variant for variant in self.variants}
        self._by_index = {variant.index: variant for variant in self.variants}

    def definition(self, registry: Registry) -> bytes:
        return b"\1" + listed([_variant(registry, variant) for variant in self.variants])

    def index(self, name: str) -> int:
        return self._by_name[name].index

    def encode(self, value: Any) -> bytes:
        name, fields = value
        return self._by_name[name].encode(fields)

    def decode(self, data: Cursor) -> tuple[str, Any]:
        if (variant := self._by_index.get(index := data.take(1)[0])) is None:
            raise BadScale(f"{self.path[-1]} has no variant {index}")
        return variant.name, variant.decode(data)


class Option(Enum):
    """Option<T>: a value is None or the item's."""

    def __init__(self, item: Type) -> None:
        some = Variant(1, "Some", ((None, item),))
        super().__init__(("Option",), (Variant(0, "None"), some), (("T", item),))
        self.item = item

    def encode(self, value: Any) -> bytes:
        return optional(None if value is None else self.item.encode(value))

    def decode(self, data: Cursor) -> Any:
        _, fields = super().decode(data)
        return fields[0] if fields else None


def _fields(registry: Registry, fields: Iterable[tuple[str | None, Type]]) -> bytes:
    return listed(
        [
            optional(text(name) if name else None)
            + compact(registry.add(kind))
            + optional(text(_name(kind)))
            + listed([])
            for name, kind in fields
        ]
    )


def _name(kind: Type) -> str:
    """As Rust would write it."""
    if isinstance(kind, Compact):
        return f"Compact<{_name(kind.item)}>"
    if isinstance(kind, List):
        return f"Vec<{_name(kind.item)}>"
    if isinstance(kind, Array):
        return f"[{_name(kind.item)}; {kind.length}]"
    if isinstance(kind, Tuple):
        return f"({', '.join(_name(item) for item in kind.items)})"
    path: Sequence[str] = getattr(kind, "path", ())
    return path[-1] if path else getattr(kind, "name", "")


def _variant(registry: Registry, variant: Variant) -> bytes:
    fields = _fields(registry, variant.fields)
    return text(variant.name) + fields + bytes([variant.index]) + listed([])
