"""A model that is loaded: the four words of its life.

setup     bytes of the file -> a function of tensors
decode    bytes of requests -> tensors, the requests of a batch joined along dimension 0
predict   tensors -> tensors, in inference mode, checked against the signature
encode    tensors -> bytes of answers, cut into the rows of each request
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from models_store import exported, layers, weights
from models_store.dtypes import BY_DATATYPE
from models_store.errors import InferenceFailed, InvalidModel, ModelError, NotRunnable
from models_store.formats import SAFETENSORS, TORCHSCRIPT
from models_store.tensors import Signature, Tensor, TensorSpec, byte_size

Function = Callable[..., Any]


@dataclass(frozen=True)
class Source:
    """The bytes of a model and how to read them. `descriptor` is an open file."""

    descriptor: int
    format: str
    architecture: dict[str, Any] | None

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True)
class Abilities:
    """What this process may run: the formats, the operator's factories by name, and where tensors live."""

    formats: frozenset[str] = frozenset({SAFETENSORS})
    factories: Mapping[str, layers.Factory] = field(default_factory=dict)
    device: str = "cpu"


def load(source: Source, abilities: Abilities) -> Function:
    """The model of a file as a function of its inputs. Raises InvalidModel and NotRunnable."""
    if source.format not in abilities.formats:
        raise NotRunnable("models of this format do not run here")
    if source.format == SAFETENSORS:
        return _state_dict(source, abilities)
    with os.fdopen(os.dup(source.descriptor), "rb") as file:
        try:
            return _program(source.format, file, abilities.device)
        except ModelError:
            raise
        except Exception as error:
            raise InvalidModel("torch cannot load these bytes") from error


def _state_dict(source: Source, abilities: Abilities) -> Function:
    tensors = weights.load(source.descriptor)
    if abilities.device != "cpu":
        tensors = {name: tensor.to(abilities.device) for name, tensor in tensors.items()}
    return layers.build(source.architecture, tensors, abilities.factories)


def _program(format: str, file: BinaryIO, device: str) -> Function:
    """A model with code of its own; only in a process that was confined."""
    file.seek(0)
    if format == TORCHSCRIPT:
        return torch.jit.load(file, map_location=device).eval()
    size = os.fstat(file.fileno()).st_size
    copy: Any = exported.working_copy(file, size)
    return torch.export.load(copy).module()


class Model:
    """One version of a model, from `setup` on; used by one thread at a time."""

    def __init__(self, signature: Signature, device: str = "cpu") -> None:
        self.signature = signature
        self._device = device
        self._function: Function | None = None

    def setup(self, source: Source, abilities: Abilities) -> None:
        """Raises InvalidModel and NotRunnable."""
        self._function = load(source, abilities)

    def decode(self, requests: Sequence[Sequence[Tensor]]) -> list[torch.Tensor]:
        """One tensor for each input. Requests that are joined have equal types and equal non-batch shapes."""
        inputs = [joined(parts) for parts in zip(*requests, strict=True)]
        return inputs if self._device == "cpu" else [one.to(self._device) for one in inputs]

    def predict(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs in the order of the signature. Raises InferenceFailed."""
        if self._function is None:
            raise InferenceFailed("the model is not set up")
        rows = inputs[0].shape[0] if self.signature.batchable else None
        try:
            with torch.inference_mode():
                raw = self._function(*inputs)
        except Exception as error:
            raise InferenceFailed("the model failed on this input") from error
        return checked(raw, self.signature, rows)

    def encode(self, outputs: Sequence[torch.Tensor], rows: Sequence[int]) -> list[list[Tensor]]:
        """The outputs of each request, `rows` long in dimension 0; one request gets all there is."""
        shares: list[list[Tensor]] = [[] for _ in rows]
        for spec, output in zip(self.signature.outputs, outputs, strict=True):
            for share, tensor in zip(shares, cut(spec, output, rows), strict=True):
                share.append(tensor)
        return shares


def joined(parts: Sequence[Tensor]) -> torch.Tensor:
    """The tensors one after the other along dimension 0: row-major bytes only need to be strung together."""
    first = parts[0]
    dtype = BY_DATATYPE[first.datatype]
    shape = first.shape
    buffer: bytes | bytearray | memoryview = first.data
    if len(parts) > 1:
        shape = (sum(part.rows for part in parts), *first.shape[1:])
        buffer = bytearray().join(part.data for part in parts)
    if len(buffer) == 0:
        return torch.empty(shape, dtype=dtype)
    return weights.aligned(torch.frombuffer(buffer, dtype=dtype)).reshape(shape)


def cut(spec: TensorSpec, output: torch.Tensor, rows: Sequence[int]) -> list[Tensor]:
    """Pieces of `output`, `rows` long each, without a copy."""
    data = raw_bytes(output)
    shape = tuple(output.shape)
    if len(rows) == 1:
        return [Tensor(spec.name, spec.datatype, shape, data)]
    rest = shape[1:]
    row_bytes = byte_size(spec.datatype, rest)
    pieces, start = [], 0
    for count in rows:
        end = start + count * row_bytes
        pieces.append(Tensor(spec.name, spec.datatype, (count, *rest), data[start:end]))
        start = end
    return pieces


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The elements row-major and little-endian; valid as long as the view lives."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    elements: Any = flat.numpy()
    return memoryview(elements)


def checked(raw: Any, signature: Signature, rows: int | None) -> list[torch.Tensor]:
    """What the model gave, if it is what the signature promises. `rows`: what dimension 0 must be.

    Raises InferenceFailed.
    """
    outputs = in_order(raw, [spec.name for spec in signature.outputs])
    if len(outputs) != len(signature.outputs):
        raise InferenceFailed("the model gave another number of outputs than its signature says")
    for spec, output in zip(signature.outputs, outputs, strict=True):
        if BY_DATATYPE[spec.datatype] != output.dtype:
            raise InferenceFailed(f"output {spec.name} is not of the type in the signature")
        if not fits(spec.shape, tuple(output.shape)) or (rows is not None and output.shape[:1] != (rows,)):
            raise InferenceFailed(f"output {spec.name} is not of the shape in the signature")
    return outputs


def in_order(raw: Any, names: Sequence[str] | None) -> list[torch.Tensor]:
    """A tensor, a tuple or list of tensors or a mapping of names to tensors as a list; mappings in order of `names`.

    Raises InferenceFailed.
    """
    if isinstance(raw, Mapping):
        order = list(raw) if names is None else names
        outputs: list[Any] = [raw.get(name) for name in order] if len(order) == len(raw) else []
    else:
        outputs = list(raw) if isinstance(raw, tuple | list) else [raw]
    if not outputs or not all(isinstance(output, torch.Tensor) for output in outputs):
        raise InferenceFailed("the model gave something other than tensors")
    return outputs


def fits(wanted: Sequence[int], shape: Sequence[int]) -> bool:
    return len(wanted) == len(shape) and all(one in (-1, real) for one, real in zip(wanted, shape, strict=True))
