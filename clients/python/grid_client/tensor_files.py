"""safetensors files read and written piece by piece, so that no tensor has to be in memory as a whole.

Layout: https://huggingface.co/docs/safetensors, "Format": the length of the header (8 bytes, little-endian), the
header (JSON, padded with spaces), the elements row-major and little-endian. No torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

HEADER_MAX = 100 * 1024 * 1024
"""Bytes, as in the package `safetensors`."""
METADATA = "__metadata__"
ITEM_SIZES = {
    "BOOL": 1,
    "U8": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
    "I8": 1,
    "I16": 2,
    "I32": 4,
    "I64": 8,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
}
"""Bytes of one element, by the format's names of the types that can be shared."""


class NotTensors(ValueError):
    """The bytes are no safetensors file, or one with types that cannot be shared."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One tensor of a file: `begin` is the place of its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.shape)


class Source(Protocol):
    """Bytes that lie somewhere."""

    @property
    def size(self) -> int: ...

    def read(self, begin: int, length: int) -> bytearray:
        """Raises NotTensors when the bytes end before."""


class MemorySource:
    def __init__(self, content: bytes) -> None:
        self._view = memoryview(content)
        self.size = len(content)

    def read(self, begin: int, length: int) -> bytearray:
        return _whole(bytearray(self._view[begin : begin + length]), length)


class DescriptorSource:
    """A file that somebody else opened, and closes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, begin: int, length: int) -> bytearray:
        content = bytearray()
        while len(content) < length and (
            piece := os.pread(self._descriptor, length - len(content), begin + len(content))
        ):
            content += piece
        return _whole(content, length)


class TensorFile:
    """A safetensors file: `layouts` by name in the order of the header, `metadata`, and elements on request.

    Raises NotTensors, also when a tensor lies outside the file. Bytes that belong to no tensor are not looked for.
    """

    def __init__(self, source: Source, header_max: int = HEADER_MAX) -> None:
        self._source = source
        length = int.from_bytes(source.read(0, 8), "little")
        if not 2 <= length <= min(source.size - 8, header_max):
            raise NotTensors("the header is longer than it may be")
        header = _parsed(bytes(source.read(8, length)))
        self.metadata = _texts(header.pop(METADATA, {}))
        self.layouts = {name: _layout(entry, 8 + length, source.size) for name, entry in header.items()}

    def read(self, name: str, first: int, count: int) -> bytearray:
        """`count` elements of a tensor from number `first` on."""
        layout = self.layouts[name]
        size = ITEM_SIZES[layout.dtype]
        return self._source.read(layout.begin + first * size, count * size)


def header(shapes: Mapping[str, Sequence[int]], dtype: str, metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file whose tensors, all of one type, follow without gaps in the order of `shapes`."""
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    begin = 0
    for name, shape in shapes.items():
        if name == METADATA:
            raise NotTensors(f"a tensor cannot be called {METADATA}")
        end = begin + prod(shape) * ITEM_SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded


def _whole(content: bytearray, length: int) -> bytearray:
    if len(content) != length:
        raise NotTensors("the file is cut short")
    return content


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise NotTensors("the header is no JSON") from None
    if not isinstance(parsed, dict):
        raise NotTensors("the header is no object")
    return parsed


def _texts(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise NotTensors("the metadata is no object of strings")
    return metadata


def _layout(entry: Any, start: int, size: int) -> Layout:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(one) is int and 0 <= one < 2**62 for one in (begin, end, *shape))
        if not whole or prod(shape) * ITEM_SIZES[dtype] != end - begin or start + end > size:
            raise NotTensors("a tensor lies outside the file")
    except (KeyError, TypeError, ValueError):
        raise NotTensors("a tensor is not described, or of a type that cannot be shared") from None
    return Layout(dtype, tuple(shape), start + begin)
