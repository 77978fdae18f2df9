"""Between syft 0.9.5 and safetensors: `python -I syft_conversion.py to-safetensors|from-safetensors`.

A program for the interpreter of the extra `syft`, an environment of its own. Reading what syft wrote builds objects of
some 400 classes by name; so everything is imported first, the process confined, and only then the file is read.
The request: `{"input": descriptor, "output": descriptor, "memory", "expanded_max"}`.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))

from models_store import program
from models_store.errors import InvalidModel
from models_store.sandbox import confine, python_files

CPU_SECONDS = 600
NAMES_MAX = 100_000
NAME_MAX = 1024
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""No thread may run before the process is confined."""


class _Libraries(NamedTuple):
    torch: Any
    safetensors: Any
    unreadable: type[Exception]
    """What safetensors raises over bytes that are not its own."""
    serialize: Any
    deserialize: Any


def convert(request: dict[str, Any], way: str) -> dict[str, Any]:
    """Writes the converted file to `output`; `{"size": bytes written}`. Raises InvalidModel."""
    libraries = _libraries()
    expanded_max = request["expanded_max"]
    size = os.fstat(request["input"]).st_size
    if size > request["memory"]:
        raise InvalidModel("the file is larger than the memory of a conversion")
    confine(python_files(), request["memory"], CPU_SECONDS, threads_ok=False, file_size=2 * expanded_max + size)
    with os.fdopen(request["input"], "rb") as file, os.fdopen(request["output"], "wb") as out:
        return {"size": out.write(_WAYS[way](libraries, file.read(), expanded_max))}


def to_safetensors(libraries: _Libraries, content: bytes, expanded_max: int) -> bytes:
    tensors = _checked(libraries.torch, _read(libraries, content), expanded_max)
    del content
    return libraries.safetensors.save(_apart(tensors))


def _apart(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same, each contiguous in memory of its own: safetensors refuses to write one twice."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        alone = place not in seen and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        apart[name] = tensor if alone and tensor.is_contiguous() else tensor.contiguous().clone()
        seen.add(place)
    return apart


def from_safetensors(libraries: _Libraries, content: bytes, expanded_max: int) -> bytes:
    try:
        tensors = libraries.safetensors.load(content)
    except libraries.unreadable:
        raise InvalidModel("the file is not safetensors") from None
    if libraries.torch.bfloat16 in {tensor.dtype for tensor in tensors.values()}:
        raise InvalidModel("syft 0.9.5 has no bfloat16")
    return libraries.serialize(_checked(libraries.torch, tensors, expanded_max), to_bytes=True)


def _libraries() -> _Libraries:
    os.environ.update(_QUIET)
    import safetensors.torch  # noqa: PLC0415
    import syft  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    # imports what it needs only when it is first used
    syft.deserialize(syft.serialize({"a": torch.zeros(1)}, to_bytes=True), from_bytes=True)
    return _Libraries(torch, safetensors.torch, safetensors.SafetensorError, syft.serialize, syft.deserialize)


def _read(libraries: _Libraries, content: bytes) -> Any:
    try:
        return libraries.deserialize(content, from_bytes=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever foreign bytes make of syft's 400 classes, it is no model
        raise InvalidModel("syft 0.9.5 cannot read the bytes") from None


def _checked(torch: Any, value: Any, expanded_max: int) -> dict[str, Any]:
    """A plain dict of names and dense tensors on the CPU, of `expanded_max` bytes at most."""
    if not isinstance(value, Mapping) or len(value) > NAMES_MAX:
        raise InvalidModel("the bytes are not a mapping of names to tensors")
    tensors = dict(value)
    if not all(isinstance(name, str) and 0 < len(name) <= NAME_MAX for name in tensors):
        raise InvalidModel("the bytes are not a mapping of names to tensors")
    if not all(type(tensor) in (torch.Tensor, torch.nn.Parameter) for tensor in tensors.values()):
        raise InvalidModel("the bytes are not a mapping of names to tensors")
    dtypes = (torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16,
              torch.int32, torch.int64, torch.bfloat16)  # fmt: skip
    for tensor in tensors.values():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in dtypes:
            raise InvalidModel("a tensor is of a kind that safetensors does not hold")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > expanded_max:
        raise InvalidModel(f"the tensors are larger than {expanded_max} bytes")
    return {name: tensor.detach() for name, tensor in tensors.items()}


_WAYS = {"to-safetensors": to_safetensors, "from-safetensors": from_safetensors}

if __name__ == "__main__":
    program.answer(lambda request: convert(request, sys.argv[1]))
