"""From a valid cloud to what the renderers draw: normalised centres, covariances, colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from grid_node.scoring.cloud import BOX_SHARES, SH_C0, Floats, SplatCloud, robust_box
from grid_node.scoring.sorting import float_keys, radix_order
from grid_node.scoring.validity import MAX_SCALE_TO_EXTENT

SIDE = 1.5
"""Longest side of the normalised box, world units."""
WEIGHT_QUANTILE = 0.99
MIN_LOG_SCALE = -30.0


@dataclass(frozen=True, slots=True)
class Scene:
    """N splats in world units, the asset's box centred at the origin with its longest side at 1.5.

    centers (N, 3) · covariances (N, 6) as xx, xy, xz, yy, yz, zz · opacity (N,) 0..1 · colors (N, 3) >= 0 ·
    scales (N, 3) ascending standard deviations. All float32, contiguous.
    """

    centers: Floats
    covariances: Floats
    opacity: Floats
    colors: Floats
    scales: Floats

    def __len__(self) -> int:
        return len(self.centers)


def build_scene(cloud: SplatCloud) -> Scene:
    """Normalise a valid cloud; the opacity is untouched, far and transparent splats change nothing."""
    low, high = robust_box(cloud.centers)
    largest_log = np.log(MAX_SCALE_TO_EXTENT * max(float((high - low).max()), 1e-9))
    scales = np.exp(np.clip(cloud.log_scales.astype(np.float32), MIN_LOG_SCALE, largest_log))
    ordered = np.sort(scales, axis=1)
    centre, factor = _placement(cloud, ordered)
    return Scene(
        centers=((cloud.centers.astype(np.float64) - centre) * factor).astype(np.float32),
        covariances=_covariances(scales * np.float32(factor), cloud.rotations),
        opacity=np.ascontiguousarray(cloud.opacity),
        colors=np.maximum(np.float32(0), np.float32(0.5) + np.float32(SH_C0) * cloud.f_dc),
        scales=ordered * np.float32(factor),
    )


def _placement(cloud: SplatCloud, scales: Floats) -> tuple[npt.NDArray[np.float64], float]:
    """Centre of the weighted box, and the factor that brings its longest side to 1.5."""
    area = cloud.opacity.astype(np.float64) * scales[:, 1] * scales[:, 2]
    weights = np.minimum(area, np.quantile(area, WEIGHT_QUANTILE))
    if not weights.sum() > 0:
        weights = np.ones(len(cloud))
    low, high = np.array([_weighted_quantiles(axis, weights) for axis in cloud.centers.T]).T
    return (low + high) / 2, SIDE / max(float((high - low).max()), 1e-9)


def _weighted_quantiles(values: Floats, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values below which the two shares BOX_SHARES of the weight lie."""
    order = radix_order(float_keys(values), 32)
    reached = np.cumsum(weights[order])
    found = np.searchsorted(reached, np.array(BOX_SHARES) * reached[-1])
    return values[order[np.minimum(found, len(order) - 1)]].astype(np.float64)


@njit(cache=True, nogil=True)
def _covariances(scales: Any, rotations: Any) -> Any:
    """R·diag(s²)·Rᵀ, upper triangle (N, 6), of quaternions w, x, y, z (a zero one counts as no rotation)."""
    covariances = np.empty((len(scales), 6), np.float32)
    turn = np.empty((3, 3), np.float64)
    for i in range(len(scales)):
        w, x, y, z = np.float64(rotations[i, 0]), rotations[i, 1], rotations[i, 2], rotations[i, 3]
        norm = np.sqrt(w * w + x * x + y * y + z * z)
        if norm > 1e-6:
            w, x, y, z = w / norm, x / norm, y / norm, z / norm
        else:
            w, x, y, z = np.float64(1), np.float64(0), np.float64(0), np.float64(0)
        turn[0] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
        turn[1] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
        turn[2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
        place = 0
        for row in range(3):
            for column in range(row, 3):
                total = 0.0
                for k in range(3):
                    total += turn[row, k] * turn[column, k] * np.float64(scales[i, k]) ** 2
                covariances[i, place] = total
                place += 1
    return covariances
