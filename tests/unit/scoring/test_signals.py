"""Signals on pictures whose answer is known."""

import numpy as np
import pytest
import torch

from grid_node.scoring.cloud import Floats
from grid_node.scoring.filters import closing, dilate, erode, local_statistics, ssim
from grid_node.scoring.geometry import crossed_planes, needle, pixel_size, thin
from grid_node.scoring.scene import Scene
from grid_node.scoring.signals import hole, outline_signals, view_signals


def square(side: int = 60, size: int = 100, value: float = 1.0) -> Floats:
    alpha = np.zeros((size, size), np.float32)
    start = (size - side) // 2
    alpha[start : start + side, start : start + side] = value
    return alpha


def grey(size: int = 100) -> Floats:
    return np.full((size, size, 3), 0.5, np.float32)


def test_a_solid_square_has_its_coverage_and_nothing_else():
    assert outline_signals(square()) == {"coverage": 0.36, "border": 0, "soft": 0, "haze": 0}


def test_a_faint_square_is_soft_and_haze():
    signals = outline_signals(square(value=0.4))

    assert (signals["soft"], signals["haze"], signals["coverage"]) == (1, 1, 0)


def test_a_soft_rim_of_two_pixels_is_no_haze():
    alpha = np.maximum(square(60), square(64, value=0.5))

    assert outline_signals(alpha)["haze"] == 0
    assert outline_signals(np.maximum(square(60), square(66, value=0.5)))["haze"] > 0


def test_a_full_picture_touches_the_whole_border():
    assert outline_signals(square(100))["border"] == 1


def test_only_gaps_narrower_than_the_closing_are_holes():
    alpha = square()
    alpha[48:52, 48:52] = 0
    wide = square()
    wide[40:60, 40:60] = 0

    assert hole(alpha) == pytest.approx(16 / 3600)
    assert hole(wide) == 0


def test_white_noise_loses_24_of_25_parts_to_a_box():
    color = np.random.default_rng(1).random((200, 200, 3)).astype(np.float32)

    signals = view_signals(color, square(180, 200))

    assert signals["hf"] == pytest.approx(0.96, abs=0.01)
    assert signals["std"] == pytest.approx(0.5, abs=0.01)  # sqrt(3 / 12)
    assert signals["entropy"] > 4


def test_a_plain_asset_has_no_detail_and_its_edge_is_none():
    signals = view_signals(grey() + np.float32(0.3) * square()[..., None], square())

    assert (signals["std"], signals["hf"], signals["grad"]) == pytest.approx((0, 0, 0), abs=1e-6)
    assert signals["entropy"] == pytest.approx(0, abs=1e-9)


def test_a_ramp_has_its_gradient():
    color = np.repeat(np.tile(np.arange(100, dtype=np.float32) / 200, (100, 1))[..., None], 3, axis=2)

    assert view_signals(color, square())["grad"] == pytest.approx(1 / 200, rel=1e-3)


def test_a_view_without_any_deep_pixel_has_no_texture():
    assert "std" not in view_signals(grey(), square(6))


def test_ssim_of_equal_pictures_is_one_and_of_noise_is_low():
    rng = np.random.default_rng(2)
    first, second = (local_statistics(torch.from_numpy(rng.random((64, 64), np.float32))) for _ in range(2))

    assert ssim(first, first) == pytest.approx(1)
    assert ssim(first, second) < 0.1


def test_morphology_keeps_the_picture_size_and_edges():
    image = torch.from_numpy(square(100))

    assert torch.equal(dilate(image, 9), image)
    assert torch.equal(erode(image, 9), image)
    assert torch.equal(closing(image, 9), image)


def sheet_scene(*normals: tuple[float, float, float], count: int = 9_000) -> Scene:
    """Square sheets through the origin, 1.5 wide."""
    rng = np.random.default_rng(3)
    parts = []
    for normal in normals:
        basis = np.linalg.svd(np.array([normal]))[2][1:]
        parts.append(rng.uniform(-0.75, 0.75, (count // len(normals), 2)) @ basis)
    centers = np.concatenate(parts).astype(np.float32)
    scales = np.tile(np.array([0.01, 0.02, 0.03], np.float32), (len(centers), 1))
    return Scene(
        centers,
        np.zeros((len(centers), 6), np.float32),
        np.ones(len(centers), np.float32),
        np.ones_like(centers),
        scales,
    )


def test_a_sheet_is_thin_and_not_crossed():
    scene = sheet_scene((0, 0, 1))

    assert thin(scene) == pytest.approx(0, abs=1e-4)
    assert crossed_planes(scene, 1) == 0


@pytest.mark.parametrize("normals", [((1, 0, 0), (0, 0, 1)), ((1, 0, 0), (1, 0, 1), (0, 1, 1))])
def test_crossed_sheets_are_found(normals):
    scene = sheet_scene(*normals)

    assert thin(scene) > 0.1
    assert crossed_planes(scene, 1) > 0.6


def test_the_faces_of_a_box_do_not_cross():
    rng = np.random.default_rng(4)
    points = rng.uniform(-0.7, 0.7, (12_000, 3))
    points[np.arange(12_000), rng.integers(0, 3, 12_000)] = rng.choice([-0.7, 0.7], 12_000)
    scene = sheet_scene((0, 0, 1), count=12_000)
    box = Scene(points.astype(np.float32), scene.covariances, scene.opacity, scene.colors, scene.scales)

    assert crossed_planes(box, 1) == 0


def test_needles_are_counted_by_opacity():
    scene = sheet_scene((0, 0, 1), count=4)
    scene.scales[0] = (0.001, 0.001, 0.03)
    scene.opacity[0] = 0.5

    assert needle(scene) == pytest.approx(0.5 / 3.5)


def test_pixel_size_is_that_of_a_1024_px_view():
    assert pixel_size(sheet_scene((0, 0, 1))) == pytest.approx(0.03 * 1024 / (2 * np.tan(np.radians(24.55))) / 2.5)
