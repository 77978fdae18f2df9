"""The signature of a model at serve time: what was declared, completed and checked against the model itself.

A state dict is built on torch's meta device: shapes and types are worked out, nothing is computed and no weight is
read. Every variable dimension is tried with two lengths; a dimension of an output that differs between the two trials
is variable too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch.nn import functional

from models_store import layers, runtime, weights
from models_store.dtypes import BY_DATATYPE, DATATYPE
from models_store.errors import InferenceFailed, InvalidModel
from models_store.runtime import Abilities, Function, Source
from models_store.tensors import INPUTS_MAX, Signature, TensorSpec

BATCHES = (2, 3)
LENGTHS = ((32, 64), (8, 16), (224, 448), (2, 5), (28, 56), (512, 1024))
"""Pairs of lengths tried for variable dimensions that are not the batch, until the model takes one pair."""
LENGTH_MAX = 512
"""Where no pair fits (layers that end in a linear one take images of one size), every length up to this is tried."""
SEARCH_MAX = 50_000
"""Layers run in that search, over all lengths."""
ELEMENTS_MAX = 2**30
"""Most elements of a tensor inside a trial; the batch is 3 at most there."""
REAL_ELEMENTS_MAX = 2**26
"""The same where a trial computes."""

Declared = Sequence[dict[str, Any]] | None


@dataclass(frozen=True)
class Wish:
    """What the request said: members of `inputs` and `outputs` are `{"name"?, "datatype", "shape"}`."""

    inputs: Declared
    outputs: Declared
    batchable: bool


def describe(source: Source, wish: Wish, abilities: Abilities) -> Signature:
    """The complete signature. Raises InvalidModel, with a text for whoever serves the model, and NotRunnable."""
    if source.format == "safetensors":
        function, device = _on_meta(source, abilities), "meta"
    else:
        function, device = runtime.load(source, abilities), abilities.device
    inputs = specs("INPUT", wish.inputs) if wish.inputs else derived(function)
    _check_batch("input", inputs, wish.batchable)
    _check_rows(function, inputs, wish.batchable)
    found = Trial(function, inputs, wish, device).outputs()
    outputs = _outputs(found, wish, needs_trial=isinstance(function, layers.Sequence))
    _check_batch("output", outputs, wish.batchable)
    return Signature(inputs, outputs, wish.batchable)


def _on_meta(source: Source, abilities: Abilities) -> Function:
    if source.architecture is None:
        raise InvalidModel("a state dict needs an architecture to run")
    tensors = weights.shapes(source.descriptor)
    with torch.device("meta"):
        return layers.build(source.architecture, tensors, abilities.factories)


def specs(prefix: str, declared: Sequence[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Declared inputs or outputs; one without a name is `INPUT__0` and so on. Raises InvalidModel."""
    if len(declared) > INPUTS_MAX:
        raise InvalidModel(f"at most {INPUTS_MAX} inputs and outputs")
    found = tuple(
        TensorSpec(one.get("name") or f"{prefix}__{number}", one["datatype"], tuple(one["shape"]))
        for number, one in enumerate(declared)
    )
    if len({spec.name for spec in found}) != len(found):
        raise InvalidModel("two inputs or outputs have the same name")
    return found


def derived(function: Function) -> tuple[TensorSpec, ...]:
    """The inputs that the first layer shows. Raises InvalidModel when it does not."""
    first = function.layers[0] if isinstance(function, layers.Sequence) else None
    if isinstance(first, partial) and first.func is functional.embedding:
        return (TensorSpec("INPUT__0", "INT64", (-1, -1)),)
    weight = first.keywords.get("weight") if isinstance(first, partial) else None
    if isinstance(first, partial) and isinstance(weight, torch.Tensor) and weight.dtype in DATATYPE:
        datatype = DATATYPE[weight.dtype]
        if first.func is functional.linear and weight.dim() == 2:
            return (TensorSpec("INPUT__0", datatype, (-1, weight.shape[1])),)
        if first.func is functional.conv2d and weight.dim() == 4:
            channels = weight.shape[1] * first.keywords["groups"]
            return (TensorSpec("INPUT__0", datatype, (-1, channels, -1, -1)),)
    raise InvalidModel("inputs must be declared for this model")


def _check_batch(what: str, found: Sequence[TensorSpec], batchable: bool) -> None:
    for spec in found:
        if batchable and spec.shape[:1] != (-1,):
            raise InvalidModel(
                f"dimension 0 of {what} {spec.name} must be -1, the batch; or serve the model with batchable false"
            )


def _check_rows(function: Function, inputs: Sequence[TensorSpec], batchable: bool) -> None:
    if isinstance(function, layers.Sequence):
        if len(inputs) != 1:
            raise InvalidModel("a list of layers has one input")
        function.layers[:] = [_watched(layer, batchable) for layer in function.layers]


def _watched(layer: layers.Layer, batchable: bool) -> layers.Layer:
    """The layer as the trial needs it: it says what no answer may depend on, and stops before sizes explode."""

    def run(x: torch.Tensor) -> torch.Tensor:
        if batchable and layers.mixes_rows(layer, x.dim()):
            raise InvalidModel("a softmax over dimension 0 mixes the rows of a batch; serve with batchable false")
        if not layers.takes(layer, x.dtype):
            raise InvalidModel(f"a layer does not take {DATATYPE.get(x.dtype, 'this type')}")
        result = layer(x)
        if result.numel() > ELEMENTS_MAX:
            raise InvalidModel("a layer makes a tensor that is too large")
        return result

    return run


@dataclass(frozen=True)
class Trial:
    """A model run on zeros, to see what comes out."""

    function: Function
    inputs: Sequence[TensorSpec]
    wish: Wish
    device: str

    def outputs(self) -> list[dict[str, Any]] | None:
        """As they might have been declared; None when the model took none of the lengths tried.

        Raises InvalidModel for what no declaration would repair.
        """
        for pair in self._lengths():
            try:
                first, second = (self._once(*lengths) for lengths in zip(BATCHES, pair, strict=True))
            except InferenceFailed:
                continue
            return _merged(first, second)
        return None

    def _lengths(self) -> Iterator[tuple[int, int]]:
        if not any(-1 in spec.shape[self.wish.batchable :] for spec in self.inputs):
            yield LENGTHS[0]
            return
        yield from LENGTHS
        if isinstance(self.function, layers.Sequence):
            most = min(LENGTH_MAX, SEARCH_MAX // len(self.function.layers))
            yield from ((length, length) for length in range(1, most + 1))

    def _once(self, batch: int, length: int) -> dict[str, torch.Tensor]:
        """Outputs by name."""
        try:
            with torch.inference_mode():
                raw = self.function(*[self._zeros(spec, batch, length) for spec in self.inputs])
        except InvalidModel:
            raise
        except Exception as error:
            raise InferenceFailed("the model failed in the trial") from error
        outputs = self._named(raw)
        if self.wish.batchable and any(output.shape[:1] != (batch,) for output in outputs.values()):
            raise InvalidModel("dimension 0 of an output is not the batch; serve the model with batchable false")
        return outputs

    def _zeros(self, spec: TensorSpec, batch: int, length: int) -> torch.Tensor:
        shape = [length if one < 0 else one for one in spec.shape]
        if self.wish.batchable:
            shape[0] = batch
        if prod(shape) > (ELEMENTS_MAX if self.device == "meta" else REAL_ELEMENTS_MAX):
            raise InvalidModel(f"input {spec.name} is too large to be tried")
        return torch.zeros(shape, dtype=BY_DATATYPE[spec.datatype], device=self.device)

    def _named(self, raw: Any) -> dict[str, torch.Tensor]:
        names = [spec.name for spec in specs("OUTPUT", self.wish.outputs)] if self.wish.outputs else None
        tensors = runtime.in_order(raw, names)
        if isinstance(raw, Mapping):
            return dict(zip(map(str, raw) if names is None else names, tensors, strict=True))
        return {f"OUTPUT__{number}": tensor for number, tensor in enumerate(tensors)}


def _merged(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    if [(name, output.dim()) for name, output in first.items()] != [(name, one.dim()) for name, one in second.items()]:
        raise InvalidModel("the rank of an output depends on the input")
    if not all(output.dtype in DATATYPE for output in first.values()):
        raise InvalidModel("an output is of a type that has no name in the protocol")
    return [
        {
            "name": name,
            "datatype": DATATYPE[output.dtype],
            "shape": [a if a == b else -1 for a, b in zip(output.shape, second[name].shape, strict=True)],
        }
        for name, output in first.items()
    ]


def _outputs(found: list[dict[str, Any]] | None, wish: Wish, needs_trial: bool) -> tuple[TensorSpec, ...]:
    if found is None and needs_trial:
        raise InvalidModel("the layers do not fit together, or not the inputs; declare the shape of the inputs")
    if found is None and not wish.outputs:
        raise InvalidModel("outputs must be declared for this model")
    if found is None or not wish.outputs:
        return specs("OUTPUT", found or wish.outputs or [])
    declared, real = specs("OUTPUT", wish.outputs), specs("OUTPUT", found)
    if len(declared) != len(real) or not all(map(_agrees, declared, real)):
        raise InvalidModel("the declared outputs are not those of the model")
    return declared


def _agrees(declared: TensorSpec, real: TensorSpec) -> bool:
    """A dimension that the model varies may not be declared fixed, and a fixed one not as another length."""
    return declared.datatype == real.datatype and runtime.fits(declared.shape, real.shape)
