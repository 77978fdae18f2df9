import io
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_store import safetensors_file
from models_store.errors import InvalidModel
from models_store.safetensors_file import DTYPE_BITS, Entry, Header
from tests.crafted import framed

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def read(content: bytes, header_max: int = 1 << 20, tensors_max: int = 1000) -> Header:
    return safetensors_file.read(io.BytesIO(content), len(content), header_max, tensors_max)


def of(header: Any, data: bytes = b"") -> bytes:
    return framed(header if isinstance(header, bytes) else json.dumps(header).encode(), data)


def test_a_file_gives_its_tensors_and_metadata() -> None:
    header = {"__metadata__": {"by": "me"}, "b": TENSOR, "a": {"dtype": "BOOL", "shape": [], "data_offsets": [8, 9]}}
    found = read(of(header, bytes(9)))
    assert found.tensors == {"b": Entry("F32", (2,), 0, 8), "a": Entry("BOOL", (), 8, 9)}
    assert found.metadata == {"by": "me"}
    assert found.data_start == len(of(header))


def test_tensors_may_stand_in_any_order_be_empty_and_the_header_end_in_spaces() -> None:
    header = {
        "second": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
        "first": TENSOR,
        "nothing": {"dtype": "I64", "shape": [4, 0], "data_offsets": [8, 8]},
    }
    assert len(read(of(json.dumps(header).encode() + b"   ", bytes(11))).tensors) == 3


def test_a_file_without_tensors_is_one() -> None:
    assert read(of({})).tensors == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too short"),
        (b"1234567", "too short"),
        ((3).to_bytes(8, "little") + b"{}", "longer than the file"),
        ((2**64 - 1).to_bytes(8, "little"), "longer than the file"),
        (of(b" {}"), "not a JSON object"),
        (of(b"{}\n"), "not a JSON object"),
        (of(b"[]"), "not a JSON object"),
        (of(b'{"a":}'), "not a JSON object"),
        (of(b"{}{}"), "not a JSON object"),
        (of(b'{"a":' + b"[" * 50_000 + b"}"), "not a JSON object"),
        (of(b'{"a":' + b"9" * 5000 + b"}"), "not a JSON object"),
        (of(b'{"\xff":1}'), "not UTF-8"),
        (of(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "not UTF-8"),
        (of(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), "twice"),
        (of(b'{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'), "twice"),
        (of({"__metadata__": {"a": 1}}), "__metadata__"),
        (of({"__metadata__": []}), "__metadata__"),
        (of(b'{"__metadata__":{"a":"\\udfff"}}'), "not UTF-8"),
        (of({"a": []}), "exactly"),
        (of({"a": {**TENSOR, "more": 1}}, bytes(8)), "exactly"),
        (of({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "exactly"),
        (of({"a": {**TENSOR, "dtype": "F31"}}, bytes(8)), "dtype"),
        (of({"a": {**TENSOR, "dtype": ["F32"]}}, bytes(8)), "dtype"),
        (of({"a": {**TENSOR, "shape": [2.0]}}, bytes(8)), "shape"),
        (of({"a": {**TENSOR, "shape": [True]}}, bytes(8)), "shape"),
        (of({"a": {**TENSOR, "shape": [-2]}}, bytes(8)), "shape"),
        (of({"a": {**TENSOR, "shape": "2"}}, bytes(8)), "shape"),
        (of({"a": {**TENSOR, "shape": [1] * 65}}, bytes(8)), "shape"),
        (of({"a": {**TENSOR, "shape": [2**32, 2**32]}}, bytes(8)), "more elements"),
        (of({"a": {**TENSOR, "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}), "more elements"),
        (of({"a": {**TENSOR, "data_offsets": [0]}}, bytes(8)), "offsets"),
        (of({"a": {**TENSOR, "data_offsets": [8, 0]}}, bytes(8)), "do not fit"),
        (of({"a": {**TENSOR, "data_offsets": [0, 9]}}, bytes(9)), "do not fit"),
        (of({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, bytes(1)), "do not fit"),
        (of({"a": TENSOR, "b": {**TENSOR, "data_offsets": [4, 12]}}, bytes(12)), "overlap"),
        (of({"a": TENSOR, "b": TENSOR}, bytes(8)), "overlap"),
        (of({"a": TENSOR, "b": {**TENSOR, "data_offsets": [9, 17]}}, bytes(17)), "no tensor"),
        (of({"a": {**TENSOR, "data_offsets": [1, 9]}}, bytes(9)), "no tensor"),
        (of({"a": TENSOR}, bytes(9)), "no tensor"),
        (of({"a": TENSOR}, bytes(7)), "overlap"),
        (of({"a": {"dtype": "U8", "shape": [0], "data_offsets": [5, 5]}, "b": TENSOR}, bytes(8)), "overlap"),
    ],
)
def test_everything_else_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidModel, match=reason):
        read(content)


def test_a_header_above_the_limit_is_not_read() -> None:
    class Counted(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            self.taken += len(piece)
            return piece

    file = Counted(of(b"{" + b" " * 5000 + b"}"))
    with pytest.raises(InvalidModel, match="longer than 4096 bytes"):
        safetensors_file.read(file, 5010, 4096, 10)
    assert file.taken == 8


def test_too_many_tensors_are_refused() -> None:
    header = {str(number): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for number in range(11)}
    assert len(read(of(header), tensors_max=11).tensors) == 11
    with pytest.raises(InvalidModel, match="more than 10 tensors"):
        read(of(header), tensors_max=10)


def test_a_hundred_thousand_tensors_take_no_long_time() -> None:
    names = [f"layer.{number}.weight" for number in range(100_000)]
    header = {
        name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * place, 16 * place + 16]}
        for place, name in enumerate(names)
    }
    content = json.dumps(header).encode()
    started = time.process_time()
    assert len(safetensors_file.parse(content, 1_600_000, 100_000).tensors) == 100_000
    assert time.process_time() - started < 10


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for candidate in (content, framed(content), framed(b"{" + content + b"}")):
        try:
            found = read(candidate)
        except InvalidModel:
            continue
        assert found.data_start <= len(candidate)


_SHAPES = st.lists(st.integers(0, 5), max_size=4)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _SHAPES, max_size=6))
def test_what_is_written_is_read(shapes: dict[str, list[int]]) -> None:
    shapes.pop("__metadata__", None)
    place, header = 0, {}
    for number, (name, shape) in enumerate(shapes.items()):
        dtype = ("U8", "F64", "BF16")[number % 3]
        size = DTYPE_BITS[dtype] // 8
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    found = read(of(header, os.urandom(place)))
    assert {name: list(entry.shape) for name, entry in found.tensors.items()} == shapes
