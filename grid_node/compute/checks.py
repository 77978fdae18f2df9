"""Whether bytes are the model that they are said to be. The node itself looks at small headers alone."""

import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid_node.blobs.disk import disk_errors, make_folder, remove
from grid_node.blobs.store import Offload
from grid_node.compute import oneshot
from grid_node.compute.oneshot import ProgramFailed
from grid_node.errors import ComputeUnavailable, InvalidModel, ModelFormatNotAvailable
from grid_node.settings import Settings
from models_store import archive, errors, formats, program, safetensors_file

INLINE_MAX = 64 * 1024
"""Bytes of a header that is read in the node; parsing it takes some milliseconds at most."""
DEADLINE = 60.0
MEMORY = 1024 * 1024 * 1024
"""Bytes that a check may take; a header of 16 MiB takes 150 MiB."""
CHECKS_TOGETHER = 2
CONVERSIONS_TOGETHER = 1
"""Programs that work at the same time; others wait their turn, at most as long as they might work."""
RETRY_AFTER = 5
"""Seconds after which a busy node may be asked again."""
_CONVERSION = Path(formats.__file__).resolve().with_name("syft_conversion.py")


@dataclass(frozen=True)
class Checked:
    """What the bytes are.

    `derived`: a safetensors file made of them, on which inference works; it belongs to the caller, who adopts or
    deletes it. `share`: the members `set`, `index`, `holders` and `precision` of a share.
    """

    format: str
    derived: Path | None = None
    share: Mapping[str, str] = field(default_factory=dict)


class Checks:
    """Safe to call from several threads. Needs no database, no torch and no syft in this process."""

    def __init__(self, settings: Settings, offload: Offload) -> None:
        self._settings = settings
        self._offload = offload
        self._limits = formats.Limits(settings.safetensors_header_max, settings.safetensors_tensors_max)
        self._checking = threading.BoundedSemaphore(CHECKS_TOGETHER)
        self._converting = threading.BoundedSemaphore(CONVERSIONS_TOGETHER)
        self._folder = settings.data_dir.resolve() / "tmp"

    def check(self, path: Path, size: int, declared: str | None) -> Checked:
        """The format of a local file of `size` bytes, which must be the `declared` one if there is one.

        Raises InvalidModel with a `reason`; ModelFormatNotAvailable for code that the operator does not let run and
        for syft without its extra; ComputeUnavailable when no program answers in time.
        """
        if declared in formats.EXECUTABLE and declared not in self._settings.formats_with_code:
            raise ModelFormatNotAvailable
        if declared == formats.SYFT:
            return Checked(formats.SYFT, self.convert_syft(path))
        if declared == formats.OPAQUE:
            return Checked(formats.OPAQUE)
        with disk_errors():
            found = self._offload(_look, path, size, declared, self._limits)
        if isinstance(found, errors.InvalidModel):
            raise InvalidModel(reason=str(found))
        found = found or self._by_program(path, size, declared)
        return Checked(found.format, share=found.share)

    def convert_syft(self, path: Path) -> Path:
        """The mapping of names to tensors in a file of syft 0.9.5 as a new safetensors file, the caller's to keep.

        Raises ModelFormatNotAvailable without the extra, InvalidModel for everything that does not turn out to be
        such a mapping within the limits of time, memory and size.
        """
        return self._convert("to-safetensors", path)

    def to_syft(self, path: Path) -> Path:
        """The way back: a safetensors file as syft 0.9.5 would write it. Errors as of `convert_syft`."""
        return self._convert("from-safetensors", path)

    def sweep(self, older_than: float) -> None:
        """Delete what conversions left that a crash cut short, last written before `older_than` (epoch seconds)."""
        self._offload(_sweep, self._folder, older_than)

    def _by_program(self, path: Path, size: int, declared: str | None) -> formats.Found:
        request = {
            "size": size,
            "format": declared,
            "header_max": self._limits.header_max,
            "tensors_max": self._limits.tensors_max,
            "memory": MEMORY,
        }
        try:
            with self._opened(path) as file, _turn(self._checking, DEADLINE):
                said = _run(oneshot.module("tools", "check"), request, DEADLINE, {"file": file})
            if declared is None and said.get("refused") == program.OUT_OF_MEMORY:
                return formats.Found(formats.OPAQUE)
            return formats.Found(**_done(said))
        except ProgramFailed as failure:
            return _unchecked(declared, failure)

    def _convert(self, way: str, path: Path) -> Path:
        settings = self._settings
        if not settings.syft_python:
            raise ModelFormatNotAvailable
        request = {"memory": settings.syft_memory, "expanded_max": settings.syft_expanded_max}
        command = [settings.syft_python, "-I", str(_CONVERSION), way]
        target = self._folder / f"converted-{uuid.uuid4().hex}"
        try:
            with self._opened(path) as file, self._made(target) as out:
                files = {"input": file, "output": out}
                with _turn(self._converting, settings.syft_timeout):
                    _done(_run(command, request, settings.syft_timeout, files))
        except ProgramFailed:
            self._offload(remove, target)
            raise InvalidModel(reason="the conversion takes more time or memory than is allowed") from None
        except BaseException:
            self._offload(remove, target)
            raise
        return target

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        with disk_errors():
            file = self._offload(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _made(self, path: Path) -> Iterator[int]:
        with disk_errors():
            self._offload(make_folder, self._folder, self._folder.parent)
            file = self._offload(os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield file
        finally:
            os.close(file)


@contextmanager
def _turn(turns: threading.BoundedSemaphore, longest: float) -> Iterator[None]:
    if not turns.acquire(timeout=longest):
        raise ComputeUnavailable(retry_after=RETRY_AFTER)
    try:
        yield
    finally:
        turns.release()


def _run(command: Sequence[str], request: dict[str, Any], deadline: float, files: dict[str, int]) -> dict[str, Any]:
    said = oneshot.run(command, {**request, **files}, deadline, tuple(files.values()))
    if not isinstance(said, dict):
        raise ProgramFailed("the program speaks nonsense")
    return said


def _unchecked(declared: str | None, failure: ProgramFailed) -> formats.Found:
    """What follows when the program that checks did not answer: a busy node, or bytes that ended it."""
    if failure.late:
        raise ComputeUnavailable(retry_after=RETRY_AFTER) from None
    if declared is None:
        return formats.Found(formats.OPAQUE)
    raise InvalidModel(reason="checking it takes more than is allowed") from None


def _look(
    path: Path, size: int, declared: str | None, limits: formats.Limits
) -> formats.Found | errors.InvalidModel | None:
    """What can be told at once; None if it takes a program. Runs off the hub, so an error is returned, not raised."""
    with path.open("rb") as file:
        first = file.read(safetensors_file.LENGTH_BYTES)
        if declared in formats.EXECUTABLE:
            return None if first.startswith(archive.BEGINNING) else errors.InvalidModel("the file is not an archive")
        try:
            if safetensors_file.header_length(first, size, limits.header_max) > INLINE_MAX:
                return None
            return formats.check(file, size, declared, limits)
        except errors.InvalidModel as error:
            return error if declared else formats.Found(formats.OPAQUE)


def _done(said: Mapping[str, Any]) -> Any:
    """What a program did. Raises InvalidModel if it refused the bytes."""
    if "done" in said:
        return said["done"]
    if isinstance(said.get("reason"), str):
        raise InvalidModel(reason=said["reason"])
    raise ProgramFailed("the program speaks nonsense")


def _sweep(folder: Path, older_than: float) -> None:
    for path in folder.glob("converted-*"):
        try:
            if path.stat().st_mtime < older_than:
                path.unlink()
        except FileNotFoundError:
            continue
