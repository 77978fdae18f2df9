"""Scorer of the kind `text`: valid or not, judged in microseconds (standard library only)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from grid_node.scoring.port import Component, InvalidAsset, Report, ScoreTask
from grid_node.scoring.settings import ScoringSettings

MAX_TEXT_BYTES = 65_536


class TextScorer:
    """UTF-8, 1 to 65,536 bytes, not blank, not the prompt itself: score 1."""

    kind = "text"
    version = "text-1"
    score_kind = "validity"
    formats: tuple[str, ...] = ("text",)
    limits: Mapping[str, int] = MappingProxyType({"max_bytes": MAX_TEXT_BYTES})

    def __init__(self, settings: ScoringSettings | None = None) -> None:
        self._threshold = (settings or ScoringSettings()).threshold

    def warm(self) -> None:
        """Nothing to load."""

    def score(self, path: Path, task: ScoreTask, artifacts: Path | None = None) -> Report:
        with path.open("rb") as file:
            return self.judge(file.read(MAX_TEXT_BYTES + 1), task)

    def judge(self, data: bytes, task: ScoreTask) -> Report:
        """The report on `data`; raises InvalidAsset."""
        started = time.perf_counter()
        if task.format not in self.formats:
            raise InvalidAsset("format_mismatch", f"a text is sent as text, not as {task.format}")
        _check_text(data, task.prompt)
        return Report(
            score=1.0,
            accepted=True,
            threshold=self._threshold,
            score_kind=self.score_kind,
            scorer=self.version,
            components={"validity": Component(1.0)},
            format="text",
            bytes=len(data),
            view_seed=task.seed,
            seconds=time.perf_counter() - started,
        )


def _check_text(data: bytes, prompt: str) -> None:
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidAsset("too_large", f"more than {MAX_TEXT_BYTES} bytes of text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidAsset("bad_encoding", f"not UTF-8 at byte {error.start}") from error
    if not text.strip():
        raise InvalidAsset("blank", "the text is empty")
    if text.strip().casefold() == prompt.strip().casefold():
        raise InvalidAsset("prompt_repeated", "the text is the prompt itself")
