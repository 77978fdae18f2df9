"""The program that computes on shares: `python -m models_store.ring`. Arithmetic modulo 2^64, by numpy's int64.

A matrix triple is u, v and z = u v, shared out like a model (D. Beaver, "Efficient Multiparty Protocols Using Circuit
Randomization", 1991). Requests name open files: `{"work", "memory", "cpu_seconds", ...}` and what `_triple`, `_mask`
and `_finish` take. Answers: null. Refuses with InvalidModel.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from grid_client.tensor_files import DescriptorSource, NotTensors, TensorFile, header
from numpy.typing import NDArray

from models_store import program
from models_store.errors import InvalidModel
from models_store.sandbox import confine, python_files

Words = NDArray[np.int64]
FILE_MAX = 1024 * 1024 * 1024


def _triple(request: dict[str, Any]) -> None:
    """One part to each of `parts`: u [rows, inputs], v [inputs, outputs], z [rows, outputs]."""
    rows, inputs, outputs = (request[name] for name in ("rows", "inputs", "outputs"))
    u, v = _uniform(rows, inputs), _uniform(inputs, outputs)
    rest = {"u": u, "v": v, "z": u @ v}
    for descriptor in request["parts"][1:]:
        part = {name: _uniform(*words.shape) for name, words in rest.items()}
        rest = {name: words - part[name] for name, words in rest.items()}
        _write(descriptor, part)
    _write(request["parts"][0], rest)


def _mask(request: dict[str, Any]) -> None:
    """d = x - u and e = weight^T - v of this holder, from its `input`, `share` and `part`, to `out`."""
    x = _read(request["input"], "x")
    weight, part = _read(request["share"], request["weight"]).T, _part(request["part"])
    if x.shape != part["u"].shape or weight.shape != part["v"].shape:
        raise InvalidModel("the triple is not of the shapes of input and weight")
    _write(request["out"], {"d": x - part["u"], "e": weight - part["v"]})


def _finish(request: dict[str, Any]) -> None:
    """This holder's share of x weight^T + bias, with 2 * precision bits behind the point, to `out`.

    With d and e of all holders together: x w = (d + u)(e + v) = d e + d v + u e + z; the first holder adds d e.
    """
    d, e = _read(request["input"], "d"), _read(request["input"], "e")
    part = _part(request["part"])
    if d.shape != part["u"].shape or e.shape != part["v"].shape:
        raise InvalidModel("d and e are not of the shapes of the triple")
    y = d @ part["v"] + part["u"] @ e + part["z"]
    if request["first"]:
        y = y + d @ e
    if request["bias"] is not None:
        bias = _read(request["share"], request["bias"])
        if bias.shape != y.shape[1:]:
            raise InvalidModel("the bias is not as long as an output")
        y = y + (bias << np.int64(request["precision"]))
    _write(request["out"], {"y": y})


_WORK = {"triple": _triple, "mask": _mask, "finish": _finish}


def _run(request: dict[str, Any]) -> None:
    confine(python_files(), request["memory"], request["cpu_seconds"], file_size=FILE_MAX)
    try:
        _WORK[request["work"]](request)
    except NotTensors as error:
        raise InvalidModel(str(error)) from None


def _uniform(*shape: int) -> Words:
    count = int(np.prod(shape))
    return np.frombuffer(os.urandom(8 * count), dtype="<i8").reshape(shape)


def _part(descriptor: int) -> dict[str, Words]:
    return {name: _read(descriptor, name) for name in ("u", "v", "z")}


def _read(descriptor: int, name: str) -> Words:
    file = TensorFile(DescriptorSource(descriptor))
    layout = file.layouts.get(name)
    if layout is None or layout.dtype != "I64":
        raise InvalidModel(f"there is no tensor {name!r} of type I64")
    return np.frombuffer(file.read(name, 0, layout.count), dtype="<i8").reshape(layout.shape)


def _write(descriptor: int, tensors: Mapping[str, Words]) -> None:
    shapes = {name: words.shape for name, words in tensors.items()}
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(header(shapes, "I64", {}))
        for words in tensors.values():
            file.write(words.astype("<i8").tobytes())


if __name__ == "__main__":
    program.answer(_run)
