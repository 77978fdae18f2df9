"""The bytes of a model that is to be served: given as they are, in a file, or as a state dict."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from grid_client.arrays import SAFETENSORS, content, type_name

PIECE = 1024 * 1024
MEMORY = 64 * 1024 * 1024
"""Bytes of a state dict above which it is written to a temporary file."""

Model = bytes | str | os.PathLike[str] | Mapping[str, Any]
"""Bytes, the path of a file, or a state dict of numpy arrays or torch tensors."""


class ModelBytes:
    """`size` bytes with their `sha256`, read from any place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        digest, self.size = hashlib.sha256(), 0
        file.seek(0)
        while piece := file.read(PIECE):
            digest.update(piece)
            self.size += len(piece)
        self.sha256 = digest.hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


@contextmanager
def opened(model: Model) -> Iterator[ModelBytes]:
    """Raises OSError for a file that cannot be read, ValueError for a state dict that cannot be written."""
    with _file(model) as file:
        yield ModelBytes(file)


@contextmanager
def _file(model: Model) -> Iterator[BinaryIO]:
    if isinstance(model, str | os.PathLike):
        with Path(model).open("rb") as found:
            yield found
        return
    with tempfile.SpooledTemporaryFile(max_size=MEMORY) as file:
        if isinstance(model, bytes):
            file.write(model)
        else:
            write_state_dict(model, file)  # type: ignore[arg-type]
        yield file  # type: ignore[misc]


def write_state_dict(state: Mapping[str, Any], file: BinaryIO) -> None:
    """As a safetensors file: header length, JSON header, then the tensors in order of falling element size.

    That order keeps each tensor aligned to its element, as the package `safetensors` has it. Raises ValueError.
    """
    order = sorted(state.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {}
    end = 0
    for name, value in order:
        begin, end = end, end + _size(name, value)
        entry = {"dtype": SAFETENSORS[type_name(value)], "shape": list(value.shape), "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, value in order:
        file.write(content(value))


def _size(name: object, value: Any) -> int:
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError("a tensor of a state dict needs a name of its own")
    count = 1
    for length in value.shape:
        count *= int(length)
    return count * int(value.dtype.itemsize)
