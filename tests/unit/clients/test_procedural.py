import numpy as np
import pytest
from grid_client.procedural import build
from grid_client.recipes import RECIPES, recipe_for
from grid_client.splats import SH_C0

KINDS = sorted(RECIPES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_recipe_builds_a_solid_of_20_to_50_thousand_finite_splats(kind: str) -> None:
    splats = build(f"a {kind}", 7, "worker-1")
    assert 20_000 <= len(splats) <= 50_000
    for array in (splats.centers, splats.f_dc, splats.opacity, splats.scales, splats.rotations):
        assert np.isfinite(array).all()
    extent = np.ptp(splats.centers, axis=0)
    assert extent.min() > 0.1 * extent.max()
    np.testing.assert_allclose(np.linalg.norm(splats.rotations, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_build_the_same_asset(kind: str) -> None:
    first, second = build(kind, 3, "a"), build(kind, 3, "a")
    assert first.centers.tobytes() == second.centers.tobytes()
    assert first.f_dc.tobytes() == second.f_dc.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_two_identities_never_build_equal_geometry(kind: str) -> None:
    first, second = build(kind, 3, "a"), build(kind, 3, "b")
    rows = {row.tobytes() for row in np.round(first.centers, 3)}
    shared = sum(row.tobytes() in rows for row in np.round(second.centers, 3))
    assert shared < 0.01 * len(second)


def test_prompt_and_seed_matter_too() -> None:
    base = build("a robot", 1, "a").centers
    assert base.tobytes() != build("a robot", 2, "a").centers.tobytes()
    assert base.tobytes() != build("a robot", None, "a").centers.tobytes()
    assert base.tobytes() != build("the robot", 1, "a").centers.tobytes()


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("two Doughnuts, please", "donut"),
        ("an oak desk", "tree"),
        ("a robot holding a sword", "robot"),
        ("SNOWMAN!", "snowman"),
        ("a dish of pasta", "plate"),
    ],
)
def test_the_first_known_word_chooses_the_recipe(prompt: str, kind: str) -> None:
    assert recipe_for(prompt) == kind


def test_unknown_words_choose_one_by_their_hash() -> None:
    chosen = {recipe_for(f"thing number {word}") for word in "abcdefghijklmnopqrstuvwxyz"}
    assert len(chosen) > 4
    assert recipe_for("Donald Duck") == recipe_for("donald  duck")
    assert recipe_for("雪だるま") in RECIPES


def test_a_colour_of_the_prompt_is_seen() -> None:
    def mean_colour(prompt: str) -> np.ndarray:
        return (0.5 + SH_C0 * build(prompt, 1, "a").f_dc).mean(axis=0)

    red, blue = mean_colour("a red ball"), mean_colour("a blue ball")
    assert red[0] > blue[0] + 0.1
    assert blue[2] > red[2] + 0.1


def test_lower_quality_means_fewer_and_larger_splats() -> None:
    best, worse = build("a tree", 1, "a"), build("a tree", 1, "a", quality=0.6)
    assert len(worse) < 0.7 * len(best)
    assert np.median(worse.scales) > np.median(best.scales)


@pytest.mark.parametrize("quality", [0.0, -1.0, 1.1, float("nan")])
def test_quality_outside_its_range_is_refused(quality: float) -> None:
    with pytest.raises(ValueError, match="quality"):
        build("a ball", 1, "a", quality=quality)
