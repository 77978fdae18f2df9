"""Arithmetic on shares, in processes of their own. Files are open and have no name: nothing outlives the node."""

import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from grid_node.compute import oneshot
from grid_node.errors import ComputeUnavailable, InferenceTimeout, InvalidPayload
from grid_node.settings import Settings

MEMORY = 2 * 1024 * 1024 * 1024


class Ring:
    """`folder` is where files lie that have no name."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder

    def file(self) -> BinaryIO:
        """An empty file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._folder, buffering=0)

    def triple(self, rows: int, inputs: int, outputs: int, holders: int) -> list[BinaryIO]:
        """One part for each holder."""
        parts = [self.file() for _ in range(holders)]
        named = {"rows": rows, "inputs": inputs, "outputs": outputs, "parts": [part.fileno() for part in parts]}
        self._run("triple", named, parts)
        return parts

    def mask(self, share: BinaryIO, weight: str, part: BinaryIO, x: BinaryIO) -> BinaryIO:
        """d and e of this holder. Raises InvalidPayload."""
        out = self.file()
        named = {"share": share.fileno(), "part": part.fileno(), "input": x.fileno(), "out": out.fileno()}
        self._run("mask", named | {"weight": weight}, [share, part, x, out])
        return out

    def finish(
        self, share: BinaryIO, bias: str | None, precision: int, first: bool, part: BinaryIO, opened: BinaryIO
    ) -> BinaryIO:
        """This holder's share of the outputs. Raises InvalidPayload."""
        out = self.file()
        named = {"share": share.fileno(), "part": part.fileno(), "input": opened.fileno(), "out": out.fileno()}
        more = {"bias": bias, "precision": precision, "first": first}
        self._run("finish", named | more, [share, part, opened, out])
        return out

    def _run(self, work: str, request: dict[str, Any], files: list[BinaryIO]) -> None:
        limits = {"work": work, "memory": MEMORY, "cpu_seconds": int(self._settings.infer_timeout) + 1}
        descriptors = [file.fileno() for file in files]
        try:
            command, deadline = oneshot.module("ring"), self._settings.infer_timeout
            answer = oneshot.run(command, request | limits, deadline, descriptors)
        except oneshot.ProgramFailed as error:
            raise InferenceTimeout() if error.late else ComputeUnavailable(retry_after=1) from None
        if "refused" in answer:
            raise InvalidPayload(fields={"_schema": [str(answer.get("reason", ""))]})
