"""Arrays as wire formats have them, and the inference messages made of them."""

import io
import json

import numpy as np
import pytest
import torch
from grid_client.arrays import INFERENCE, array_of, content, like, type_name
from grid_client.errors import GridError
from grid_client.inference import LENGTH, outputs_of, request_of
from grid_client.model_bytes import write_state_dict

NUMPY = [name for name in INFERENCE if name != "bfloat16"]


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_an_array_survives_the_wire(name: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
    back = array_of(INFERENCE[name], list(shape), bytes(content(array)))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_byte_order_and_layout_of_an_array_do_not_matter() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert bytes(content(array)) == np.array([0, 3, 1, 4, 2, 5], dtype="<i4").tobytes()
    assert type_name(array) == "int32"


def test_bfloat16_goes_out_as_it_is_and_comes_back_as_float32() -> None:
    tensor = torch.tensor([1.5, -2.0, 3.0e38], dtype=torch.bfloat16)
    back = array_of("BF16", [3], bytes(content(tensor)))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, tensor.float().numpy())


def test_a_tensor_that_learns_or_is_turned_is_written_row_by_row() -> None:
    tensor = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)).T
    assert bytes(content(tensor)) == np.array([0, 3, 1, 4, 2, 5], dtype="<f4").tobytes()
    assert isinstance(like(np.zeros(2, np.float32), tensor), torch.Tensor)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.array([object()])])
def test_what_no_model_takes_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        request_of({"x": array})


def test_a_request_says_how_many_bytes_each_input_has() -> None:
    body, headers = request_of({"a": np.ones((1, 2), np.float32), "b": np.zeros(3, np.int64)}, timeout=1.5)
    length = int(headers[LENGTH])
    head = json.loads(body[:length])
    assert head["parameters"] == {"binary_data_output": True, "timeout": 1_500_000}
    assert [(one["name"], one["datatype"], one["parameters"]["binary_data_size"]) for one in head["inputs"]] == [
        ("a", "FP32", 8),
        ("b", "INT64", 24),
    ]
    assert len(body) == length + 32


def test_an_answer_may_mix_binary_and_lists() -> None:
    head = {
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}},
            {"name": "z", "datatype": "INT64", "shape": [1, 2], "data": [3, 4]},
        ]
    }
    text = json.dumps(head).encode()
    found = outputs_of(text + np.array([0.5, 1.5], "<f4").tobytes(), str(len(text)))
    assert list(found) == ["y", "z"]
    np.testing.assert_array_equal(found["y"], [0.5, 1.5])
    np.testing.assert_array_equal(found["z"], [[3, 4]])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"outputs": [{"name": "y"}]}',
        b'{"outputs": [{"name": "y", "datatype": "??", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_of_the_node(body: bytes) -> None:
    with pytest.raises(GridError, match="bad_answer"):
        outputs_of(body, None)


def test_a_tensor_without_a_name_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        write_state_dict({"__metadata__": np.zeros(1)}, io.BytesIO())
