"""Inputs of an inference: from what a message holds to tensors in the order of the model's signature."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from grid_node.hosting.encoding import decoded
from grid_node.hosting.long_arrays import ArrayText, of_text
from grid_node.hosting.refusal import refused
from grid_node.hosting.tensors_json import BadTensor, of_lists
from models_store.errors import ModelError
from models_store.safetensors_file import Entry, read
from models_store.tensors import INPUTS_MAX, RANK_MAX, Signature, Tensor, TensorSpec, byte_size

HEADER_MAX = 64 * 1024
"""Bytes of the header of inputs that come as safetensors."""

_DATATYPES = {
    "BOOL": "BOOL",
    "U8": "UINT8",
    "U16": "UINT16",
    "U32": "UINT32",
    "U64": "UINT64",
    "I8": "INT8",
    "I16": "INT16",
    "I32": "INT32",
    "I64": "INT64",
    "F16": "FP16",
    "BF16": "BF16",
    "F32": "FP32",
    "F64": "FP64",
}
"""Names of safetensors: https://huggingface.co/docs/safetensors, "Format"."""


def arranged(signature: Signature, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs in the order of the signature, each checked against it. Raises InvalidPayload naming the input."""
    given = {tensor.name: tensor for tensor in inputs}
    if len(given) != len(inputs):
        raise refused("an input is given twice", "inputs")
    ordered = []
    for spec in signature.inputs:
        tensor = given.pop(spec.name, None)
        if tensor is None:
            raise refused(f"input {spec.name} is missing", spec.name)
        _check(spec, tensor)
        ordered.append(tensor)
    for name in given:
        raise refused(f"input {name}: the model has no such input", name)
    if signature.batchable and len({tensor.rows for tensor in ordered}) > 1:
        raise refused(f"input {ordered[-1].name}: every input must have the same number of rows", "inputs")
    return ordered


def _check(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        raise refused(f"input {spec.name} must be {spec.datatype}, not {tensor.datatype}", spec.name)
    fits = len(tensor.shape) == len(spec.shape) and all(
        wanted in (-1, length) for wanted, length in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise refused(f"input {spec.name} must have the shape {list(spec.shape)}, not {list(tensor.shape)}", spec.name)
    if len(tensor.data) != byte_size(tensor.datatype, tensor.shape):
        raise refused(f"input {spec.name} has another number of elements than its shape says", spec.name)


def given_tensors(signature: Signature, data: Any, encoding: str | None) -> list[Tensor]:
    """`data` of `/run_inference`: a nested list, an object of them, or safetensors as bytes or encoded text. A long
    list may still be the text that it came as."""
    if isinstance(data, bytes | bytearray | str):
        return _of_safetensors(data, encoding)
    if isinstance(data, dict):
        specs = {spec.name: spec for spec in signature.inputs}
        return [_of_lists(specs.get(name), name, value) for name, value in data.items()]
    if not isinstance(data, list | ArrayText):
        raise refused("data must be a nested list, an object of nested lists, or safetensors", "data")
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise refused(f"data must be an object: the model has the inputs {names}", "data")
    return [_of_lists(signature.inputs[0], signature.inputs[0].name, data)]


def _of_lists(spec: TensorSpec | None, name: str, value: Any) -> Tensor:
    if spec is None:
        raise refused(f"input {name}: the model has no such input", name)
    try:
        if isinstance(value, ArrayText):
            return of_text(name, value, spec.datatype)
        return of_lists(name, value, spec.datatype)
    except BadTensor as error:
        raise refused(f"input {name} {error}", name) from None


def _of_safetensors(data: bytes | bytearray | str, encoding: str | None) -> list[Tensor]:
    raw = data if isinstance(data, str) else bytes(data)
    content = decoded(raw, encoding or "iso-8859-1", "data")
    try:
        header = read(BytesIO(content), len(content), HEADER_MAX, INPUTS_MAX)
    except ModelError as error:
        raise refused(f"data is not safetensors: {error}", "data") from None
    tensors = memoryview(content)[header.data_start :]
    return [_of_entry(name, entry, tensors) for name, entry in header.tensors.items()]


def _of_entry(name: str, entry: Entry, tensors: memoryview) -> Tensor:
    datatype = _DATATYPES.get(entry.dtype)
    if datatype is None or len(entry.shape) > RANK_MAX:
        raise refused(f"input {name} is a tensor that no model takes", name)
    return Tensor(name, datatype, entry.shape, tensors[entry.begin : entry.end])
