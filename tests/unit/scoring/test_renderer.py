"""The renderers: the camera's convention, the closed form of one splat, numba against the reference."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from grid_node.scoring import raster, reference, shapes
from grid_node.scoring.camera import RADIUS, Camera, judged_views, preview_views
from grid_node.scoring.cloud import SH_C0, SplatCloud
from grid_node.scoring.scene import Scene, build_scene
from grid_node.scoring.sorting import canonical

RENDERERS = [pytest.param(raster.render, id="numba"), pytest.param(reference.render, id="torch")]


def scene_of(centers, colors, sigma: float = 0.02, opacity: float = 0.9) -> Scene:
    """Round splats in world units, not normalised."""
    count = len(centers)
    variance = np.float32(sigma**2)
    return Scene(
        centers=np.array(centers, np.float32),
        covariances=np.tile(np.array([1, 0, 0, 1, 0, 1], np.float32) * variance, (count, 1)),
        opacity=np.full(count, opacity, np.float32),
        colors=np.array(colors, np.float32),
        scales=np.full((count, 3), sigma, np.float32),
    )


AXES = scene_of(np.eye(3) * 0.6, np.eye(3))


def place(image: np.ndarray, channel: int) -> tuple[float, float]:
    """Centre of one colour as (right, up) of the image's middle, px."""
    weights = image[..., channel] * (image.argmax(axis=2) == channel)
    rows, columns = np.indices(weights.shape)
    middle = image.shape[0] / 2 - 0.5
    return (
        float((columns * weights).sum() / weights.sum() - middle),
        float(middle - (rows * weights).sum() / weights.sum()),
    )


@pytest.mark.parametrize("render", RENDERERS)
def test_azimuth_0_looks_from_plus_z(render):
    image, _ = render(AXES, Camera(0, 0, 64), 0.0)

    assert place(image, 0)[0] > 10  # red +X to the right
    assert place(image, 1)[1] > 10  # green +Y up
    assert place(image, 2) == pytest.approx((0, 0), abs=0.5)  # blue +Z towards us


@pytest.mark.parametrize("render", RENDERERS)
def test_azimuth_90_looks_from_plus_x(render):
    image, _ = render(AXES, Camera(90, 0, 64), 0.0)

    assert place(image, 0) == pytest.approx((0, 0), abs=0.5)
    assert place(image, 1)[1] > 10
    assert place(image, 2)[0] < -10  # blue +Z to the left


def test_a_higher_camera_sees_the_near_side_lower():
    image, _ = raster.render(AXES, Camera(0, 40, 64), 0.0)

    assert place(image, 2)[1] < -5


def test_up_axis_minus_y_turns_the_world_about_x():
    image, _ = raster.render(AXES, Camera(0, 0, 64, "-Y"), 0.0)

    assert place(image, 0)[0] > 10
    assert place(image, 1)[1] < -10


@pytest.mark.parametrize("render", RENDERERS)
def test_one_splat_is_its_gaussian(render):
    """A round splat at the origin: variance = (focal · sigma / 2.5)² + 0.3 px²."""
    camera, sigma, opacity = Camera(30, 20, 64), 0.15, 0.8
    _, alpha = render(scene_of([[0, 0, 0]], [[1, 1, 1]], sigma, opacity), camera, 0.0)

    variance = (camera.focal * sigma / RADIUS) ** 2 + 0.3
    steps = np.arange(64) + 0.5 - 32
    expected = opacity * np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * variance))
    expected[expected < 1 / 255] = 0
    assert np.abs(alpha - expected).max() < 1e-5


@pytest.mark.parametrize("render", RENDERERS)
def test_the_nearer_of_two_splats_covers_the_farther(render):
    scene = scene_of([[0, 0, -0.5], [0, 0, 0.5]], [[1, 0, 0], [0, 0, 1]], 0.1, 0.999)

    front, _ = render(scene, Camera(0, 0, 65), 0.0)
    back, _ = render(scene, Camera(180, 0, 65), 0.0)

    assert front[32, 32] == pytest.approx([0, 0, 0.999], abs=2e-3)
    assert back[32, 32] == pytest.approx([0.999, 0, 0], abs=2e-3)


@pytest.mark.parametrize("shape", ["robot", "donut", "tree"])
def test_numba_equals_the_reference(shape):
    cloud = shapes.build(shape, 2_500)
    rng = np.random.default_rng(5)
    long = replace(cloud, log_scales=cloud.log_scales + rng.normal(0, 0.8, cloud.log_scales.shape).astype(np.float32))
    scene = build_scene(canonical(long))

    for camera in judged_views(9, 64)[0:16:6]:
        color, alpha = raster.render(scene, camera, 0.5)
        true_color, true_alpha = reference.render(scene, camera, 0.5)
        assert np.abs(color - true_color).max() <= 1e-4
        assert np.abs(alpha - true_alpha).max() <= 1e-4


def test_binning_in_small_runs_gives_the_same_picture(monkeypatch):
    scene = build_scene(shapes.build("donut", 2_000))
    camera = Camera(10, 20, 100)
    whole, _ = raster.render(scene, camera, 1.0)
    splats, spans, depths = raster._project(
        scene.centers, scene.covariances, scene.opacity, scene.colors, camera.matrix(), camera.focal, 100
    )
    order = raster.radix_order(depths, 32)
    image, clear = np.zeros((100, 100, 3), np.float32), np.ones((100, 100), np.float32)
    python = raster._composite.py_func
    monkeypatch.setattr(raster, "MAX_ENTRIES", 300)
    monkeypatch.setattr(raster, "_count_run", raster._count_run.py_func)
    python(splats, spans, order, image, clear)

    assert np.abs(image + clear[..., None] - whole).max() < 1e-6


def test_splats_behind_outside_or_monstrous_do_no_harm():
    scene = scene_of([[0, 0, 9], [50, 0, 0], [0, 0, 2.495], [3e8, -3e8, 1], [0, 0, 0]], np.ones((5, 3)))
    scene.covariances[3] *= 1e30

    color, alpha = raster.render(scene, Camera(0, 0, 32), 0.5)

    assert np.isfinite(color).all()
    assert alpha[16, 16] > 0.5


def test_the_sixteen_views_follow_from_the_seed():
    views = judged_views(77, 256)
    ring, high, low = views[:12], views[12:14], views[14:]

    assert views == judged_views(77, 256) != judged_views(78, 256)
    assert {round(b.azimuth - a.azimuth, 9) for a, b in pairwise(ring)} == {30}
    assert len({view.elevation for view in ring}) == 1
    assert 0 <= ring[0].azimuth < 30
    assert 10 <= ring[0].elevation <= 25
    assert all(50 <= view.elevation <= 75 for view in high)
    assert all(-50 <= view.elevation <= -20 for view in low)
    assert len({view.azimuth for view in high + low}) == 4


def test_previews_go_around_at_15_degrees():
    views = preview_views(8, 512)

    assert [view.azimuth for view in views] == [0, 45, 90, 135, 180, 225, 270, 315]
    assert {(view.elevation, view.size) for view in views} == {(15, 512)}


def test_the_box_is_centred_and_its_longest_side_is_one_and_a_half(cloud: SplatCloud):
    scene = build_scene(replace(cloud, centers=cloud.centers * 40 + np.array([5, -300, 7], np.float32)))
    low, high = np.quantile(scene.centers, (0.01, 0.99), axis=0)

    assert (high - low).max() == pytest.approx(1.5, rel=0.1)
    assert np.abs(low + high).max() < 0.15


def test_colours_follow_the_zeroth_harmonic_and_are_cut_at_black(cloud: SplatCloud):
    scene = build_scene(replace(cloud, f_dc=np.linspace(-9, 9, cloud.f_dc.size, dtype=np.float32).reshape(-1, 3)))

    assert scene.colors.min() == 0
    assert scene.colors.max() == pytest.approx(0.5 + 9 * SH_C0)
