"""Architecture -> function: how a state dict becomes a model without any code from the upload.

Grammar (JSON; every other member is refused):

    architecture = {"layers": [layer, ...]}                     1 to 4,096 layers, run in this order
                 | {"name": text, "config": object}             a factory that the operator registered
    layer        = {"op": name, ...parameters}

    op            parameters (default)
    linear        weight, bias (none)
    conv2d        weight, bias (none), stride (1), padding (0), dilation (1), groups (1)
    embedding     weight
    layer_norm    weight (none), bias (none), normalized_shape (that of weight), eps (1e-5)
    batch_norm    running_mean, running_var, weight (none), bias (none), eps (1e-5)
    gelu          approximate ("none" | "tanh")
    relu, tanh, sigmoid
    softmax, log_softmax      dim (-1)
    max_pool2d    kernel_size, stride (kernel_size), padding (0), dilation (1), ceil_mode (false)
    avg_pool2d    kernel_size, stride (kernel_size), padding (0), ceil_mode (false), count_include_pad (true)
    flatten       start_dim (1), end_dim (-1)

weight, bias, running_mean and running_var are keys of the state dict; null is the same as absent. stride, padding,
dilation and kernel_size are one whole number or a list of two, height first. The meaning is that of the functions of
the same name in torch.nn.functional. Keys of the state dict that no layer names are ignored.

A factory is an entry point of the group `grid_node.architectures`: a function of `config` that returns a
torch.nn.Module whose state dict has exactly the keys of the file.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from models_store.errors import InvalidModel

LAYERS_MAX = 4096
SIZE_MAX = 2**16
"""Largest stride, padding, kernel size."""

Weights = Mapping[str, torch.Tensor]
Function = Callable[..., Any]
Layer = Callable[[torch.Tensor], torch.Tensor]
Factory = Callable[[dict[str, Any]], torch.nn.Module]


class Sequence:
    """Layers one after the other; one tensor in, one tensor out."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def build(architecture: Any, weights: Weights, factories: Mapping[str, Factory]) -> Function:
    """The model as a function of its input tensors. Raises InvalidModel."""
    if not isinstance(architecture, dict):
        raise InvalidModel("architecture must be an object")
    if "layers" in architecture:
        return _sequence(architecture, weights)
    return _module(architecture, weights, factories)


def _sequence(architecture: dict[str, Any], weights: Weights) -> Sequence:
    layers = architecture["layers"]
    if len(architecture) != 1 or not isinstance(layers, list) or not 1 <= len(layers) <= LAYERS_MAX:
        raise InvalidModel(f"architecture must be a list of 1 to {LAYERS_MAX} layers and nothing else")
    return Sequence([_layer(number, layer, weights) for number, layer in enumerate(layers)])


def _layer(number: int, layer: Any, weights: Weights) -> Layer:
    op = layer.get("op") if isinstance(layer, dict) else None
    maker = _OPS.get(op) if isinstance(op, str) else None
    if maker is None:
        raise InvalidModel(f"layer {number}: op must be one of {', '.join(_OPS)}")
    parameters = Parameters(f"layer {number} ({op})", layer, weights)
    made = maker(parameters)
    parameters.end()
    return made


def _module(architecture: dict[str, Any], weights: Weights, factories: Mapping[str, Factory]) -> Function:
    name, config = architecture.get("name"), architecture.get("config", {})
    if not isinstance(name, str) or not isinstance(config, dict) or architecture.keys() - {"name", "config"}:
        raise InvalidModel('architecture must be {"layers": [...]} or {"name": ..., "config": {...}}')
    if name not in factories:
        raise InvalidModel("this node has no architecture of this name")
    try:
        module = factories[name](config)
        module.load_state_dict(dict(weights), strict=True, assign=True)
    except Exception as error:
        raise InvalidModel("the architecture does not fit this config or this state dict") from error
    return module.eval().requires_grad_(False)


class Parameters:
    """Reads the members of one layer; each may be asked for once, what is left over at the `end` is refused."""

    def __init__(self, place: str, members: dict[str, Any], weights: Weights) -> None:
        self._place = place
        self._members = {name: value for name, value in members.items() if name != "op"}
        self._weights = weights

    def end(self) -> None:
        if self._members:
            raise self.wrong(", ".join(sorted(self._members)), "is not known")

    def wrong(self, name: str, problem: str) -> InvalidModel:
        return InvalidModel(f"{self._place}: {name} {problem}")

    def tensor(self, name: str) -> torch.Tensor:
        found = self.tensor_or_none(name)
        if found is None:
            raise self.wrong(name, "is needed")
        return found

    def tensor_or_none(self, name: str) -> torch.Tensor | None:
        key = self._members.pop(name, None)
        if key is None:
            return None
        if not isinstance(key, str) or key not in self._weights:
            raise self.wrong(name, "is no key of the state dict")
        return self._weights[key]

    def whole(self, name: str, default: int, low: int, high: int = SIZE_MAX) -> int:
        value = self._members.pop(name, default)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def pair(self, name: str, default: Any, low: int) -> tuple[int, int]:
        value = self._members.pop(name, None)
        value = default if value is None else value
        both = [value, value] if type(value) is int else value
        if not isinstance(both, list | tuple) or len(both) != 2:
            raise self.wrong(name, "must be one or two whole numbers")
        if not all(type(one) is int and low <= one <= SIZE_MAX for one in both):
            raise self.wrong(name, f"must lie between {low} and {SIZE_MAX}")
        return both[0], both[1]

    def flag(self, name: str, default: bool) -> bool:
        value = self._members.pop(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def eps(self) -> float:
        value = self._members.pop("eps", 1e-5)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.wrong("eps", "must lie between 0 and 1")
        return float(value)

    def word(self, name: str, words: Iterable[str], default: str) -> str:
        value = self._members.pop(name, default)
        if not isinstance(value, str) or value not in words:
            raise self.wrong(name, f"must be one of {', '.join(words)}")
        return value

    def shape(self, name: str, default: Iterable[int] | None) -> list[int]:
        value = self._members.pop(name, None)
        value = default if value is None else value
        whole = [value] if type(value) is int else list(value) if isinstance(value, Iterable) else []
        if not 1 <= len(whole) <= 8 or not all(type(one) is int and 1 <= one < 2**31 for one in whole):
            raise self.wrong(name, "must be a shape")
        return whole


def _linear(given: Parameters) -> Layer:
    return partial(functional.linear, weight=given.tensor("weight"), bias=given.tensor_or_none("bias"))


def _conv2d(given: Parameters) -> Layer:
    return partial(
        functional.conv2d,
        weight=given.tensor("weight"),
        bias=given.tensor_or_none("bias"),
        stride=given.pair("stride", 1, 1),
        padding=given.pair("padding", 0, 0),
        dilation=given.pair("dilation", 1, 1),
        groups=given.whole("groups", 1, 1),
    )


def _embedding(given: Parameters) -> Layer:
    return partial(functional.embedding, weight=given.tensor("weight"))


def _layer_norm(given: Parameters) -> Layer:
    weight, bias = given.tensor_or_none("weight"), given.tensor_or_none("bias")
    shape = given.shape("normalized_shape", None if weight is None else weight.shape)
    return partial(functional.layer_norm, normalized_shape=shape, weight=weight, bias=bias, eps=given.eps())


def _batch_norm(given: Parameters) -> Layer:
    return partial(
        functional.batch_norm,
        running_mean=given.tensor("running_mean"),
        running_var=given.tensor("running_var"),
        weight=given.tensor_or_none("weight"),
        bias=given.tensor_or_none("bias"),
        eps=given.eps(),
    )


def _gelu(given: Parameters) -> Layer:
    return partial(functional.gelu, approximate=given.word("approximate", ("none", "tanh"), "none"))


def _plain(function: Layer, given: Parameters) -> Layer:
    return function


def _softmax(function: Callable[..., torch.Tensor], given: Parameters) -> Layer:
    return partial(function, dim=given.whole("dim", -1, -16, 15))


def _max_pool2d(given: Parameters) -> Layer:
    kernel = given.pair("kernel_size", None, 1)
    return partial(
        functional.max_pool2d,
        kernel_size=kernel,
        stride=given.pair("stride", kernel, 1),
        padding=given.pair("padding", 0, 0),
        dilation=given.pair("dilation", 1, 1),
        ceil_mode=given.flag("ceil_mode", False),
    )


def _avg_pool2d(given: Parameters) -> Layer:
    kernel = given.pair("kernel_size", None, 1)
    return partial(
        functional.avg_pool2d,
        kernel_size=kernel,
        stride=given.pair("stride", kernel, 1),
        padding=given.pair("padding", 0, 0),
        ceil_mode=given.flag("ceil_mode", False),
        count_include_pad=given.flag("count_include_pad", True),
    )


def _flatten(given: Parameters) -> Layer:
    return partial(
        torch.flatten, start_dim=given.whole("start_dim", 1, -16, 15), end_dim=given.whole("end_dim", -1, -16, 15)
    )


_OPS: dict[str, Callable[[Parameters], Layer]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "relu": partial(_plain, functional.relu),
    "gelu": _gelu,
    "tanh": partial(_plain, torch.tanh),
    "sigmoid": partial(_plain, torch.sigmoid),
    "softmax": partial(_softmax, functional.softmax),
    "log_softmax": partial(_softmax, functional.log_softmax),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "flatten": _flatten,
}
OPS = tuple(_OPS)


def mixes_rows(layer: Layer, rank: int) -> bool:
    """Whether a softmax over dimension 0 would let one caller's rows change another's in a batch."""
    if not isinstance(layer, partial) or layer.func not in (functional.softmax, functional.log_softmax):
        return False
    return bool(layer.keywords["dim"] in (0, -rank))


def takes(layer: Layer, dtype: torch.dtype) -> bool:
    """Whether a layer computes on this type; on the meta device torch does not look."""
    if not isinstance(layer, partial):
        return True
    if layer.func is functional.embedding:
        return dtype in (torch.int32, torch.int64)
    return all(one.dtype == dtype for one in layer.keywords.values() if isinstance(one, torch.Tensor))
