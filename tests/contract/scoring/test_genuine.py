"""The recipes of the reference worker are genuine: they pass, whatever the view seed."""

import pytest

pytest.importorskip("grid_client.procedural", reason="the client package is not installed")

from grid_client.procedural import build
from grid_client.splats import encode

RECIPES = ("a donut", "a table", "a tree", "a snowman", "a robot", "a sword", "a plate", "a ball")


@pytest.mark.parametrize("prompt", RECIPES)
def test_a_recipe_passes_for_every_view_seed(judge, prompt):
    data = encode(build(prompt, 3, "worker-1"), "ply")

    scores = [judge(data, seed).score for seed in (1, 2)]

    assert min(scores) >= 0.75
    assert max(scores) - min(scores) <= 0.05


def test_both_formats_of_the_client_are_read_alike(judge):
    asset = build("a robot", 5, "worker-2", splats=20_000)

    reports = [judge(encode(asset, form), said_format=form) for form in ("ply", "spz")]

    assert abs(reports[0].score - reports[1].score) <= 0.005


def test_a_worse_build_of_the_same_prompt_scores_lower(judge):
    good, poor = (judge(encode(build("a donut", 7, "worker-3", quality=q), "ply")) for q in (1.0, 0.4))

    assert poor.score < good.score
