"""Arrays of numbers as text: the same tensors as those of parsed lists, and the same text as their elements."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import NonFiniteOutput
from grid_node.hosting.long_arrays import ArrayText, nested_text, of_text
from grid_node.hosting.tensors_json import ELEMENTS, BadTensor, nested, of_lists
from models_store.tensors import Tensor

NUMBERS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.floats(-1024.0, 1024.0, width=32))
ODD = st.one_of(NUMBERS, st.booleans(), st.none(), st.just(10**400))


def read(data: object, datatype: str, text: str | None = None) -> Tensor | None:
    """None for what is refused."""
    try:
        if text is None:
            return of_lists("x", data, datatype)
        return of_text("x", ArrayText(text.encode()), datatype)
    except BadTensor:
        return None


@given(st.recursive(st.lists(ODD, max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=12), st.data())
def test_a_text_is_taken_and_refused_as_its_lists_are(data, more):
    datatype = more.draw(st.sampled_from(["FP32", "FP64", "INT32", "INT64", "BOOL", "UINT8"]))
    text = json.dumps(data, indent=more.draw(st.sampled_from([None, 1])))
    assert read(data, datatype, text) == read(data, datatype)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_every_shape_is_found(shape):
    count = 1
    for length in shape:
        count *= length
    tensor = Tensor("x", "INT32", tuple(shape), struct.pack(f"<{count}i", *range(count)))
    lists = nested(tensor)
    assert read(lists, "INT32", json.dumps(lists)) == read(lists, "INT32")


@pytest.mark.parametrize("text", ["[1,2],[3,4]", "[1,2", "[1]]", "[[1],[2,3]]", "[[1],2]", "[1,,2]", "[1 2]", "[NaN]"])
def test_what_is_no_array_is_refused(text):
    with pytest.raises(BadTensor):
        of_text("x", ArrayText(text.encode()), "FP32")


def test_brackets_without_end_are_refused_at_once():
    with pytest.raises(BadTensor):
        of_text("x", ArrayText(b"[" * 1_000_000 + b"]"), "FP32")


@pytest.mark.parametrize(
    "shape", [(ELEMENTS * 3 + 1,), (3, ELEMENTS + 5), (ELEMENTS, 3), (2, 3, ELEMENTS // 2 + 1), (ELEMENTS * 2, 1, 1)]
)
def test_a_large_output_is_written_in_pieces_and_reads_like_a_small_one(shape):
    count = 1
    for length in shape:
        count *= length
    tensor = Tensor("y", "INT32", shape, struct.pack(f"<{count}i", *range(count)))
    pieces = nested_text(tensor)
    assert json.loads(b"".join(pieces)) == nested(tensor)
    assert max(map(len, pieces)) < 12 * ELEMENTS


def test_an_output_that_is_not_finite_is_refused_wherever_it_is():
    data = struct.pack("<f", 1.0) * (2 * ELEMENTS) + struct.pack("<f", float("nan"))
    with pytest.raises(NonFiniteOutput):
        nested_text(Tensor("y", "FP32", (2 * ELEMENTS + 1,), data))
