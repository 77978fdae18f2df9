"""A state dict out of a safetensors file, mapped into memory and not copied.

The package `safetensors` opens files by path only, and a confined process has none: it is given an open descriptor.
"""

import mmap
import os
from math import prod

import torch

from models_store import safetensors_file
from models_store.dtypes import BY_SAFETENSORS
from models_store.errors import InvalidModel
from models_store.safetensors_file import LENGTH_BYTES, Entry, Header

HEADER_MAX = 100 * 1024 * 1024
"""Bytes, as in the package; the node's own limits were applied when the file was served."""
TENSORS_MAX = 1_000_000


def load(descriptor: int) -> dict[str, torch.Tensor]:
    """The tensors of the file, which share one private mapping of it: pages are read when they are first used.

    The descriptor may be closed afterwards. Raises InvalidModel.
    """
    header, size = _header(descriptor)
    mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    return {name: _view(mapped, header.data_start, entry) for name, entry in header.tensors.items()}


def shapes(descriptor: int) -> dict[str, torch.Tensor]:
    """The same tensors on torch's meta device: shapes and types, no bytes. Raises InvalidModel."""
    header, _ = _header(descriptor)
    with torch.device("meta"):
        return {name: _empty(entry) for name, entry in header.tensors.items()}


def _header(descriptor: int) -> tuple[Header, int]:
    """The header, and the size of the file."""
    size = os.fstat(descriptor).st_size
    length = safetensors_file.header_length(os.pread(descriptor, LENGTH_BYTES, 0), size, HEADER_MAX)
    text = os.pread(descriptor, length, LENGTH_BYTES)
    return safetensors_file.parse(text, size - LENGTH_BYTES - length, TENSORS_MAX), size


def _dtype(entry: Entry) -> torch.dtype:
    dtype = BY_SAFETENSORS.get(entry.dtype)
    if dtype is None:
        raise InvalidModel(f"tensors of type {entry.dtype} do not run here")
    return dtype


def _empty(entry: Entry) -> torch.Tensor:
    try:
        return torch.empty(entry.shape, dtype=_dtype(entry))
    except RuntimeError as error:
        raise InvalidModel("a shape is out of range") from error


def _view(mapped: mmap.mmap, start: int, entry: Entry) -> torch.Tensor:
    count = prod(entry.shape)
    if count == 0:
        return _empty(entry)
    flat = torch.frombuffer(mapped, dtype=_dtype(entry), count=count, offset=start + entry.begin)
    return aligned(flat).reshape(entry.shape)


def aligned(flat: torch.Tensor) -> torch.Tensor:
    """`flat`, or a copy of it when its first element lies at an odd address."""
    return flat.clone() if flat.data_ptr() % flat.element_size() else flat
