"""The header of a safetensors file, read without torch and without a look at the tensors.

https://github.com/huggingface/safetensors, "Format": 8 bytes with the length N of the header (unsigned, little-endian),
N bytes of JSON that begin with `{` and may end in spaces, then the tensors. The published reader accepts names that
come twice and any number of tensors; this one does not.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, BinaryIO, NamedTuple

from models_store.errors import InvalidModel

LENGTH_BYTES = 8
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, of every dtype that safetensors 0.8.0 knows."""
RANK_MAX = 64
"""torch has no tensor of more dimensions."""
_ELEMENTS_MAX = 2**63 - 1
_METADATA = "__metadata__"
_MEMBERS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """One tensor; `begin` and `end` count bytes from the first byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    tensors: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int
    """Offset in the file of the first byte after the header."""


def read(file: BinaryIO, size: int, header_max: int, tensors_max: int) -> Header:
    """The header of a file of `size` bytes. Reads the header alone, and nothing if it is longer than `header_max`."""
    file.seek(0)
    length = header_length(file.read(LENGTH_BYTES), size, header_max)
    return parse(file.read(length), size - LENGTH_BYTES - length, tensors_max)


def header_length(first: bytes, size: int, header_max: int) -> int:
    """What the first 8 bytes say, checked against the file's size. Raises InvalidModel."""
    if len(first) < LENGTH_BYTES:
        raise InvalidModel("the file is too short for a safetensors header")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if length > size - LENGTH_BYTES:
        raise InvalidModel("the header is longer than the file")
    if length > header_max:
        raise InvalidModel(f"the header is longer than {header_max} bytes")
    return length


def parse(header: bytes, data_size: int, tensors_max: int) -> Header:
    """The header, given its bytes and how many bytes follow it. Raises InvalidModel."""
    members = _members(header)
    metadata = _metadata(members.pop(_METADATA, {}))
    if len(members) > tensors_max:
        raise InvalidModel(f"more than {tensors_max} tensors")
    tensors = {name: _entry(body) for name, body in members.items()}
    _check_cover(tensors.values(), data_size)
    return Header(tensors, metadata, LENGTH_BYTES + len(header))


def _members(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{") or not header.rstrip(b" ").endswith(b"}"):
        raise InvalidModel("the header is not a JSON object")
    try:
        members = json.loads(header.decode(), object_pairs_hook=_unique)
        "".join(members).encode()
    except UnicodeError:
        raise InvalidModel("the header is not UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidModel("the header is not a JSON object") from None
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidModel("a name comes twice in the header")
    return members


def _metadata(value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise InvalidModel("__metadata__ is not an object of strings")
    try:
        "".join([*value, *value.values()]).encode()
    except UnicodeError:
        raise InvalidModel("the header is not UTF-8") from None
    return value


def _entry(body: Any) -> Entry:
    if type(body) is not dict or body.keys() != _MEMBERS:
        raise InvalidModel("a tensor does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = body["dtype"], body["shape"], body["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPE_BITS:
        raise InvalidModel("a tensor has an unknown dtype")
    if not _are_sizes(shape) or len(shape) > RANK_MAX:
        raise InvalidModel("a tensor has a shape that is none")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise InvalidModel("a tensor has offsets that are none")
    bits = _elements(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise InvalidModel("a tensor's offsets do not fit its shape and dtype")
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    return type(values) is list and all(type(value) is int and 0 <= value <= _ELEMENTS_MAX for value in values)


def _elements(shape: list[int]) -> int:
    """Their product; a zero does not hide what the others would overflow."""
    if prod(size for size in shape if size) > _ELEMENTS_MAX:
        raise InvalidModel("a tensor has more elements than can be counted")
    return prod(shape)


def _check_cover(entries: Iterable[Entry], data_size: int) -> None:
    spans = sorted((entry.begin, entry.end) for entry in entries)
    edges = [(0, 0), *spans, (data_size, data_size)]
    for (_, end), (begin, _) in pairwise(edges):
        if begin != end:
            raise InvalidModel("the tensors overlap" if begin < end else "bytes of the file belong to no tensor")
