"""What the reference generator builds, judged by the node's own scorer."""

from pathlib import Path

import pytest
from grid_client.procedural import build
from grid_client.recipes import RECIPES
from grid_client.splats import encode

from grid_node.scoring.port import Report, ScoreTask
from grid_node.scoring.splats import SplatScorer


@pytest.fixture(scope="module")
def scorer() -> SplatScorer:
    return SplatScorer()


def score(scorer: SplatScorer, folder: Path, fmt: str, prompt: str, *, seed: int, quality: float) -> Report:
    path = folder / f"asset.{fmt}"
    path.write_bytes(encode(build(prompt, seed, f"worker-{seed}", quality=quality), fmt))
    return scorer.score(path, ScoreTask("t", prompt, 1000 + seed, "text_to_3d", fmt))


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_every_recipe_passes_with_distance(scorer: SplatScorer, tmp_path: Path, kind: str) -> None:
    report = score(scorer, tmp_path, "ply", f"a {kind}", seed=1, quality=1.0)
    assert report.score >= 0.8, report.reasons


def test_dark_colours_pass_too(scorer: SplatScorer, tmp_path: Path) -> None:
    report = score(scorer, tmp_path, "spz", "a navy black robot", seed=2, quality=1.0)
    assert report.score >= 0.75, report.reasons


def test_worse_quality_scores_lower(scorer: SplatScorer, tmp_path: Path) -> None:
    scores = [score(scorer, tmp_path, "spz", "a tree", seed=3, quality=quality).score for quality in (1.0, 0.7, 0.4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2] + 0.05
