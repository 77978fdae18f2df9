"""Cameras: the convention, and the views of rule version `splat-1`.

World: right-handed, +Y up. Azimuth 0 looks from +Z at the origin with +X to the right; azimuth 90 looks from +X with
+Z to the left. Camera axes: x right, y down, z forward, so pixel (0, 0) is the upper left one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RADIUS = 2.5
FOV_Y_DEGREES = 49.1
NEAR = 0.01
RING_VIEWS = 12
PREVIEW_ELEVATION = 15.0

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Camera:
    """A square view of `size` px from `radius` 2.5; angles in degrees."""

    azimuth: float
    elevation: float
    size: int
    up_axis: str = "+Y"

    @property
    def focal(self) -> float:
        """Focal length, px."""
        return self.size / 2 / np.tan(np.radians(FOV_Y_DEGREES / 2))

    def matrix(self) -> Doubles:
        """World to camera, (3, 4): rotation and translation."""
        azimuth, elevation = np.radians(self.azimuth), np.radians(self.elevation)
        outward = np.array(
            [
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
                np.cos(elevation) * np.cos(azimuth),
            ]
        )
        right = np.array([np.cos(azimuth), 0.0, -np.sin(azimuth)])
        down = np.cross(-outward, right)
        rotation = np.stack([right, down, -outward])
        if self.up_axis == "-Y":
            rotation = rotation * np.array([1.0, -1.0, -1.0])  # turn the world by 180 degrees about X
        return np.concatenate([rotation, [[0.0], [0.0], [RADIUS]]], axis=1)

    def resized(self, size: int) -> Camera:
        return Camera(self.azimuth, self.elevation, size, self.up_axis)


def judged_views(seed: int, size: int, up_axis: str = "+Y") -> list[Camera]:
    """The 16 views of a view seed: a ring of 12, two from above, two from below."""
    rng = np.random.default_rng([seed, 1])
    offset, ring_elevation = rng.uniform(0, 30), rng.uniform(10, 25)
    angles = [(offset + 30.0 * k, ring_elevation) for k in range(RING_VIEWS)]
    for low, high in ((50, 75), (50, 75), (-50, -20), (-50, -20)):
        angles.append((rng.uniform(0, 360), rng.uniform(low, high)))
    return [Camera(float(azimuth), float(elevation), size, up_axis) for azimuth, elevation in angles]


def preview_views(count: int, size: int, up_axis: str = "+Y") -> list[Camera]:
    """Views evenly around the asset at 15 degrees, the first from the front."""
    return [Camera(360.0 * k / count, PREVIEW_ELEVATION, size, up_axis) for k in range(count)]
