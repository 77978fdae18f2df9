"""Scorer of the kind `cog`: any file, taken as it is (standard library only).

Models of others make what they make, and nobody can judge any file: a picture, a sound, a table. So a score says no
more than that there are bytes and not too many, and one result is as good as the next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from grid_node.scoring.port import Component, InvalidAsset, Report, ScoreTask
from grid_node.scoring.settings import ScoringSettings

MAX_FILE_BYTES = 268_435_456


class FileScorer:
    """1 to 268,435,456 bytes: score 1."""

    kind = "cog"
    version = "file-1"
    score_kind = "validity"
    formats: tuple[str, ...] = ("file",)
    limits: Mapping[str, int] = MappingProxyType({"max_bytes": MAX_FILE_BYTES})

    def __init__(self, settings: ScoringSettings | None = None) -> None:
        self._threshold = (settings or ScoringSettings()).threshold

    def warm(self) -> None:
        """Nothing to load."""

    def score(self, path: Path, task: ScoreTask, artifacts: Path | None = None) -> Report:
        started = time.perf_counter()
        size = path.stat().st_size
        if task.format not in self.formats:
            raise InvalidAsset("format_mismatch", f"a file is sent as file, not as {task.format}")
        if not size:
            raise InvalidAsset("blank", "the file is empty")
        if size > MAX_FILE_BYTES:
            raise InvalidAsset("too_large", f"more than {MAX_FILE_BYTES} bytes")
        return Report(
            score=1.0,
            accepted=True,
            threshold=self._threshold,
            score_kind=self.score_kind,
            scorer=self.version,
            components={"validity": Component(1.0)},
            format=task.format,
            bytes=size,
            view_seed=task.seed,
            seconds=time.perf_counter() - started,
        )
