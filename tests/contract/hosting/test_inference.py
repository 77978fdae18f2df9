"""Inference up to the compute processes, the same over every store."""

import base64
import json
import struct

import pytest

from grid_node.errors import (
    FormatNotRunnable,
    InferenceNotAllowed,
    InferenceTimeout,
    InvalidPayload,
    ModelCorrupt,
    ModelNotFound,
    ModelNotReady,
    NonFiniteOutput,
)
from grid_node.hosting import rows
from grid_node.hosting.inference import Inference
from models_store.tensors import Signature, Tensor
from tests.doubling import TWO, Doubling
from tests.models import ANN, ANYBODY, Shelf


class Timer:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


class Bench:
    """A shelf whose models run in a compute process of one doubling."""

    def __init__(self, shelf: Shelf):
        self.shelf = shelf
        self.compute = Doubling()
        self.timer = Timer()
        shelf.compute.describe = self.compute.describe
        self.inference = Inference(shelf.store, shelf.blobs, self.compute, shelf.settings, self.timer)

    def serve(self, model_id="m1", allowed=True, format="safetensors", **fields):
        runs = {"architecture": {"layers": []}, "format": format} if allowed else {}
        return self.shelf.serve(model_id=model_id, allow_remote_inference=allowed, **runs, **fields)

    def run(self, *inputs, model_id="m1", version=None, **more):
        return self.inference.run(ANYBODY, model_id, version, list(inputs) or [A, N], **more)

    def predict(self, data, model_id="m1", **fields):
        return self.inference.predict(ANYBODY, {"model_id": model_id, "data": data, **fields})


@pytest.fixture
def bench(shelf):
    return Bench(shelf)


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def whole(*values):
    return struct.pack(f"<{len(values)}q", *values)


A = Tensor("a", "FP32", (1, 2), floats(1, 2))
N = Tensor("n", "INT64", (1,), whole(7))


def test_a_model_runs_and_says_which_version_ran(bench):
    bench.serve()
    bench.serve(version="new")
    row, outputs = bench.run()
    assert (row.id, row.version) == ("m1", 2)
    assert outputs == [Tensor("double", "FP32", (1, 2), floats(2, 4)), Tensor("count", "INT64", (1,), whole(14))]
    assert bench.run(version=1)[0].version == 1


def test_inputs_reach_the_process_in_the_order_of_the_signature(bench):
    bench.serve()
    _, outputs = bench.run(N, A)
    assert [one.name for one in outputs] == ["double", "count"]
    assert outputs[0].data == floats(2, 4)


def test_outputs_come_in_the_order_asked_for(bench):
    bench.serve()
    assert [one.name for one in bench.run(wanted=["count", "double"])[1]] == ["count", "double"]
    assert [one.name for one in bench.run(wanted=["count"])[1]] == ["count"]
    with pytest.raises(InvalidPayload, match="output other"):
        bench.run(wanted=["other"])


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ((A,), "input n"),
        ((A, N, Tensor("z", "FP32", (1,), floats(1))), "input z"),
        ((Tensor("A", "FP32", (1, 2), floats(1, 2)), N), "input a"),
        ((Tensor("a", "FP64", (1, 1), floats(1, 2)), N), "input a"),
        ((Tensor("a", "FP32", (2,), floats(1, 2)), N), "input a"),
        ((Tensor("a", "FP32", (1, 3), floats(1, 2, 3)), N), "input a"),
        ((Tensor("a", "FP32", (1, 2), floats(1)), N), "input a"),
        ((A, Tensor("n", "INT64", (2,), whole(1, 2))), "input n"),
        ((A, A, N), "twice"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_by_its_name(bench, inputs, named):
    bench.serve()
    with pytest.raises(InvalidPayload, match=named):
        bench.run(*inputs)
    assert bench.compute.asked == []


def test_an_empty_batch_runs(bench):
    bench.serve()
    _, outputs = bench.run(Tensor("a", "FP32", (0, 2), b""), Tensor("n", "INT64", (0,), b""))
    assert [one.shape for one in outputs] == [(0, 2), (0,)]


def test_only_models_that_allow_it_are_run(bench):
    bench.serve("shut", allowed=False)
    for read in (bench.run, lambda **name: bench.inference.check_ready(ANYBODY, **name)):
        with pytest.raises(InferenceNotAllowed) as raised:
            read(model_id="shut")
        assert raised.value.body()["not_allowed"] is True
    for name in ("none", "a/b", "..", "", "x" * 65):
        with pytest.raises(ModelNotFound):
            bench.run(model_id=name)
    assert bench.compute.asked == []


def test_a_deleted_model_is_gone_at_once_and_a_new_one_is_another(bench):
    bench.serve(model=b"first")
    bench.run()
    bench.shelf.deleting.delete(ANYBODY, "m1")
    with pytest.raises(ModelNotFound):
        bench.run()
    bench.serve(model=b"second")
    bench.run()
    first, second = bench.compute.asked
    assert first.key != second.key
    assert (first.file().read_bytes(), second.file().read_bytes()) == (b"first", b"second")


def test_a_version_that_ended_three_processes_waits_for_the_operator(bench):
    bench.serve()
    key = bench.run()[0].key
    for _ in range(2):
        bench.shelf.store.write(lambda tx: rows.note_kill(tx, key))
        bench.run()
    bench.shelf.store.write(lambda tx: rows.note_kill(tx, key))
    for read in (bench.run, lambda: bench.inference.check_ready(ANYBODY, "m1")):
        with pytest.raises(ModelNotReady):
            read()
    assert [one.reason != "" for one in bench.inference.standings()] == [True]
    bench.shelf.store.write(lambda tx: rows.clear_kills(tx, key))
    bench.run()


def test_the_process_is_told_what_it_runs(bench):
    bench.serve(model=b"twelve bytes")
    bench.run()
    model = bench.compute.asked[0]
    assert (model.format, model.size, model.architecture) == ("safetensors", 12, {"layers": []})
    assert model.file().read_bytes() == b"twelve bytes"


def test_bytes_that_are_missing_are_a_damaged_model(bench):
    served = bench.serve()
    bench.run()
    bench.shelf.blobs.delete(served.sha256)
    with pytest.raises(ModelCorrupt):
        bench.compute.asked[0].file()


@pytest.mark.parametrize(("asked", "given"), [(None, 29.0), (5.0, 4.0), (600.0, 29.0), (1.5, 0.5)])
def test_the_deadline_counts_from_arrival_and_can_only_be_shortened(bench, asked, given):
    bench.serve()
    bench.run(timeout=asked, arrived=99.0)
    assert bench.compute.timeouts == [pytest.approx(given)]


def test_a_request_past_its_deadline_is_not_run(bench):
    bench.serve()
    for late in ({"timeout": 0.5, "arrived": 99.0}, {"arrived": 60.0}):
        with pytest.raises(InferenceTimeout):
            bench.run(**late)
    assert bench.compute.asked == []


def test_an_output_may_be_refused_before_the_model_runs(bench):
    bench.serve()
    seen = []
    bench.run(check_output=lambda name, datatype: seen.append((name, datatype)))
    assert seen == [("double", "FP32"), ("count", "INT64")]
    bench.run(wanted=["count"], check_output=lambda *_: seen.clear())

    def refuse(*_):
        raise InvalidPayload("no")

    with pytest.raises(InvalidPayload):
        bench.run(check_output=refuse)
    assert len(bench.compute.asked) == 2


# --- run_inference


def one_input(bench):
    bench.compute.signature = Signature((TWO.inputs[0],), (TWO.outputs[0],))


def test_a_nested_list_is_enough_for_a_model_of_one_input(bench):
    one_input(bench)
    bench.serve()
    assert bench.predict([[1, 2], [3, 4.5]]) == {"success": True, "prediction": [[2, 4], [6, 9]]}
    assert bench.predict({"a": [[1, 2]]})["prediction"] == [[2, 4]]


def test_several_inputs_and_outputs_have_names(bench):
    bench.serve()
    answer = bench.predict({"n": [3], "a": [[1, 2]]})
    assert answer == {"success": True, "prediction": [[2, 4]], "outputs": {"double": [[2, 4]], "count": [6]}}


def safetensors(**tensors):
    header, start, body = {}, 0, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(data)]}
        start += len(data)
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


GIVEN = safetensors(n=("I64", [1], whole(3)), a=("F32", [1, 2], floats(1, 2)))


@pytest.mark.parametrize(
    "fields",
    [
        {"data": GIVEN},
        {"data": bytearray(GIVEN)},
        {"data": GIVEN.decode("iso-8859-1")},
        {"data": base64.b64encode(GIVEN).decode(), "encoding": "base64"},
    ],
)
def test_safetensors_are_taken_as_bytes_and_as_text(bench, fields):
    bench.serve()
    assert bench.predict(**fields)["outputs"] == {"double": [[2, 4]], "count": [6]}


@pytest.mark.parametrize(
    "data",
    [
        None, 1, True, [1], [[1, 2, 3]], [["1", "2"]], [[1, 2], [3]], {"a": [[1, 2]], "z": [1]}, {}, {"a": "x"}, b"",
        b"x", "x", GIVEN[:-1], GIVEN + b"x", safetensors(a=("F64", [1, 1], floats(1, 2))),
        safetensors(a=("F8_E5M2", [2], b"ab")),
        [[float("nan")], 2], [[10**400, 1]],
    ],
)  # fmt: skip
def test_data_that_is_no_input_is_refused(bench, data):
    one_input(bench)
    bench.serve()
    with pytest.raises(InvalidPayload) as raised:
        bench.predict(data)
    assert raised.value.data["fields"]
    assert bench.compute.asked == []


def test_a_list_is_not_enough_for_several_inputs(bench):
    bench.serve()
    with pytest.raises(InvalidPayload, match="a, n"):
        bench.predict([[1, 2]])


def test_an_infinite_result_is_no_json(bench):
    one_input(bench)
    bench.serve()
    bench.compute.infinite = True
    with pytest.raises(NonFiniteOutput):
        bench.predict([[1, 2]])


# --- what may be known of a model


def test_a_model_is_described_with_its_versions(bench):
    bench.serve()
    bench.serve(version="new")
    found = bench.inference.describe(ANN, "m1", 1)
    assert (found.row.version, found.versions, found.platform) == (1, (1, 2), "pytorch_safetensors")
    assert found.signature == TWO


def test_the_index_has_every_version_that_may_be_run(bench):
    bench.serve("b")
    bench.serve("shut", allowed=False)
    bench.serve("a")
    bench.serve("b", version="new")
    bench.serve("gone")
    bench.shelf.deleting.delete(ANYBODY, "gone")
    bench.compute.states = {bench.inference.describe(ANYBODY, "a").row.key: "failed"}
    found = [(one.model_id, one.version, bool(one.reason)) for one in bench.inference.standings()]
    assert found == [("b", 1, False), ("b", 2, False), ("a", 1, True)]


@pytest.mark.parametrize("state", ["unloaded", "loading", "ready"])
def test_a_model_that_a_request_would_load_is_ready(bench, state):
    key = bench.serve() and bench.inference.describe(ANYBODY, "m1").row.key
    bench.compute.states = {key: state}
    assert bench.inference.check_ready(ANYBODY, "m1", 1) == "m1"
    bench.compute.states = {key: "failed"}
    with pytest.raises(ModelNotReady):
        bench.inference.check_ready(ANYBODY, "m1")


def test_what_has_no_signature_does_not_run(bench):
    bench.serve()
    bench.shelf.store.write(lambda tx: tx.execute(rows.versions.update().values(signature=None)))
    for read in (bench.run, lambda: bench.inference.describe(ANYBODY, "m1")):
        with pytest.raises(FormatNotRunnable):
            read()
