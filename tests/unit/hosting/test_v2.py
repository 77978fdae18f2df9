"""Requests and answers of the Open Inference Protocol v2."""

import json
import struct
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grid_node.errors import InvalidPayload, NonFiniteOutput
from grid_node.hosting import v2
from models_store.tensors import Tensor


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def answer(*args):
    length, pieces = v2.answer(*args)
    return length, b"".join(pieces)


def an_input(**members):
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **members}


def request(*inputs, **members):
    return {"inputs": list(inputs) or [an_input()], **members}


def read(asked, tail=b"", length=True):
    text = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return v2.parse(text + tail, len(text) if tail or length is True else None)


def refusal(asked, tail=b""):
    with pytest.raises(InvalidPayload) as raised:
        read(asked, tail)
    return raised.value.message


def test_a_request_in_json_is_read():
    asked = read({"id": "7", **request(), "outputs": [{"name": "y"}], "parameters": {"timeout": 250_000}})
    assert asked.inputs == [Tensor("x", "FP32", (1, 3), floats(1, 2, 3))]
    assert (asked.id, asked.timeout, asked.binary) == ("7", 0.25, False)
    assert [one.name for one in asked.wanted] == ["y"]


def test_tensors_behind_the_json_are_read_in_input_order():
    sized = {"parameters": {"binary_data_size": 8}, "shape": [2]}
    first, second, third = an_input(**sized), an_input(name="n", shape=[1], data=[4]), an_input(name="z", **sized)
    del first["data"], third["data"]
    asked = read(request(first, second, third), floats(1, 2) + floats(8, 9))
    assert [bytes(one.data) for one in asked.inputs] == [floats(1, 2), floats(4), floats(8, 9)]


def test_numbers_in_members_of_any_order_stay_where_they_belong():
    text = b'{"inputs":[{"data" : [[1,2]] ,"shape":[1,2],"name":"a","datatype":"FP32"},'
    text += b'{"datatype":"FP32","name":"\\"data\\":[9","shape":[2],"data":[3,4]}]}'
    asked = read(text)
    assert [(one.name, bytes(one.data)) for one in asked.inputs] == [("a", floats(1, 2)), ('"data":[9', floats(3, 4))]


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","d\\u0061ta":[0]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","d\\u0061ta":[0]},'
        b'{"name":"z","shape":[1],"datatype":"FP32","data":[5]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[5],"data":[6]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[5]}],"parameters":{"data":[1]}}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[5]],"x":1]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":["5"]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[{}]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":5}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[5',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[5],2}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":"[5]"}]}',
        b"", b"[]", b"null", b"{", b"\xff", b'{"inputs":NaN}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_text_that_could_be_read_in_two_ways_or_in_none_is_refused(text):
    with pytest.raises(InvalidPayload):
        v2.parse(text, None)


def test_every_refusal_of_an_input_names_it():
    for members in (
        {"data": [1, 2]},
        {"shape": [3, 3]}, {"shape": [-1, 3]}, {"shape": [1.0, 3]}, {"shape": 3}, {"shape": [1] * 17},
        {"datatype": "BYTES"}, {"datatype": "FP31"}, {"datatype": ["FP32"]}, {"datatype": "BF16"},
        {"data": [1, 2, "3"]},
        {"datatype": "INT32", "data": [1, 2, 3.5]}, {"datatype": "UINT8", "data": [1, 2, 256]},
        {"parameters": {"binary_data_size": 12}},
    ):  # fmt: skip
        if "data" in members and "3" in members["data"]:
            assert "data" in refusal(request(an_input(**members)))
        else:
            assert "input x" in refusal(request(an_input(**members))), members


@pytest.mark.parametrize(
    "members",
    [
        {"inputs": []}, {"inputs": {}}, {"inputs": None}, {"inputs": [1]}, {"inputs": [an_input(name="")]},
        {"inputs": [an_input(name=1)]}, {"inputs": [an_input(name="n" * 1025)]}, {"inputs": [an_input()] * 65},
        {"inputs": [an_input(more=1)]}, {"outputs": {}}, {"outputs": [1]}, {"outputs": [{}]},
        {"outputs": [{"name": "y"}, {"name": "y"}]}, {"outputs": [{"name": "y", "shape": [1]}]}, {"more": 1},
        {"id": 7}, {"id": "x" * 1025}, {"parameters": []}, {"parameters": {"timeout": -1}},
        {"parameters": {"timeout": 1.5}}, {"parameters": {"timeout": True}}, {"parameters": {"binary_data_output": 1}},
        {"parameters": {"sequence_id": 3}}, {"inputs": [an_input(parameters={"shared_memory_region": "r"})]},
        {"outputs": [{"name": "y", "parameters": {"classification": 3}}]},
        {"outputs": [{"name": "y", "parameters": {"shared_memory_byte_size": 3}}]},
        {"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(members):
    refusal({**request(), **members})


def test_priority_and_parameters_of_the_clients_own_are_ignored():
    asked = read({**request(), "parameters": {"priority": 3, "trace": "on", "timeout": 0}})
    assert asked.timeout is None


@pytest.mark.parametrize("size", [0, 11, 13, 12.0, True, "12", -12, None])
def test_a_binary_size_that_disagrees_is_refused(size):
    one = an_input(parameters={"binary_data_size": size})
    del one["data"]
    assert "input x" in refusal(request(one), floats(1, 2, 3))


def test_bytes_that_are_missing_or_left_over_are_refused():
    one = an_input(parameters={"binary_data_size": 12})
    del one["data"]
    assert "ends before" in refusal(request(one), floats(1, 2))
    assert "left over" in refusal(request(one), floats(1, 2, 3) + b"x")
    assert "left over" in refusal(request(), b"x")


@pytest.mark.parametrize("length", [0, 10**9])
def test_a_header_length_that_cannot_be_is_refused(length):
    with pytest.raises(InvalidPayload):
        v2.parse(json.dumps(request()).encode(), length)


def test_more_json_than_any_request_needs_is_refused():
    assert "longer" in refusal({**request(), "parameters": {"x": "y" * v2.FRAME_MAX}})


def test_an_empty_batch_has_no_bytes():
    one = an_input(shape=[0, 3], parameters={"binary_data_size": 0})
    del one["data"]
    assert read(request(one)).inputs == [Tensor("x", "FP32", (0, 3), b"")]
    assert read(request(an_input(shape=[0, 3], data=[]))).inputs == [Tensor("x", "FP32", (0, 3), b"")]


def test_bf16_comes_as_bytes_and_goes_as_bytes():
    one = an_input(datatype="BF16", parameters={"binary_data_size": 6})
    del one["data"]
    assert bytes(read(request(one), b"abcdef").inputs[0].data) == b"abcdef"
    with pytest.raises(InvalidPayload, match="output y"):
        v2.check_wanted(read(request()), "y", "BF16")
    v2.check_wanted(read(request(parameters={"binary_data_output": True})), "y", "BF16")


OUTPUTS = [Tensor("y", "FP32", (1, 2), floats(0.5, 0.25)), Tensor("n", "INT64", (1,), struct.pack("<q", 2**62))]


def test_an_answer_in_json_is_flat_and_names_its_version():
    length, body = answer("m1", 3, read({**request(), "id": ""}), OUTPUTS)
    assert length is None
    assert json.loads(body) == {
        "model_name": "m1",
        "model_version": "3",
        "id": "",
        "outputs": [
            {"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.25]},
            {"name": "n", "shape": [1], "datatype": "INT64", "data": [2**62]},
        ],
    }


def test_the_id_is_echoed_only_if_it_was_given():
    assert "id" not in json.loads(answer("m1", 1, read(request()), OUTPUTS)[1])


def test_outputs_are_binary_one_by_one_or_all_together():
    outputs = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "n"}]
    asked = read({**request(), "outputs": outputs, "parameters": {"binary_data_output": True}})
    length, body = answer("m1", 1, asked, OUTPUTS)
    head = json.loads(body[:length])
    assert head["outputs"][0]["data"] == [0.5, 0.25]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 8}
    assert body[length:] == OUTPUTS[1].data


def test_nan_goes_out_as_bytes_but_not_as_json():
    outputs = [Tensor("y", "FP32", (1,), floats(float("nan")))]
    with pytest.raises(NonFiniteOutput):
        answer("m1", 1, read(request()), outputs)
    length, body = answer("m1", 1, read(request(parameters={"binary_data_output": True})), outputs)
    assert body[length:] == outputs[0].data


WHOLE = json.dumps(
    {
        "id": "7",
        "inputs": [
            an_input(shape=[2, 2], data=[[1, 2.5], [-3, 4]]),
            {"data": [True, False], "name": "b", "datatype": "BOOL", "shape": [2]},
            an_input(name="n", datatype="INT64", shape=[3], data=[5, -6, 7]),
        ],
        "outputs": [{"name": "y"}],
    }
)
EDITS = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 4), st.text('[]{},":0123456789.-eE tfn\\d', max_size=4)),
    min_size=1,
    max_size=4,
)
CODES = {"FP32": "f", "BOOL": "?", "INT64": "q", "FP64": "d", "INT32": "i"}


def flat(data):
    return [one for part in data for one in flat(part)] if isinstance(data, list) else [data]


@settings(max_examples=400, deadline=None)
@given(EDITS)
@example([(0, 0, " ")])
def test_a_request_means_what_it_means_as_json_or_is_refused(edits):
    """Arrays are cut out of the text: whatever the text is, no other reader may see other numbers."""
    text = WHOLE
    for at, gone, put in edits:
        text = text[:at] + put + text[at + gone :]
    try:
        found = v2.parse(text.encode(), None)
    except InvalidPayload:
        return
    for tensor, one in zip(found.inputs, json.loads(text)["inputs"], strict=True):
        assert tensor.data == struct.pack(f"<{len(flat(one['data']))}{CODES[one['datatype']]}", *flat(one["data"]))
        assert (tensor.name, list(tensor.shape)) == (one["name"], one["shape"])


@pytest.mark.parametrize(
    "text",
    [b'"data":' * 30_000, b'"data":[' * 30_000, b'"data"' + b" " * 200_000, b'"data":[0],' * 20_000, b"[" * 200_000,
     b'{"inputs":[{"data":[' + b"[" * 200_000, b'"data":[1]' + b"]" * 200_000, b'"\\' * 100_000],
)  # fmt: skip
def test_hostile_text_is_refused_in_no_time(text):
    began = time.process_time()
    with pytest.raises(InvalidPayload):
        v2.parse(text, None)
    assert time.process_time() - began < 1
