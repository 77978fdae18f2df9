"""Surfaces that are sampled evenly: solids of revolution and boxes, placed in space.

Samples lie on rings (revolution) or grids (box) one `spacing` apart and jittered, which leaves no gap larger
than about 1.5 spacings; independent random points would leave gaps of several. The vertical axis is +Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
JITTER = 0.22
"""Random shift of a sample along the surface, in spacings."""


class Surface(Protocol):
    @property
    def area(self) -> float: ...

    def sample(self, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Points (n, 3) and outward unit normals (n, 3), about area / spacing**2 of them."""
        ...


@dataclass(frozen=True)
class Revolution:
    """The profile (radius, height), a polyline with the outside on its right, turned around the Y axis."""

    profile: Array

    @property
    def area(self) -> float:
        radius, _ = self.profile.T
        return float(np.sum(np.pi * (radius[1:] + radius[:-1]) * self._lengths()))

    def sample(self, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        ring, angle = self._rings(spacing, rng)
        along = np.concatenate([[0.0], np.cumsum(self._lengths())])
        jittered = np.clip(ring + rng.uniform(-JITTER, JITTER, len(ring)) * spacing, 0.0, along[-1])
        radius = np.interp(jittered, along, self.profile[:, 0])
        height = np.interp(jittered, along, self.profile[:, 1])
        segment = np.clip(np.searchsorted(along, jittered) - 1, 0, len(self.profile) - 2)
        outward = self._normals()[segment]
        cos, sin = np.cos(angle), np.sin(angle)
        points = np.stack([radius * cos, height, radius * sin], axis=1)
        normals = np.stack([outward[:, 0] * cos, outward[:, 1], outward[:, 0] * sin], axis=1)
        return points, normals

    def _lengths(self) -> Array:
        lengths: Array = np.linalg.norm(np.diff(self.profile, axis=0), axis=1)
        return lengths

    def _normals(self) -> Array:
        """Per segment (radial, vertical): the direction of the profile turned clockwise."""
        step = np.diff(self.profile, axis=0) / np.maximum(self._lengths(), 1e-12)[:, None]
        return np.stack([step[:, 1], -step[:, 0]], axis=1)

    def _rings(self, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """For every sample the arc length of its ring along the profile and its angle."""
        along = np.concatenate([[0.0], np.cumsum(self._lengths())])
        count = max(2, int(np.ceil(along[-1] / spacing)))
        centre = (np.arange(count) + 0.5) * along[-1] / count
        radius = np.interp(centre, along, self.profile[:, 0])
        members = np.maximum(1, np.ceil(2 * np.pi * radius / spacing)).astype(int)
        first = np.repeat(np.cumsum(members) - members, members)
        index = np.arange(members.sum()) - first
        phase = np.repeat(rng.uniform(0, 1, count), members)
        wobble = rng.uniform(-JITTER, JITTER, len(index))
        angle = 2 * np.pi * (index + phase + wobble) / np.repeat(members, members)
        return np.repeat(centre, members), angle


@dataclass(frozen=True)
class Box:
    """An axis-aligned box around the origin with the given half sides."""

    half: tuple[float, float, float]

    @property
    def area(self) -> float:
        x, y, z = self.half
        return 8.0 * (x * y + y * z + z * x)

    def sample(self, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        faces = [self._face(axis, side, spacing, rng) for axis in range(3) for side in (-1.0, 1.0)]
        return np.concatenate([p for p, _ in faces]), np.concatenate([n for _, n in faces])

    def _face(self, axis: int, side: float, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        first, second = (a for a in range(3) if a != axis)
        u = _cells(self.half[first], spacing)
        v = _cells(self.half[second], spacing)
        grid = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = grid + rng.uniform(-JITTER, JITTER, grid.shape) * spacing
        points = np.empty((len(grid), 3))
        points[:, axis] = side * self.half[axis]
        points[:, first] = np.clip(grid[:, 0], -self.half[first], self.half[first])
        points[:, second] = np.clip(grid[:, 1], -self.half[second], self.half[second])
        normals = np.zeros_like(points)
        normals[:, axis] = side
        return points, normals


def _cells(half: float, spacing: float) -> Array:
    """Middles of equal cells of at most one spacing on [-half, half]."""
    count = max(1, int(np.ceil(2 * half / spacing)))
    middles: Array = np.asarray((np.arange(count) + 0.5) * (2 * half / count) - half, dtype=np.float64)
    return middles


@dataclass(frozen=True)
class Placed:
    """A surface stretched along its axes (by at most 1, lest gaps appear), turned and moved."""

    surface: Surface
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: Array = field(default_factory=lambda: np.eye(3))
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def area(self) -> float:
        return self.surface.area

    def sample(self, spacing: float, rng: np.random.Generator) -> tuple[Array, Array]:
        points, normals = self.surface.sample(spacing, rng)
        normals = normals / np.array(self.stretch)
        unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        placed = (points * np.array(self.stretch)) @ self.turn.T + np.array(self.at)
        return placed, unit @ self.turn.T


def ball(radius: float, height: float | None = None) -> Revolution:
    """A sphere, or a spheroid when the half height differs from the radius."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 65)
    tall = radius if height is None else height
    return Revolution(np.stack([radius * np.cos(angle), tall * np.sin(angle)], axis=1))


def ring(radius: float, tube: float) -> Revolution:
    """A torus lying flat: `radius` to the middle of the tube of radius `tube`."""
    angle = np.linspace(0, 2 * np.pi, 97)
    return Revolution(np.stack([radius + tube * np.cos(angle), tube * np.sin(angle)], axis=1))


def cone(bottom: float, top: float, height: float) -> Revolution:
    """A closed frustum (cylinder if both radii are equal) standing on y = 0."""
    return lathe([(0, 0), (bottom, 0), (top, height), (0, height)])


def lathe(profile: Sequence[tuple[float, float]]) -> Revolution:
    """A solid of revolution from (radius, height) points, from below upwards along its outside."""
    return Revolution(np.array(profile, dtype=np.float64))


def rotation(axis: Sequence[float], angle: float) -> Array:
    """Rotation matrix (3, 3) around an axis, radians (Rodrigues)."""
    x, y, z = np.array(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix
