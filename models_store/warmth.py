"""Imports that torch puts off until something is first used, done while the process can still read files."""

import io
import warnings
from collections.abc import Iterable

import torch

from models_store import layers
from models_store.formats import TORCH_EXPORT, TORCHSCRIPT


class _Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def warm(formats: Iterable[str]) -> None:
    """Use once what loading and checking models of these formats needs. Starts no thread."""
    _shapes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if TORCHSCRIPT in formats:
            _torchscript()
        if TORCH_EXPORT in formats:
            _torch_export()


def _shapes() -> None:
    """Every op on the meta device, where most are Python code."""
    ones = {"weight": "one", "bias": "one", "running_mean": "one", "running_var": "one"}
    images = [
        {"op": "conv2d", "weight": "four", "bias": "one"},
        {"op": "batch_norm", **ones},
        {"op": "max_pool2d", "kernel_size": 1},
        {"op": "avg_pool2d", "kernel_size": 1},
        {"op": "flatten"},
        {"op": "layer_norm", "weight": "one", "bias": "one"},
        *[{"op": op} for op in ("relu", "gelu", "tanh", "sigmoid", "softmax", "log_softmax")],
        {"op": "linear", "weight": "two", "bias": "one"},
    ]
    words = [{"op": "embedding", "weight": "two"}]
    with torch.device("meta"), torch.inference_mode():
        weights = {"one": torch.zeros(1), "two": torch.zeros(1, 1), "four": torch.zeros(1, 1, 1, 1)}
        layers.build({"layers": images}, weights, {})(torch.zeros(2, 1, 1, 1))
        layers.build({"layers": words}, weights, {})(torch.zeros(2, 2, dtype=torch.int64))


def _torchscript() -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(_Twice(), torch.zeros(2)), file)
    file.seek(0)
    torch.jit.load(file)


def _torch_export() -> None:
    file = io.BytesIO()
    torch.export.save(torch.export.export(_Twice(), (torch.zeros(2),)), file)
    file.seek(0)
    torch.export.load(file).module()
