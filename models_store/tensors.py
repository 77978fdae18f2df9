"""Tensors as bytes, and what a model takes and gives. Words of the Open Inference Protocol v2; no torch, no numpy."""

from dataclasses import dataclass
from math import prod
from typing import Any

DATATYPES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element. https://github.com/kserve/open-inference-protocol, "Tensor Data Types"; BYTES is not for
tensor models."""

RANK_MAX = 16
INPUTS_MAX = 64
"""Most inputs, and most outputs, of one model."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model; -1 in `shape` is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def body(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, in order. `batchable`: dimension 0 of every input and output is the batch."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool = True

    def body(self) -> dict[str, Any]:
        """As JSON; `of` reads it back."""
        return {
            "inputs": [spec.body() for spec in self.inputs],
            "outputs": [spec.body() for spec in self.outputs],
            "batchable": self.batchable,
        }

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Signature":
        return cls(_specs(body["inputs"]), _specs(body["outputs"]), body["batchable"])


@dataclass(frozen=True, slots=True)
class Tensor:
    """`data` holds the elements row-major and little-endian, exactly as many bytes as shape and datatype say."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def rows(self) -> int:
        """Length of dimension 0; 1 for a scalar."""
        return self.shape[0] if self.shape else 1


def byte_size(datatype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor. Raises KeyError for a datatype that is none."""
    return DATATYPES[datatype] * prod(shape)


def _specs(bodies: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(one["name"], one["datatype"], tuple(one["shape"])) for one in bodies)
