"""The formats of models, and what must hold of a file before it is taken for one. Nothing is run or unpickled here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from models_store import archive, exported, safetensors_file
from models_store.archive import DEFLATED, Archive
from models_store.errors import InvalidModel
from models_store.safetensors_file import Header

SAFETENSORS = "safetensors"
TORCHSCRIPT = "torchscript"
TORCH_EXPORT = "torch_export"
SYFT = "syft-0.9.5"
OPAQUE = "opaque"
SHARE = "share"
FORMATS = (SAFETENSORS, TORCHSCRIPT, TORCH_EXPORT, SYFT, OPAQUE, SHARE)
EXECUTABLE = frozenset({TORCHSCRIPT, TORCH_EXPORT})
"""Formats with code of their own."""

SHARE_MEMBERS = ("set", "index", "holders", "precision")
HOLDERS = range(2, 17)
PRECISIONS = range(33)
_SET = re.compile(r"[0-9a-f]{32}")
_WHOLE = re.compile(r"0|[1-9][0-9]?")

CODE_MAX = 64 * 1024 * 1024
"""Bytes of all compressed entries of a TorchScript archive together."""
_CODE = re.compile(r"code/.+\.py(\.debug_pkl)?")
_TORCHSCRIPT_NAMES = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|\.data/(version|serialization_id)"
    r"|(data|constants)/[0-9]+|code/.+\.py(\.debug_pkl)?|extra/.+"
)


@dataclass(frozen=True)
class Limits:
    """Bytes of the header of a safetensors file, and tensors in it."""

    header_max: int
    tensors_max: int


@dataclass(frozen=True)
class Found:
    """`share`: the members `set`, `index`, `holders` and `precision` of a share, as they stand in the file."""

    format: str
    share: dict[str, str] = field(default_factory=dict)


def check(file: BinaryIO, size: int, declared: str | None, limits: Limits) -> Found:
    """The format of a file of `size` bytes. Raises InvalidModel if it is not of the `declared` one.

    Undeclared, it is safetensors if it is a valid file of that, else opaque. `syft-0.9.5` is not known here:
    what such bytes are shows only when they are converted.
    """
    if declared is None:
        return _undeclared(file, size, limits)
    if declared == OPAQUE:
        return Found(OPAQUE)
    return _CHECKS[declared](file, size, limits)


def of_header(header: Header, declared: str | None) -> Found:
    """The format of a safetensors file whose header was read."""
    if declared == SHARE:
        return Found(SHARE, _share(header))
    return Found(SAFETENSORS)


def _undeclared(file: BinaryIO, size: int, limits: Limits) -> Found:
    try:
        return _check_safetensors(file, size, limits)
    except InvalidModel:
        return Found(OPAQUE)


def _check_safetensors(file: BinaryIO, size: int, limits: Limits) -> Found:
    safetensors_file.read(file, size, limits.header_max, limits.tensors_max)
    return Found(SAFETENSORS)


def _check_share(file: BinaryIO, size: int, limits: Limits) -> Found:
    return of_header(safetensors_file.read(file, size, limits.header_max, limits.tensors_max), SHARE)


def _share(header: Header) -> dict[str, str]:
    said = header.metadata
    if any(entry.dtype != "I64" for entry in header.tensors.values()) or "dtypes" not in said:
        raise InvalidModel("a share is made of I64 tensors, and names their dtypes")
    members = {name: said.get(name, "") for name in SHARE_MEMBERS}
    numbers = [members["index"], members["holders"], members["precision"]]
    if not _SET.fullmatch(members["set"]) or not all(_WHOLE.fullmatch(number) for number in numbers):
        raise InvalidModel("a share says of which set it is, and its number among how many")
    index, holders, precision = map(int, numbers)
    if holders not in HOLDERS or precision not in PRECISIONS or index >= holders:
        raise InvalidModel("a share says of which set it is, and its number among how many")
    return members


def _check_torchscript(file: BinaryIO, size: int, _limits: Limits) -> Found:
    """Names and sizes alone: this is code, which only a confined process may open."""
    found = archive.read(file, size)
    if not all(_TORCHSCRIPT_NAMES.fullmatch(name) for name in found.entries):
        raise InvalidModel("the archive has a file that TorchScript does not need")
    needed = {"data.pkl", "constants.pkl"} <= found.entries.keys()
    if not needed or not any(_CODE.fullmatch(name) for name in found.entries):
        raise InvalidModel("the archive holds no TorchScript code")
    _check_compressed(file, found)
    return Found(TORCHSCRIPT)


def _check_compressed(file: BinaryIO, found: Archive) -> None:
    compressed = [entry for entry in found.entries.values() if entry.method == DEFLATED]
    if sum(entry.size for entry in compressed) > CODE_MAX:
        raise InvalidModel(f"the code is larger than {CODE_MAX} bytes")
    for entry in compressed:
        found.check_inflates(file, entry)


def _check_export(file: BinaryIO, size: int, _limits: Limits) -> Found:
    exported.check(file, size)
    return Found(TORCH_EXPORT)


_CHECKS: dict[str, Callable[[BinaryIO, int, Limits], Found]] = {
    SAFETENSORS: _check_safetensors,
    SHARE: _check_share,
    TORCHSCRIPT: _check_torchscript,
    TORCH_EXPORT: _check_export,
}
