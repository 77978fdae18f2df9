"""What a scoring job leaves beside its report."""

import numpy as np
import pytest
from PIL import Image

from grid_node.scoring.assets import read_asset
from grid_node.scoring.port import ScoreTask
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.splats import SplatScorer
from grid_node.scoring.spz import write_spz


@pytest.fixture(scope="module")
def made(scorer, robot, tmp_path_factory):
    """Report and artifacts of the robot sent as SPZ."""
    folder = tmp_path_factory.mktemp("artifacts")
    path = folder / "sent.spz"
    with path.open("wb") as file:
        write_spz(file, robot)
    return scorer.score(path, ScoreTask("t", "a robot", 3, "text_to_3d", "spz"), folder), folder


def test_eight_previews_their_grid_and_the_other_form_are_written(made):
    report, folder = made

    names = {*(f"previews/{k}.png" for k in range(8)), "previews/grid.png", "asset.ply"}
    assert set(report.artifacts) == names
    assert all(path == folder / name and path.stat().st_size for name, path in report.artifacts.items())


def test_previews_are_512_px_on_white_with_the_object_inside(made):
    report, _ = made
    for k in range(8):
        picture = np.asarray(Image.open(report.artifacts[f"previews/{k}.png"]))
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert picture.shape == (512, 512, 3)
        assert (edge == 255).all()
        assert 0.05 < (picture.min(axis=2) < 250).mean() < 0.6


def test_the_grid_is_two_by_two_of_every_other_preview(made):
    report, _ = made
    grid = np.asarray(Image.open(report.artifacts["previews/grid.png"]))
    corners = [grid[:512, :512], grid[:512, 517:], grid[517:, :512], grid[517:, 517:]]

    assert grid.shape == (1029, 1029, 3)
    assert (grid[512:517] == 255).all()
    for corner, k in zip(corners, (0, 2, 4, 6), strict=True):
        assert (corner == np.asarray(Image.open(report.artifacts[f"previews/{k}.png"]))).all()


def test_the_other_form_keeps_the_geometry(made, robot):
    report, _ = made
    back = read_asset(report.artifacts["asset.ply"], "ply", ScoringSettings())

    assert np.abs(back.centers - robot.centers).max() <= 2**-12
    assert np.abs(back.opacity - robot.opacity).max() <= 1 / 255


def test_the_numbers_of_the_report_are_those_of_the_file(made):
    report, folder = made

    assert report.splats == 16_000
    assert report.bytes == (folder / "sent.spz").stat().st_size
    assert (report.format, report.backend, report.scorer) == ("spz", "numba", "splat-1")
    assert report.seconds > 0


def test_an_asset_that_is_judged_early_leaves_nothing(scorer, robot, tmp_path):
    flat = robot.take(np.arange(len(robot)))
    flat.centers[:, 2] *= 0.001
    path = tmp_path / "flat.spz"
    with path.open("wb") as file:
        write_spz(file, flat)

    report = scorer.score(path, ScoreTask("t", "a robot", 3, "text_to_3d", "spz"), tmp_path)

    assert (report.flags, report.reasons[0], report.artifacts) == (("stopped_early",), "flat", {})
    assert report.gates["texture"] is None
    assert report.components["quality"].status == "unavailable"


def test_the_number_and_size_of_previews_can_be_set(robot, tmp_path):
    path = tmp_path / "sent.spz"
    with path.open("wb") as file:
        write_spz(file, robot)
    small = SplatScorer(ScoringSettings(previews=4, preview_size=64))

    report = small.score(path, ScoreTask("t", "a robot", 3, "text_to_3d", "spz"), tmp_path)

    with Image.open(report.artifacts["previews/grid.png"]) as grid:
        assert grid.size == (133, 133)
    assert len(report.artifacts) == 6
