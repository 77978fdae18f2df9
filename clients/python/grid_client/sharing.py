"""Additive secret sharing of a state dict over the ring of integers modulo 2^64. Pure functions; no node is needed.

A float x becomes the integer q = round(x * 2^p), computed in float64, `p` being the precision; integers and bools are
taken as they are. All shares of a tensor but the last are independent uniform 64-bit words of the operating system's
generator, the last is q minus their sum. So any n - 1 shares are uniform whatever the model is; names, shapes and types
are open to every holder.

Error: x * 2^p is exact (a power of two), so y = q / 2^p is within 2^-p / 2 of x. And y is a number of x's own type:
where the type's spacing at x is 2^-p or more, x is a multiple of 2^-p and y = x; where it is less, it is at most 2^-p
at y too, of which y is a multiple. Hence |y - x| <= 2^-p / 2 < 2^-p in float64, float32, float16 and bfloat16 alike.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from grid_client.shares import HOLDERS_MAX, HOLDERS_MIN, PRECISION_MAX, NotAShare, ShareHeader, checked_set, header_of
from grid_client.tensor_files import DescriptorSource, MemorySource, TensorFile, header

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
PIECE = 1 << 18
"""Elements that are worked on at a time."""

Random = Callable[[int], bytes]
"""So many unpredictable bytes: `os.urandom`, or something repeatable in a test."""
Share = bytes | Path


class ValueOutOfRange(ValueError):
    """A value is NaN, infinite or too large: |x| * 2^p must be below 2^63. `tensor` is the name of its tensor."""

    def __init__(self, tensor: str) -> None:
        super().__init__(f"tensor {tensor!r} has a value that is NaN, infinite or too large for this precision")
        self.tensor = tensor


class NotShareable(ValueError):
    """A tensor has a type that cannot be shared, or the number of holders or the precision is out of range."""


class Tensors(Protocol):
    """Named tensors, a piece at a time."""

    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def dtypes(self) -> dict[str, str]: ...

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The elements in row-major order, in tensors of one dimension."""


class StateDict:
    """Tensors in memory. Raises NotShareable."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self._state = state
        for name, tensor in state.items():
            if tensor.dtype not in NAMES or tensor.layout != torch.strided:
                raise NotShareable(f"tensor {name!r} is of a type that cannot be shared")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def dtypes(self) -> dict[str, str]:
        return {name: NAMES[tensor.dtype] for name, tensor in self._state.items()}

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        for piece in self._state[name].detach().reshape(-1).split(PIECE):
            yield piece.cpu()


class StoredTensors:
    """Tensors of a safetensors file."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: layout.shape for name, layout in self._file.layouts.items()}

    def dtypes(self) -> dict[str, str]:
        return {name: layout.dtype for name, layout in self._file.layouts.items()}

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        layout = self._file.layouts[name]
        for first in range(0, layout.count, PIECE):
            count = min(PIECE, layout.count - first)
            yield torch.frombuffer(self._file.read(name, first, count), dtype=DTYPES[layout.dtype])


class Output(Protocol):
    """Where a share is written: an open binary file."""

    def write(self, content: bytes, /) -> object: ...


def split(
    state: Mapping[str, torch.Tensor],
    holders: int,
    precision: int = 16,
    set_id: str | None = None,
    random: Random = os.urandom,
) -> list[bytes]:
    """The shares of a state dict, one safetensors file for each holder.

    Without `set_id` the set gets a random name. Raises ValueOutOfRange, NotShareable, NotAShare (for the name).
    """
    files = [io.BytesIO() for _ in range(holders)]
    split_into(StateDict(state), files, precision, set_id or random(16).hex(), random)
    return [file.getvalue() for file in files]


def split_into(
    tensors: Tensors, files: Sequence[Output], precision: int, set_id: str, random: Random = os.urandom
) -> None:
    """Write one share to each file. Takes a few pieces of memory, however large the tensors are. Raises as `split`."""
    if not HOLDERS_MIN <= len(files) <= HOLDERS_MAX or not 0 <= precision <= PRECISION_MAX:
        raise NotShareable(f"{HOLDERS_MIN} to {HOLDERS_MAX} holders and 0 to {PRECISION_MAX} bits of precision")
    shapes = tensors.shapes()
    common = ShareHeader(checked_set(set_id), 0, len(files), precision, tensors.dtypes())
    for index, file in enumerate(files):
        file.write(header(shapes, "I64", replace(common, index=index).metadata()))
    for name in shapes:
        for piece in tensors.pieces(name):
            for file, words in zip(files, shared(encoded(piece, precision, name), len(files), random), strict=True):
                file.write(words.numpy().tobytes())


def reconstruct(shares: Sequence[Share]) -> dict[str, torch.Tensor]:
    """The state dict from all shares of one set, in any order, in its own types.

    Integers and bools are as they were, floats within 2^-p / 2. Raises NotAShare when the shares are not all of one
    set, NotTensors for a damaged file. A share whose holder changed it is not noticed here: compare its sha256 first.
    """
    with _opened(shares) as files:
        first = _one_set(files)
        return {name: _summed(files, name, first) for name in first.dtypes}


def add(one: bytes, other: bytes) -> bytes:
    """The share of the sum of two models, from one holder's shares of both; every holder adds its own.

    Both need the same tensors, types, precision and place in their sets. The new set's name follows from the two
    names, so it is the same at every holder. Integers wrap around in their type; a bool is true if either was. Raises
    NotAShare, NotTensors.
    """
    files = [TensorFile(MemorySource(content)) for content in (one, other)]
    left, right = (header_of(file) for file in files)
    if replace(left, set_id=right.set_id) != right or _shapes(files[0]) != _shapes(files[1]):
        raise NotAShare("the shares are of models that cannot be added")
    name = hashlib.sha256((left.set_id + right.set_id).encode()).hexdigest()[:32]
    output = io.BytesIO()
    output.write(header(_shapes(files[0]), "I64", replace(left, set_id=name).metadata()))
    for tensor in left.dtypes:
        for pair in zip(*(StoredTensors(file).pieces(tensor) for file in files), strict=True):
            output.write((pair[0] + pair[1]).numpy().tobytes())
    return output.getvalue()


def encoded(values: torch.Tensor, precision: int, name: str = "") -> torch.Tensor:
    """`values` as int64 of the ring. Raises ValueOutOfRange, naming the tensor."""
    if values.dtype == torch.uint64:
        return values.view(torch.int64)
    if not values.dtype.is_floating_point:
        return values.to(torch.int64)
    scaled = values.to(torch.float64) * 2.0**precision
    if not bool((scaled.abs() < 2.0**63).all()):  # false for NaN too
        raise ValueOutOfRange(name)
    return scaled.round_().to(torch.int64)


def decoded(words: torch.Tensor, dtype: torch.dtype, precision: int) -> torch.Tensor:
    """Back from the ring. A sum that a float type cannot hold is rounded to it."""
    if dtype.is_floating_point:
        return (words.to(torch.float64) * 2.0**-precision).to(dtype)
    if dtype == torch.bool:
        return words != 0
    return words.view(torch.uint64) if dtype == torch.uint64 else words.to(dtype)


def shared(words: torch.Tensor, holders: int, random: Random = os.urandom) -> list[torch.Tensor]:
    """`holders` tensors that add up to `words` modulo 2^64; all but the last are uniform and independent of it."""
    masks = [uniform(words.shape, random) for _ in range(holders - 1)]
    last = words.clone()
    for mask in masks:
        last -= mask
    return [*masks, last]


def uniform(shape: Sequence[int], random: Random = os.urandom) -> torch.Tensor:
    """Uniform elements of the ring."""
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(tuple(shape), dtype=torch.int64)
    return torch.frombuffer(bytearray(random(8 * count)), dtype=torch.int64).reshape(tuple(shape))


def _shapes(file: TensorFile) -> dict[str, tuple[int, ...]]:
    return {name: layout.shape for name, layout in file.layouts.items()}


class _opened:
    """Shares as tensor files; those in files are closed at the end."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = shares
        self._descriptors: list[int] = []

    def __enter__(self) -> list[TensorFile]:
        try:
            return [self._open(share) for share in self._shares]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _open(self, share: Share) -> TensorFile:
        if isinstance(share, bytes):
            return TensorFile(MemorySource(share))
        self._descriptors.append(os.open(share, os.O_RDONLY | os.O_CLOEXEC))
        return TensorFile(DescriptorSource(self._descriptors[-1]))


def _one_set(files: Sequence[TensorFile]) -> ShareHeader:
    """What the shares have in common. Raises NotAShare unless they are all shares of one set, each once."""
    if not files:
        raise NotAShare("no shares")
    headers = [header_of(file) for file in files]
    first = headers[0]
    if any(replace(one, index=first.index) != first for one in headers) or len({_frozen(file) for file in files}) > 1:
        raise NotAShare("the shares are not of one set")
    if sorted(one.index for one in headers) != list(range(first.holders)):
        raise NotAShare(f"all {first.holders} shares of the set are needed, each once")
    return first


def _frozen(file: TensorFile) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset(_shapes(file).items())


def _summed(files: Sequence[TensorFile], name: str, common: ShareHeader) -> torch.Tensor:
    dtype = DTYPES[common.dtypes[name]]
    result = torch.empty(files[0].layouts[name].shape, dtype=dtype)
    flat, done = result.reshape(-1), 0
    for pieces in zip(*(StoredTensors(file).pieces(name) for file in files), strict=True):
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        flat[done : done + len(total)] = decoded(total, dtype, common.precision)
        done += len(total)
    return result
