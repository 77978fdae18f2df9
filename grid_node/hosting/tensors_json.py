"""Tensors between bytes and JSON, at the speed of C and without numpy.

Elements are packed and unpacked by `struct`, JSON text is cut into pieces and parsed piece by piece: a large tensor
never stands in memory as a list of Python numbers, and others run between two pieces.
"""

import math
import re
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import orjson

from grid_node.errors import NonFiniteOutput
from models_store.tensors import DATATYPES, RANK_MAX, Tensor, byte_size

ELEMENTS = 32 * 1024
"""Elements packed or unpacked at a time."""
TEXT = 256 * 1024
"""Characters of JSON parsed at a time."""

_CODES = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "BF16": "f",
    "FP32": "f",
    "FP64": "d",
    "BOOL": "?",
}
"""Element codes of `struct`; BF16 is the upper half of a float."""
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_SPACED = bytes.maketrans(b"[]", b"  ")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))
_BOOLS = re.compile(rb"[truefals,\[\] \t\r\n]*")


class BadTensor(ValueError):
    """The data is not the tensor that it should be; the text says why and holds nothing of the data."""


# --- bytes <- JSON text ------------------------------------------------------------------------------------------


def parsed(text: bytes, datatype: str, shape: tuple[int, ...]) -> bytes | memoryview:
    """The elements of a JSON array, nested as `shape` says or flat, row-major. Raises BadTensor."""
    _check_structure(text, shape)
    if 0 in shape:
        if text.strip(b"[], \t\r\n"):
            raise BadTensor("has elements, and its shape says none")
        return b""
    data = packed(_elements_of(text, datatype), datatype) if len(text) <= TEXT else _packed_pieces(text, datatype)
    if len(data) != byte_size(datatype, shape):
        raise BadTensor("must have an element before and behind each comma")
    return data


def _packed_pieces(text: bytes, datatype: str) -> memoryview:
    data = bytearray()
    for piece in _pieces(text):
        data += packed(_elements_of(piece, datatype), datatype)
        time.sleep(0)
    return memoryview(data)


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text cut at commas."""
    start = 0
    while start < len(text):
        end = text.find(b",", start + TEXT)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _elements_of(text: bytes, datatype: str) -> list[Any]:
    """The elements between any brackets; where these are was checked."""
    if datatype == "BOOL":
        if not _BOOLS.fullmatch(text):
            raise BadTensor("must hold true and false")
    elif b"r" in text or b"l" in text:  # true, false and null
        raise BadTensor("must hold numbers")
    try:
        values: list[Any] = orjson.loads(b"[" + text.translate(_SPACED) + b"]")
    except orjson.JSONDecodeError:
        raise BadTensor("is not a JSON array of numbers") from None
    return values


def _check_structure(text: bytes, shape: Sequence[int]) -> None:
    """Brackets and commas are those of a flat array, or of an array nested as `shape` says."""
    marks = structure(text)
    count = math.prod(shape)
    if len(marks) == 2 + max(0, count - 1) and marks == _row(count):
        return
    if len(marks) != _nested_length(shape) or marks != _nested_structure(shape):
        raise BadTensor(f"must have {count} elements, flat or nested as its shape {list(shape)} says")


def structure(text: bytes) -> bytes:
    """The brackets and commas of a JSON text without strings."""
    if len(text) <= TEXT:
        return text.translate(None, _NOT_STRUCTURE)
    found = bytearray()
    for start in range(0, len(text), 4 * TEXT):
        found += text[start : start + 4 * TEXT].translate(None, _NOT_STRUCTURE)
        time.sleep(0)
    return bytes(found)


def _row(count: int) -> bytes:
    return b"[" + b"," * (count - 1) + b"]"


def _levels(shape: Sequence[int]) -> list[int]:
    """Lengths of the nested lists from the inside; nothing is nested below a length of 0."""
    end = shape.index(0) + 1 if 0 in shape else len(shape)
    return list(reversed(shape[:end]))


def _nested_length(shape: Sequence[int]) -> int:
    length = 0
    for count in _levels(shape):
        length = 2 + count * length + max(0, count - 1)
    return length


def _nested_structure(shape: Sequence[int]) -> bytes:
    text = b""
    for count in _levels(shape):
        text = b"[" + ((text + b",") * count)[:-1] + b"]"
    return text


# --- bytes <- lists ----------------------------------------------------------------------------------------------


def of_lists(name: str, data: Any, datatype: str) -> Tensor:
    """A nested list as a tensor; a bare number has the shape []. Raises BadTensor."""
    if datatype not in _CODES:
        raise BadTensor(f"cannot be {datatype}")
    shape, flat = _flattened(data)
    allowed = {bool} if datatype == "BOOL" else {int, float} if datatype in _FLOATS else {int}
    content = bytearray()
    for start in range(0, len(flat), ELEMENTS):
        piece = flat[start : start + ELEMENTS]
        if not allowed.issuperset(map(type, piece)):
            raise BadTensor(f"must hold nothing but elements of {datatype}, nested in lists of equal length")
        content += packed(piece, datatype)
        time.sleep(0)
    return Tensor(name, datatype, shape, bytes(content))


def _flattened(data: Any) -> tuple[tuple[int, ...], list[Any]]:
    shape: list[int] = []
    level = [data]
    while level and isinstance(level[0], list):
        lengths = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(lengths) != 1 or len(shape) == RANK_MAX:
            raise BadTensor("must be lists of equal length")
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def packed(values: Sequence[Any], datatype: str) -> bytes:
    """Elements as little-endian bytes. Raises BadTensor for what the datatype cannot hold."""
    try:
        data = struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)
    except (struct.error, OverflowError, TypeError):
        raise BadTensor(f"has an element that {datatype} cannot hold") from None
    return _upper_halves(data) if datatype == "BF16" else data


def _upper_halves(floats: bytes) -> bytes:
    """Floats as BF16, rounded to the nearest, ties to even."""
    words = memoryview(floats).cast("I")
    return struct.pack(f"<{len(words)}H", *[min((word + 0x7FFF + (word >> 16 & 1)) >> 16, 0xFFFF) for word in words])


# --- JSON <- bytes -----------------------------------------------------------------------------------------------


def rendered(tensor: Tensor) -> list[bytes]:
    """The elements as a flat JSON array, in pieces. Raises NonFiniteOutput."""
    if len(tensor.data) <= ELEMENTS:
        return [orjson.dumps(_elements(tensor.data, tensor.datatype))]
    pieces = []
    for elements in _unpacked(tensor):
        pieces += [b",", orjson.dumps(elements)[1:-1]]
    return [b"[", *pieces[1:], b"]"]


def nested(tensor: Tensor) -> Any:
    """The elements as nested lists; a scalar is a bare number. Raises NonFiniteOutput."""
    level: list[Any] = list(chain.from_iterable(_unpacked(tensor)))
    if 0 in tensor.shape:
        return _empty(tensor.shape)
    for length in reversed(tensor.shape):
        level = [level[start : start + length] for start in range(0, len(level), length)]
    return level[0]


def _empty(shape: Sequence[int]) -> list[Any]:
    """Lists down to the first length of 0."""
    length, *rest = shape
    return [_empty(rest) for _ in range(length)]


def _unpacked(tensor: Tensor) -> Iterator[tuple[Any, ...]]:
    step = ELEMENTS * DATATYPES[tensor.datatype]
    for start in range(0, len(tensor.data), step):
        yield _elements(tensor.data[start : start + step], tensor.datatype)
        time.sleep(0)


def _elements(data: bytes | memoryview, datatype: str) -> tuple[Any, ...]:
    if datatype == "BF16":
        data = _as_floats(data)
    code = _CODES[datatype]
    values = struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data)
    if datatype in _FLOATS and not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
        raise NonFiniteOutput()
    return values


def _as_floats(halves: bytes | memoryview) -> bytes:
    floats = bytearray(2 * len(halves))
    floats[2::4] = halves[0::2]
    floats[3::4] = halves[1::2]
    return bytes(floats)
