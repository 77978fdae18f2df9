"""Archives of torch.export (`.pt2`), looked through before torch sees them.

Loading one runs whatever its author put into any of seven places (pickled sample inputs, pickled weights, pickled
constants, sizes, guards, names of operators, native libraries). This filter takes archives of one program over raw
tensors and nothing else; it keeps honest mistakes and known attacks away. What holds against the rest is the process
in which torch then loads it (`models_store.sandbox`).
"""

import io
import re
import struct
from typing import BinaryIO

from models_store import archive
from models_store.archive import STORED, Archive
from models_store.errors import InvalidModel
from models_store.exported_program import check_payload, check_program

PROGRAM_MAX = 64 * 1024 * 1024
CONFIG_MAX = 64 * 1024 * 1024
PROGRAM = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
_CONFIGS = {WEIGHTS: WEIGHTS + "model_weights_config.json", CONSTANTS: CONSTANTS + "model_constants_config.json"}
_FIXED = {"archive_format": (b"pt2",), "archive_version": (b"0",), "byteorder": (b"little",)}
_NAMES = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_[0-9]+|model_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]+|model_constants_config\.json)"
    r"|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
)


def check(file: BinaryIO, size: int) -> Archive:
    """Raises InvalidModel for an archive that is not one program of torch 2.13 over raw tensors."""
    found = archive.read(file, size)
    for name, entry in found.entries.items():
        if not _NAMES.fullmatch(name):
            raise InvalidModel("the archive has a file that an exported program does not need")
        if entry.method != STORED:
            raise InvalidModel("an entry of the archive is packed in a way that torch does not use")
    for name, contents in _FIXED.items():
        if found.content(file, name, 16) not in contents:
            raise InvalidModel(f"{name} is not that of an exported program")
    if SAMPLES not in found.entries:
        raise InvalidModel(f"the archive lacks {SAMPLES}")
    check_program(found.content(file, PROGRAM, PROGRAM_MAX))
    for folder, config in _CONFIGS.items():
        _check_payload(found, folder, found.content(file, config, CONFIG_MAX))
    return found


def working_copy(file: BinaryIO, size: int) -> io.RawIOBase:
    """The checked archive as torch may load it: the pickled sample inputs read as empty. Nothing is copied."""
    found = check(file, size)
    return _Overlaid(file, [(found.entries[SAMPLES].record + 16, struct.pack("<3I", 0, 0, 0))])


def _check_payload(found: Archive, folder: str, config: bytes) -> None:
    for payload in check_payload(config).values():
        entry = found.entries.get(folder + payload.get("path_name", ""))
        if entry is None or not entry.name.rpartition("/")[2].startswith(("weight_", "tensor_")):
            raise InvalidModel("a tensor is not in the archive")
        # torch makes zeros for a file without bytes, as many as the shape says
        if entry.size == 0 and {"as_int": 0} not in payload["tensor_meta"].get("sizes", []):
            raise InvalidModel("a tensor does not have the bytes that its shape needs")


class _Overlaid(io.RawIOBase):
    """A file in which some bytes read as others. `patches`: offset and bytes."""

    def __init__(self, file: BinaryIO, patches: list[tuple[int, bytes]]) -> None:
        self._file = file
        self._patches = patches
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        start = self._file.tell()
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        for offset, patch in self._patches:
            begin, end = max(offset, start), min(offset + len(patch), start + count)
            if begin < end:
                buffer[begin - start : end - start] = patch[begin - offset : end - offset]
        return count
