"""Arrays as bytes: numpy arrays and torch tensors, under the names that wire formats have for their types.

torch is not needed: a tensor can only come from a torch that is loaded already.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

SAFETENSORS = {
    "bool": "BOOL",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
"""https://huggingface.co/docs/safetensors, "Format"."""
INFERENCE = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
"""https://github.com/kserve/open-inference-protocol, "Tensor Data Types"."""
_NUMPY = {wire: name for name, wire in INFERENCE.items()}


def is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or is_tensor(value)


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def type_name(value: Any) -> str:
    """`float32`, `bfloat16` and so on. Raises ValueError for a type that models do not have."""
    name = str(value.dtype).removeprefix("torch.") if is_tensor(value) else str(value.dtype.name)
    if name not in SAFETENSORS:
        raise ValueError(f"arrays of type {name} cannot be sent")
    return name


def content(value: Any) -> memoryview:
    """The elements row-major and little-endian."""
    array = _as_numpy(value) if is_tensor(value) else value
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def array_of(datatype: str, shape: list[int], data: bytes | memoryview) -> np.ndarray[Any, Any]:
    """Elements of the Open Inference Protocol as an array of its own; BF16, which numpy has not, becomes float32.

    Raises ValueError when the bytes do not fill the shape, or the type is unknown.
    """
    name = _NUMPY.get(datatype)
    if name is None:
        raise ValueError(f"unknown datatype {datatype}")
    if name == "bfloat16":
        halves = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, dtype=np.dtype(name).newbyteorder("<")).astype(name).reshape(shape)


def like(array: np.ndarray[Any, Any], sample: object) -> Any:
    """`array` as a torch tensor if `sample` is one."""
    return sys.modules["torch"].from_numpy(array) if is_tensor(sample) else array


def _as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    whole = tensor.detach().cpu().contiguous()
    if type_name(tensor) == "bfloat16":
        whole = whole.view(sys.modules["torch"].int16)
    array: np.ndarray[Any, Any] = whole.numpy()
    return array
