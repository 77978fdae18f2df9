"""A state dict out of a safetensors file, mapped into memory and not copied.

Layout: https://huggingface.co/docs/safetensors, "Format". The package `safetensors` opens files by path only, and a
confined process has none: it is given an open descriptor.
"""

import json
import mmap
import os
from math import prod
from typing import Any

import torch

from models_store.dtypes import BY_SAFETENSORS
from models_store.errors import InvalidModel

HEADER_MAX = 100 * 1024 * 1024
"""Bytes, as in the package; the node's own limit was applied when the file was served."""


def load(descriptor: int) -> dict[str, torch.Tensor]:
    """The tensors of the file, which share one private mapping of it: pages are read when they are first used.

    The descriptor may be closed afterwards. Raises InvalidModel.
    """
    header, start, size = _header(descriptor)
    if size == start:
        return {name: _empty(entry, size - start) for name, entry in header.items()}
    mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    return {name: _view(mapped, start, entry, size - start) for name, entry in header.items()}


def shapes(descriptor: int) -> dict[str, torch.Tensor]:
    """The same tensors on torch's meta device: shapes and types, no bytes. Raises InvalidModel."""
    header, start, size = _header(descriptor)
    with torch.device("meta"):
        return {name: _empty(entry, size - start) for name, entry in header.items()}


def _header(descriptor: int) -> tuple[dict[str, Any], int, int]:
    """Entries by name, where the data begins, and the size of the file."""
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or not 2 <= length <= min(size - 8, HEADER_MAX):
        raise InvalidModel("the header of the file is damaged")
    try:
        header = json.loads(os.pread(descriptor, length, 8))
    except (ValueError, RecursionError) as error:
        raise InvalidModel("the header of the file is no JSON") from error
    if not isinstance(header, dict):
        raise InvalidModel("the header of the file is no object")
    header.pop("__metadata__", None)
    return header, 8 + length, size


def _layout(entry: Any, available: int) -> tuple[torch.dtype, list[int], int]:
    """Type, shape and first byte of one tensor, which lies inside the data."""
    try:
        dtype, shape = BY_SAFETENSORS[entry["dtype"]], list(entry["shape"])
        begin, end = entry["data_offsets"]
        fits = 0 <= begin <= end <= available and all(type(one) is int and 0 <= one < 2**62 for one in shape)
        if not fits or prod(shape) * dtype.itemsize != end - begin:
            raise InvalidModel("a tensor lies outside the file")
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidModel("a tensor is not described") from error
    return dtype, shape, begin


def _empty(entry: Any, available: int) -> torch.Tensor:
    dtype, shape, _ = _layout(entry, available)
    try:
        return torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        raise InvalidModel("a shape is out of range") from error


def _view(mapped: mmap.mmap, start: int, entry: Any, available: int) -> torch.Tensor:
    dtype, shape, begin = _layout(entry, available)
    count = prod(shape)
    if count == 0:
        return _empty(entry, available)
    flat = torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + begin)
    return aligned(flat).reshape(shape)


def aligned(flat: torch.Tensor) -> torch.Tensor:
    """`flat`, or a copy of it when its first element lies at an odd address."""
    return flat.clone() if flat.data_ptr() % flat.element_size() else flat
