"""Shares in processes of their own: splitting a model, and reading the header of a share that has a long one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from grid_node.compute import oneshot
from grid_node.errors import InvalidModel, SharePlacementFailed, ValueOutOfRange
from grid_node.settings import Settings
from models_store import errors, share_header

MEMORY = 1024 * 1024 * 1024
"""Bytes of a program beyond torch itself; splitting goes through a model in pieces of a few MiB."""
HEADER_SECONDS = 30.0
LONG_HEADER = 1024 * 1024
"""Bytes; what is longer is not parsed in this process."""


@dataclass(frozen=True)
class SplitShare:
    """A share in an open file that has no name."""

    descriptor: int
    sha256: str
    size: int


class Splitting:
    """`folder` is on the disk that has room for shares: each is up to eight times as large as the model."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder

    @contextlib.contextmanager
    def split(
        self, model: Path, holders: int, precision: int, set_id: str, deadline: float
    ) -> Iterator[list[SplitShare]]:
        """The shares of a safetensors file, for the length of the block; nothing of them outlives the process.

        `deadline` in seconds. Raises InvalidModel, ValueOutOfRange, SharePlacementFailed.
        """
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(model.open("rb")).fileno()
            files = [self._nameless(stack) for _ in range(holders)]
            request = {
                "file": source,
                "shares": files,
                "set": set_id,
                "precision": precision,
                "memory": MEMORY,
                "cpu_seconds": int(deadline) + 1,
                "header_max": self._settings.safetensors_header_max,
            }
            found = _run("sharing", request, [source, *files], deadline)
            yield [SplitShare(file, one["sha256"], one["size"]) for file, one in zip(files, found, strict=True)]

    def describe(self, share: Path) -> dict[str, Any]:
        """`share_id`, `set` and `precision` of a share. Raises InvalidModel."""
        with share.open("rb") as file:
            long = int.from_bytes(os.pread(file.fileno(), 8, 0), "little") > LONG_HEADER
            header_max = self._settings.safetensors_header_max
            if not long:
                return _described(file.fileno(), header_max)
            request = {"file": file.fileno(), "header_max": header_max, "memory": MEMORY, "cpu_seconds": 30}
            described: dict[str, Any] = _run("share_header", request, [file.fileno()], HEADER_SECONDS)
            return described

    def _nameless(self, stack: contextlib.ExitStack) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(tempfile.TemporaryFile(dir=self._folder)).fileno()


def _described(descriptor: int, header_max: int) -> dict[str, Any]:
    try:
        return share_header.described(descriptor, header_max)
    except errors.InvalidModel as error:
        raise InvalidModel(reason=str(error)) from None


def _run(name: str, request: dict[str, Any], descriptors: list[int], deadline: float) -> Any:
    try:
        answer = oneshot.run(oneshot.module(name), request, deadline, descriptors)
    except oneshot.ProgramFailed:
        raise SharePlacementFailed("The shares could not be made") from None
    if "refused" in answer:
        _refuse(answer["refused"], str(answer.get("reason", "")))
    return answer["done"]


def _refuse(kind: str, reason: str) -> NoReturn:
    if kind == errors.ValueOutOfRange.__name__:
        raise ValueOutOfRange(tensor=reason)
    raise InvalidModel(reason=reason)
