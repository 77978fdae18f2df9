"""Genuine procedural assets: what junk is made from, and what a check renders. No file, no client needed.

A shape is surfaces (ellipsoids, frustums, boxes, tori) sampled evenly by area, each sample a flat disc along the
surface whose size follows the area that it stands for, with a colour pattern and light from above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grid_node.scoring.cloud import SH_C0, SplatCloud

Doubles = npt.NDArray[np.float64]
Rgb = tuple[float, float, float]

LIGHT = np.array([0.4, 0.8, 0.45])
DISC_SIZE = 0.75
"""Standard deviation of a disc, in square roots of the area it stands for."""
DISC_FLATNESS = 0.9
OPACITY = 0.95
R2 = np.array([0.7548776662466927, 0.5698402909980532])
"""Steps of the two-dimensional golden-ratio sequence: even cover without a grid."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Maps (n, 2) numbers of 0..1 to points and unit normals (n, 3), even by area."""

    area: float
    sample: Callable[[Doubles], tuple[Doubles, Doubles]]
    color: Rgb
    stripe: Rgb
    waves: float = 20.0
    """Stripes a unit length; the pattern is a function of position."""


def sphere(centre: Rgb, radius: float, color: Rgb, stripe: Rgb) -> Surface:
    def sample(uv: Doubles) -> tuple[Doubles, Doubles]:
        y, angle = 2 * uv[:, 1] - 1, 2 * np.pi * uv[:, 0]
        ring = np.sqrt(1 - y * y)
        normals = np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], axis=1)
        return np.array(centre) + radius * normals, normals

    return Surface(4 * np.pi * radius**2, sample, color, stripe)


def frustum(base: Rgb, height: float, radii: tuple[float, float], color: Rgb, stripe: Rgb) -> Surface:
    """The side of an upright cone with these radii at bottom and top."""
    low, high = radii
    slant = float(np.hypot(height, low - high))

    def sample(uv: Doubles) -> tuple[Doubles, Doubles]:
        widths = np.sqrt(low**2 + uv[:, 1] * (high**2 - low**2))
        share = uv[:, 1] if low == high else (widths - low) / (high - low)
        angle = 2 * np.pi * uv[:, 0]
        out = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
        points = np.array(base) + out * widths[:, None]
        points[:, 1] += share * height
        return points, (out * height + np.array([0, low - high, 0])) / slant

    return Surface(np.pi * (low + high) * slant, sample, color, stripe)


def box(centre: Rgb, sides: Rgb, color: Rgb, stripe: Rgb) -> Surface:
    size = np.array(sides)
    faces = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]]).repeat(2)
    edges = np.cumsum(faces) / faces.sum()

    def sample(uv: Doubles) -> tuple[Doubles, Doubles]:
        face = np.minimum(np.searchsorted(edges, uv[:, 0], side="right"), 5)
        first = np.concatenate([[0.0], edges])[face]
        along = (uv[:, 0] - first) / (edges[face] - first)
        axis, sign = face // 2, np.where(face % 2, 1.0, -1.0)
        rows = np.arange(len(uv))
        normals = np.zeros((len(uv), 3))
        normals[rows, axis] = sign
        unit = np.zeros((len(uv), 3))
        unit[rows, axis] = sign / 2
        unit[rows, (axis + 1) % 3] = along - 0.5
        unit[rows, (axis + 2) % 3] = uv[:, 1] - 0.5
        return np.array(centre) + unit * size, normals

    return Surface(float(faces.sum()), sample, color, stripe)


def torus(ring: float, tube: float, color: Rgb, stripe: Rgb) -> Surface:
    def sample(uv: Doubles) -> tuple[Doubles, Doubles]:
        around = 2 * np.pi * uv[:, 0]
        turn = _even_turns(uv[:, 1], tube / ring)
        out = np.stack([np.cos(around), np.zeros_like(around), np.sin(around)], axis=1)
        normals = out * np.cos(turn)[:, None]
        normals[:, 1] = np.sin(turn)
        return out * ring + normals * tube, normals

    return Surface(4 * np.pi**2 * ring * tube, sample, color, stripe)


def _even_turns(share: Doubles, ratio: float) -> Doubles:
    """Angles around the tube with a density of 1 + ratio·cos: solve Kepler's equation by iteration."""
    mean = 2 * np.pi * share
    turn = mean.copy()
    for _ in range(30):
        turn = mean - ratio * np.sin(turn)
    return turn


def robot() -> list[Surface]:
    steel, blue, dark, red = (0.75, 0.77, 0.8), (0.15, 0.35, 0.75), (0.2, 0.2, 0.25), (0.85, 0.2, 0.15)
    limbs = [frustum((side * 0.2, -0.85, 0.0), 0.5, (0.12, 0.09), blue, dark) for side in (-1, 1)] + [
        frustum((side * 0.5, -0.2, 0.0), 0.55, (0.08, 0.1), steel, red) for side in (-1, 1)
    ]
    return [
        box((0.0, 0.05, 0.0), (0.7, 0.75, 0.4), blue, steel),
        box((0.0, 0.68, 0.0), (0.42, 0.38, 0.36), steel, dark),
        sphere((-0.1, 0.72, 0.2), 0.06, red, dark),
        sphere((0.1, 0.72, 0.2), 0.06, red, dark),
        *limbs,
    ]


def donut() -> list[Surface]:
    return [torus(0.6, 0.27, (0.82, 0.55, 0.3), (0.9, 0.35, 0.6))]


def tree() -> list[Surface]:
    bark, shade, leaf, light = (0.4, 0.25, 0.12), (0.25, 0.15, 0.08), (0.1, 0.4, 0.12), (0.45, 0.65, 0.2)
    crowns = [frustum((0.0, -0.3 + 0.38 * k, 0.0), 0.62, (0.6 - 0.15 * k, 0.02), leaf, light) for k in range(3)]
    floors = [_disc(-0.3 + 0.38 * k, 0.6 - 0.15 * k, leaf, shade) for k in range(3)]
    return [frustum((0.0, -0.9, 0.0), 0.62, (0.15, 0.11), bark, shade), *crowns, *floors]


def _disc(height: float, radius: float, color: Rgb, stripe: Rgb) -> Surface:
    """The underside of a crown."""

    def sample(uv: Doubles) -> tuple[Doubles, Doubles]:
        reach, angle = radius * np.sqrt(uv[:, 1]), 2 * np.pi * uv[:, 0]
        points = np.stack([reach * np.cos(angle), np.full(len(uv), height), reach * np.sin(angle)], axis=1)
        return points, np.tile([0.0, -1.0, 0.0], (len(uv), 1))

    return Surface(np.pi * radius**2, sample, color, stripe)


SHAPES: dict[str, Callable[[], list[Surface]]] = {"robot": robot, "donut": donut, "tree": tree}


def build(shape: str, splats: int = 40_000, seed: int = 0) -> SplatCloud:
    """A shape of SHAPES with exactly `splats` splats."""
    surfaces = SHAPES[shape]()
    areas = np.array([surface.area for surface in surfaces])
    ends = np.rint(np.cumsum(areas) / areas.sum() * splats).astype(int)
    counts = np.diff(ends, prepend=0)
    rng = np.random.default_rng([seed, 7])
    disc = DISC_SIZE * float(np.sqrt(areas.sum() / splats))
    parts = [_cover(*pair, rng, disc) for pair in zip(surfaces, counts, strict=True)]
    columns = [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]
    return SplatCloud(*columns)


def _cover(surface: Surface, count: int, rng: np.random.Generator, disc: float) -> tuple[Doubles, ...]:
    uv = (rng.random(2) + np.arange(count)[:, None] * R2) % 1.0
    points, normals = surface.sample(uv)
    colors = _paint(surface, points, normals, rng)
    scales = np.tile(np.log([disc, disc, disc * DISC_FLATNESS]), (count, 1))
    return points, (colors - 0.5) / SH_C0, np.full(count, OPACITY), scales, _turn_to(normals)


def _paint(surface: Surface, points: Doubles, normals: Doubles, rng: np.random.Generator) -> Doubles:
    """Stripes, light from above, and a little grain."""
    wave = np.sin(surface.waves * points @ np.array([1.0, 1.7, 0.6])) * np.sin(surface.waves * 0.8 * points[:, 2])
    mix = 1 / (1 + np.exp(-12 * wave))[:, None]
    base = np.array(surface.color) * (1 - mix) + np.array(surface.stripe) * mix
    light = 0.45 + 0.55 * np.clip(normals @ LIGHT, -0.4, 1)[:, None]
    return np.clip(base * light + rng.normal(0, 0.015, (len(points), 1)), 0.02, 0.98)


def _turn_to(normals: Doubles) -> Doubles:
    """Quaternions w, x, y, z that turn +Z to the normals."""
    half = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=1)
    half[normals[:, 2] < -0.9999] = [0.0, 1.0, 0.0, 0.0]
    return half / np.linalg.norm(half, axis=1, keepdims=True)
