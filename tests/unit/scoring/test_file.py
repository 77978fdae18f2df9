"""The kind `cog`: any file is taken as it is, for nobody can judge any file."""

from pathlib import Path

import pytest

from grid_node.scoring import file as files
from grid_node.scoring.file import FileScorer
from grid_node.scoring.kinds import KINDS
from grid_node.scoring.port import InvalidAsset, ScoreTask
from grid_node.scoring.settings import ScoringSettings

TASK = ScoreTask("t", "a red chair", 7, "cog", "file")


@pytest.mark.parametrize("content", [b"a red chair", b"\0", bytes(range(256)) * 300], ids=["prompt", "nul", "binary"])
def test_every_file_has_the_same_score(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "asset"
    path.write_bytes(content)
    report = FileScorer(ScoringSettings(threshold=1.0)).score(path, TASK)
    assert (report.score, report.accepted, report.reasons, report.bytes) == (1.0, True, (), len(content))
    assert (report.scorer, report.format, report.view_seed) == ("file-1", "file", 7)


@pytest.mark.parametrize(
    ("size", "form", "reason"), [(0, "file", "blank"), (11, "file", "too_large"), (5, "ply", "format_mismatch")]
)
def test_what_is_no_file_of_the_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, form: str, reason: str
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    path = tmp_path / "asset"
    path.write_bytes(b"x" * size)
    with pytest.raises(InvalidAsset) as caught:
        FileScorer().score(path, ScoreTask("t", "a red chair", 7, "cog", form))
    assert caught.value.reason == reason


def test_the_kind_is_judged_in_a_job_process() -> None:
    spec = KINDS["cog"]
    assert (spec.formats, spec.inline, spec.max_bytes) == (("file",), False, 268_435_456)
    assert isinstance(spec.load(ScoringSettings()), FileScorer)
