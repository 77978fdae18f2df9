"""decode, predict, encode: batches are put together and cut apart without mixing anything up."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from models_store import runtime, weights
from models_store.dtypes import BY_DATATYPE, BY_SAFETENSORS
from models_store.errors import InferenceFailed, InvalidModel, NotRunnable
from models_store.runtime import Abilities, Model, Source
from models_store.safetensors_file import DTYPE_BITS
from models_store.tensors import DATATYPES, Signature, Tensor, TensorSpec, byte_size

PASS_ON = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


def model(function: Any, signature: Signature = PASS_ON) -> Model:
    made = Model(signature)
    made._function = function
    return made


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from(sorted(DATATYPES)), st.data())
def test_what_goes_in_together_comes_out_apart(rows: list[int], datatype: str, data: st.DataObject) -> None:
    spec = TensorSpec("x", datatype, (-1, 2))
    sizes = [byte_size(datatype, (count, 2)) for count in rows]
    sent = [[Tensor("x", datatype, (count, 2), bytearray(size))] for count, size in zip(rows, sizes, strict=True)]  # type: ignore[arg-type]
    for number, (tensor,) in enumerate(sent):
        for place in range(len(tensor.data)):
            tensor.data[place] = (number + place) % 2  # type: ignore[index]
    identity = model(lambda x: x, Signature((spec,), (spec,)))
    inputs = identity.decode(sent)
    assert inputs[0].dtype == BY_DATATYPE[datatype]
    assert inputs[0].shape == (sum(rows), 2)
    got = identity.encode(identity.predict(inputs), rows)
    assert [bytes(one.data) for (one,) in got] == [bytes(one.data) for (one,) in sent]
    assert [one.shape for (one,) in got] == [one.shape for (one,) in sent]


def test_bytes_at_an_odd_address_are_read_right() -> None:
    raw = bytearray(b"\0" + torch.arange(4.0).numpy().tobytes())
    tensor = runtime.joined([Tensor("x", "FP32", (2, 2), memoryview(raw)[1:])])
    assert torch.equal(tensor, torch.arange(4.0).reshape(2, 2))
    assert tensor.data_ptr() % 4 == 0


def test_an_output_that_does_not_lie_in_order_is_put_in_order() -> None:
    (answer,) = model(None).encode([torch.arange(4.0).reshape(2, 2).t()], [2])[0]
    assert bytes(answer.data) == torch.tensor([0.0, 2.0, 1.0, 3.0]).numpy().tobytes()


X = torch.ones(3, 2)


@pytest.mark.parametrize("raw", [X, (X,), [X], {"y": X}], ids=["tensor", "tuple", "list", "mapping"])
def test_one_output_may_come_in_several_forms(raw: Any) -> None:
    assert torch.equal(model(lambda x: raw).predict([X])[0], X)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        1.0,
        (),
        {},
        {"z": X},
        {"y": X, "z": X},
        (X, X),
        ("text",),
        X.double(),
        X[:2],
        X[:, :1],
        X[0],
        X[None],
    ],
)
def test_anything_but_the_outputs_of_the_signature_is_a_failure(raw: Any) -> None:
    with pytest.raises(InferenceFailed):
        model(lambda x: raw).predict([X])


def test_what_a_model_raises_stays_inside() -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a secret of the model")

    with pytest.raises(InferenceFailed) as failed:
        model(fail).predict([X])
    assert "secret" not in str(failed.value)


def test_formats_that_this_process_may_not_run_are_refused(tmp_path: Path) -> None:
    for format in ("torchscript", "torch_export", "opaque", "syft-0.9.5"):
        with pytest.raises(NotRunnable):
            Model(PASS_ON).setup(Source(0, format, None), Abilities())


# --- weights --------------------------------------------------------------------------------------------------------


def saved(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> int:
    save_file(tensors, tmp_path / "weights.safetensors")
    return os.open(tmp_path / "weights.safetensors", os.O_RDONLY)


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    tensors = {f"{dtype}": torch.ones(3, 5).to(dtype) for dtype in BY_SAFETENSORS.values()}
    tensors |= {"empty": torch.empty(0, 7), "number": torch.tensor(2.5)}
    descriptor = saved(tmp_path, tensors)
    found, planned = weights.load(descriptor), weights.shapes(descriptor)
    os.close(descriptor)
    assert found.keys() == planned.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert (planned[name].dtype, planned[name].shape) == (tensor.dtype, tensor.shape)
        assert planned[name].is_meta
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_the_file_is_mapped_and_never_written(tmp_path: Path) -> None:
    descriptor = saved(tmp_path, {"a": torch.zeros(4)})
    before = (tmp_path / "weights.safetensors").read_bytes()
    first, second = weights.load(descriptor), weights.load(descriptor)
    os.close(descriptor)
    first["a"] += 1
    assert torch.equal(second["a"], torch.zeros(4))
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_a_type_that_torch_does_not_compute_with_is_refused_by_name(tmp_path: Path) -> None:
    assert set(BY_SAFETENSORS) < set(DTYPE_BITS)
    header = b'{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    file = tmp_path / "odd.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    descriptor = os.open(file, os.O_RDONLY)
    for read in (weights.load, weights.shapes):
        with pytest.raises(InvalidModel, match="F4"):
            read(descriptor)
    os.close(descriptor)
