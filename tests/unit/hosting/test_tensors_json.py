"""Tensors between bytes and JSON."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import NonFiniteOutput
from grid_node.hosting.tensors_json import ELEMENTS, TEXT, BadTensor, nested, of_lists, packed, parsed
from grid_node.hosting.tensors_json import rendered as pieces
from models_store.tensors import Tensor

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
WHOLE = {"UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64}


def lists(values, shape):
    """`values` nested as `shape` says."""
    if not shape:
        return next(values)
    return [lists(values, shape[1:]) for _ in range(shape[0])]


def numbers(shape):
    return lists(iter(range(10**6)), shape)


def rendered(tensor):
    return b"".join(pieces(tensor))


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


@given(SHAPES.filter(lambda shape: len(shape) > 0))
def test_nested_and_flat_text_give_the_same_bytes(shape):
    flat = json.dumps(list(range(math.prod(shape)))).encode()
    data = struct.pack(f"<{math.prod(shape)}i", *range(math.prod(shape)))
    assert parsed(flat, "INT32", shape) == data
    assert parsed(json.dumps(numbers(shape)).encode(), "INT32", shape) == data
    assert parsed(json.dumps(numbers(shape), indent=1).encode(), "INT32", shape) == data


@given(SHAPES)
def test_lists_become_a_tensor_and_come_back(shape):
    tensor = of_lists("x", numbers(shape), "INT64")
    assert tensor.shape == (shape[: shape.index(0) + 1] if 0 in shape else shape)
    assert nested(Tensor("x", "INT64", shape, tensor.data)) == numbers(shape)


@pytest.mark.parametrize(
    "text",
    [
        b"[1,2,3]", b"[1,2,3,4,5]", b"[[1,2],[3]]", b"[[1,2,3,4]]", b"[[[1,2],[3,4]]]", b"[1,2,3,]", b"[,1,2,3]",
        b"[1,,2,3]", b"[1,2]3,[4]", b"[[1,2]3,[4,5]]", b"[[1,2],3[4,5]]", b"[3[1,2],[4,5]]", b"[[1,2],[4,5]]]",
        b"[[1,2],[4,5]", b"[1,2,3,4]]", b"[1,]2,3,4]", b"[1,2,3,4}", b"[1 2,3,4,5]", b"[[,],[,]]", b"[,,,]", b"[]",
        b"[[],[]]", b"[1,2,3,null]", b"[1,2,3,true]", b"[1,2,3,NaN]", b"[1,2,3,1e400]", b"[1,2,3,-Infinity]",
        b"[1,2,3,01]", b"[1,2,3,1.]", b'[1,2,3,"4"]', b"[1,2,3,0x4]", b"[1,2,3,\xff]",
    ],
)  # fmt: skip
def test_what_is_no_array_of_this_shape_is_refused(text):
    with pytest.raises(BadTensor):
        parsed(text, "FP32", (2, 2))


def test_one_element_is_one_element():
    assert parsed(b"[7]", "FP32", (1,)) == parsed(b"[7]", "FP32", ()) == floats(7)
    for text in (b"[]", b"[ ]", b"[1,2]", b"[[]]"):
        with pytest.raises(BadTensor):
            parsed(text, "FP32", (1,))


@pytest.mark.parametrize("text", [b"[5[],[]]", b"[[5],[]]", b"[[],[]5]", b"[[],[],[]]", b"[5]", b"[x]", b"[ 5 ]"])
def test_a_shape_without_elements_takes_none(text):
    assert parsed(b"[[],[]]", "FP32", (2, 0)) == parsed(b"[ ]", "FP32", (2, 0)) == b""
    with pytest.raises(BadTensor):
        parsed(text, "FP32", (2, 0))


def test_a_shape_that_promises_much_costs_nothing():
    for shape in ((2**31 - 1,) * 16, (2**31 - 1, 0), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(BadTensor):
            parsed(b"[[1]]", "FP64", shape)


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("UINT8", b"[256]"), ("UINT8", b"[-1]"), ("INT8", b"[128]"), ("UINT16", b"[65536]"), ("INT16", b"[-32769]"),
        ("INT32", b"[2147483648]"), ("UINT32", b"[-1]"), ("INT64", b"[9223372036854775808]"), ("INT64", b"[1.0]"),
        ("UINT64", b"[18446744073709551616]"), ("FP16", b"[65536]"), ("FP32", b"[1e39]"), ("BOOL", b"[1]"),
        ("BOOL", b"[null]"), ("BOOL", b"[ture]"), ("INT8", b"[true]"), ("FP32", b"[false]"),
    ],
)  # fmt: skip
def test_an_element_that_the_datatype_cannot_hold_is_refused(datatype, text):
    with pytest.raises(BadTensor):
        parsed(text, datatype, (1,))


def test_booleans_are_bytes_of_0_and_1():
    assert parsed(b"[[true,false],[false,true]]", "BOOL", (2, 2)) == b"\x01\x00\x00\x01"
    assert rendered(Tensor("x", "BOOL", (2,), b"\x01\x00")) == b"[true,false]"
    assert of_lists("x", [True, False], "BOOL").data == b"\x01\x00"


@pytest.mark.parametrize(("datatype", "bits"), WHOLE.items())
def test_whole_numbers_keep_every_bit(datatype, bits):
    top = 2**bits - 1
    data = parsed(f"[0,{top}]".encode(), datatype, (2,))
    assert data == (0).to_bytes(bits // 8, "little") + top.to_bytes(bits // 8, "little")
    assert rendered(Tensor("x", datatype, (2,), data)) == f"[0,{top}]".encode()


def test_half_floats_come_and_go_exactly():
    assert parsed(b"[0.5,-2,65504]", "FP16", (3,)) == struct.pack("<3e", 0.5, -2, 65504)
    assert json.loads(rendered(Tensor("x", "FP16", (2,), struct.pack("<2e", 0.1, 6e-8)))) == list(
        struct.unpack("<2e", struct.pack("<2e", 0.1, 6e-8))
    )


def test_bf16_is_the_rounded_upper_half_of_a_float():
    one, tie_down, tie_up = 0x3F800000, 0x3F808000, 0x3F818000
    values = [struct.unpack("<f", word.to_bytes(4, "little"))[0] for word in (one, tie_down, tie_up, one + 0x8001)]
    assert struct.unpack("<4H", packed(values, "BF16")) == (0x3F80, 0x3F80, 0x3F82, 0x3F81)
    assert nested(Tensor("x", "BF16", (2,), struct.pack("<2H", 0x3F81, 0xC000))) == [1.0078125, -2.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, ELEMENTS])
def test_nan_and_infinity_have_no_word_in_json(bad, place):
    values = [0.5] * (ELEMENTS + 1)
    values[place] = bad
    tensor = Tensor("x", "FP32", (len(values),), floats(*values))
    for render in (rendered, nested):
        with pytest.raises(NonFiniteOutput):
            render(tensor)


def test_large_but_finite_numbers_are_no_infinity():
    tensor = Tensor("x", "FP64", (2,), struct.pack("<2d", 1.7e308, 1.7e308))
    assert json.loads(rendered(tensor)) == [1.7e308, 1.7e308]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_survive_the_way_through_json(values):
    data = parsed(json.dumps(values).encode(), "FP32", (len(values),))
    assert data == floats(*values)
    assert json.loads(rendered(Tensor("x", "FP32", (len(values),), data))) == values


def test_a_large_array_is_read_and_written_in_pieces():
    count = TEXT
    data = struct.pack(f"<{count}i", *range(count))
    text = json.dumps(numbers((count // 4, 4))).encode()
    assert len(text) > 4 * TEXT
    assert parsed(text, "INT32", (count // 4, 4)) == data
    assert json.loads(rendered(Tensor("x", "INT32", (count,), memoryview(data)))) == list(range(count))
    assert of_lists("x", numbers((count // 4, 4)), "INT32").data == data


@pytest.mark.parametrize("broken", [b",]", b",,", b" "])
def test_a_large_array_is_checked_to_its_end(broken):
    text = b"[" + b"1," * TEXT + b"1" + broken
    with pytest.raises(BadTensor):
        parsed(text, "INT32", (TEXT + 1,))
    with pytest.raises(BadTensor):
        parsed(b"[" + b"1," * TEXT + b"]", "INT32", (TEXT + 1,))


@pytest.mark.parametrize(
    "data",
    [[1, [2]], [[1], 2], [[1], [2, 3]], [[1], "a"], ["a"], [None], [True], [{}], {}, "a", None, [[], [1]], [1.5, "2"]],
)
def test_lists_that_are_no_tensor_are_refused(data):
    with pytest.raises(BadTensor):
        of_lists("x", data, "FP32")


def test_a_nest_deeper_than_any_tensor_is_refused():
    data = 1
    for _ in range(17):
        data = [data]
    with pytest.raises(BadTensor):
        of_lists("x", data, "FP32")
