"""Nested arrays of JSON that hold too many numbers to be read or written in one call: a piece at a time."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from grid_node.hosting.tensors_json import ELEMENTS, BadTensor, nested, parsed, structure
from models_store.tensors import DATATYPES, RANK_MAX, Tensor, byte_size

_ELEMENT = re.compile(rb"[^\[\], \t\r\n]")


@dataclass(frozen=True, slots=True)
class ArrayText:
    """The text between the first and the last bracket of a JSON array that is said to hold numbers; not yet checked."""

    text: bytes


def of_text(name: str, array: ArrayText, datatype: str) -> Tensor:
    """The same tensor that `tensors_json.of_lists` makes of the parsed array. Raises BadTensor."""
    shape = _shape(array.text)
    return Tensor(name, datatype, shape, parsed(array.text, datatype, shape))


def _shape(text: bytes) -> tuple[int, ...]:
    """The lengths of the first array of each depth; whether the others are like it is for `parsed` to say."""
    marks = structure(text)
    rank = len(marks) - len(marks.lstrip(b"["))
    if rank > RANK_MAX:
        raise BadTensor("must be lists of equal length")
    lengths: list[int] = []
    inner = 0  # marks of one member
    for depth in range(1, rank + 1):
        end = marks.find(b"]" * depth) + depth
        whole = max(2, end - (rank - depth))
        has_none = depth == 1 and _ELEMENT.search(text) is None
        lengths.append(0 if has_none else (whole - 1) // (inner + 1))
        inner = whole
    return tuple(reversed(lengths))


def nested_text(tensor: Tensor) -> list[bytes]:
    """The elements as JSON arrays nested by the shape, in pieces. Raises NonFiniteOutput."""
    if len(tensor.data) <= ELEMENTS:
        return [orjson.dumps(nested(tensor))]
    return list(_pieces(tensor))


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    """As many rows at a time as are ELEMENTS together; a longer row is cut itself."""
    length, *inner = tensor.shape
    size = byte_size(tensor.datatype, tuple(inner))
    step = max(1, ELEMENTS * DATATYPES[tensor.datatype] // size)
    yield b"["
    for start in range(0, length, step):
        count = min(step, length - start)
        data = tensor.data[start * size : (start + count) * size]
        if start:
            yield b","
        if count * size > ELEMENTS * DATATYPES[tensor.datatype]:
            yield from _pieces(Tensor(tensor.name, tensor.datatype, tuple(inner), data))
        else:
            yield orjson.dumps(nested(Tensor(tensor.name, tensor.datatype, (count, *inner), data)))[1:-1]
            time.sleep(0)
    yield b"]"
