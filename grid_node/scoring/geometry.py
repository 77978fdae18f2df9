"""What is measured on the splats themselves, without a picture."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from grid_node.scoring.camera import FOV_Y_DEGREES, RADIUS
from grid_node.scoring.scene import Scene

REACH = 1.2
"""Centres beyond this on any axis are strays and do not count."""
NEEDLE_RATIO = 20
FINE_VIEW = 1024

SAMPLE = 6_000
PLANES = 4
TRIPLES = 600
TOLERANCE = 0.004
MIN_PLANE_SHARE = 0.15
MIN_SIDE_SHARE = 0.25
MIN_ANGLE_DEGREES = 30

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def geometry_signals(scene: Scene, seed: int) -> dict[str, float]:
    """`thin`, `needle`, `px` and `cross`."""
    return {
        "thin": thin(scene),
        "needle": needle(scene),
        "px": pixel_size(scene),
        "cross": crossed_planes(scene, seed),
    }


def thin(scene: Scene) -> float:
    """Root of the smallest over the largest eigenvalue of the opacity-weighted covariance of the centres."""
    near = _near(scene)
    points = scene.centers[near].astype(np.float64)
    weights = scene.opacity[near].astype(np.float64)
    total = weights.sum()
    if not total > 0:
        return 0.0
    offset = points - weights @ points / total
    values = np.linalg.eigvalsh((offset * weights[:, None]).T @ offset / total)
    return float(np.sqrt(max(values[0], 0.0) / values[2])) if values[2] > 0 else 0.0


def needle(scene: Scene) -> float:
    """Share of the opacity in splats more than 20 times as long as wide."""
    is_needle = scene.scales[:, 2] > NEEDLE_RATIO * np.maximum(scene.scales[:, 1], 1e-30)
    opacity = scene.opacity.astype(np.float64)
    return float(opacity[is_needle].sum() / max(opacity.sum(), 1e-12))


def pixel_size(scene: Scene) -> float:
    """Median of the largest scale, in pixels of a 1024 px view at the origin's distance."""
    focal = FINE_VIEW / (2 * np.tan(np.radians(FOV_Y_DEGREES / 2)))
    return float(np.median(scene.scales[:, 2]) * focal / RADIUS)


def crossed_planes(scene: Scene, seed: int) -> float:
    """Largest share of centres in two flat sheets that cut through each other, 0 when there are none.

    Faces of a box meet at their edges: each lies on one side of the other. Crossed sheets lie on both.
    """
    points = _draw_points(scene, np.random.default_rng([seed, 2]))
    if len(points) < 3:
        return 0.0
    planes = _find_planes(points, np.random.default_rng([seed, 3]))
    crossed = 0.0
    for (normal_a, shift_a, members_a), (normal_b, shift_b, members_b) in combinations(planes, 2):
        if abs(normal_a @ normal_b) >= np.cos(np.radians(MIN_ANGLE_DEGREES)):
            continue
        sides = (
            _smaller_side(points[members_a] @ normal_b - shift_b),
            _smaller_side(points[members_b] @ normal_a - shift_a),
        )
        if min(sides) > MIN_SIDE_SHARE:
            crossed = max(crossed, (members_a.sum() + members_b.sum()) / len(points))
    return float(crossed)


def _near(scene: Scene) -> Mask:
    near: Mask = np.all(np.abs(scene.centers) < REACH, axis=1)
    return near


def _draw_points(scene: Scene, rng: np.random.Generator) -> Doubles:
    """6,000 centres, drawn by opacity."""
    near = np.flatnonzero(_near(scene))
    reached = np.cumsum(scene.opacity[near].astype(np.float64))
    if not len(near) or not reached[-1] > 0:
        return np.empty((0, 3))
    drawn = np.searchsorted(reached, rng.random(SAMPLE) * reached[-1], side="right")
    return scene.centers[near[np.minimum(drawn, len(near) - 1)]].astype(np.float64)


def _find_planes(points: Doubles, rng: np.random.Generator) -> list[tuple[Doubles, float, Mask]]:
    """Up to four planes (unit normal, shift, members) by RANSAC, the largest first."""
    free = np.ones(len(points), bool)
    planes = []
    for _ in range(PLANES):
        if free.sum() < max(3, MIN_PLANE_SHARE * len(points)):
            break
        normal, shift = _best_plane(points[free], rng)
        members = free & (np.abs(points @ normal - shift) < TOLERANCE)
        if members.sum() < MIN_PLANE_SHARE * len(points):
            break
        planes.append((normal, shift, members))
        free &= ~members
    return planes


def _best_plane(points: Doubles, rng: np.random.Generator) -> tuple[Doubles, float]:
    corners = points[rng.integers(0, len(points), (TRIPLES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(lengths > 1e-9, normals / np.maximum(lengths, 1e-9), 0.0)
    shifts = np.einsum("ij,ij->i", normals, corners[:, 0])
    distances = np.abs(points.astype(np.float32) @ normals.T.astype(np.float32) - shifts.astype(np.float32))
    votes = (distances < TOLERANCE).sum(axis=0) * (lengths[:, 0] > 1e-9)
    best = int(votes.argmax())
    return normals[best], float(shifts[best])


def _smaller_side(distances: Doubles) -> float:
    ahead = float(np.mean(distances > 0))
    return min(ahead, 1 - ahead)
