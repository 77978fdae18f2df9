"""From a valid cloud to what the renderers draw: normalised centres, covariances, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grid_node.scoring.cloud import SH_C0, Floats, SplatCloud
from grid_node.scoring.sorting import float_keys, radix_order
from grid_node.scoring.validity import MAX_SCALE_TO_EXTENT

SIDE = 1.5
"""Longest side of the normalised box, world units."""
BOX_QUANTILES = (0.005, 0.995)
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
    extent = float(np.ptp(np.quantile(cloud.centers, BOX_QUANTILES, axis=0), axis=0).max())
    largest_log = np.log(MAX_SCALE_TO_EXTENT * max(extent, 1e-9))
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
    """The values below which the two shares BOX_QUANTILES of the weight lie."""
    order = radix_order(float_keys(values), 32)
    reached = np.cumsum(weights[order])
    found = np.searchsorted(reached, np.array(BOX_QUANTILES) * reached[-1])
    return values[order[np.minimum(found, len(order) - 1)]].astype(np.float64)


def _covariances(scales: Floats, rotations: Floats) -> Floats:
    """R·diag(s²)·Rᵀ, upper triangle, of quaternions w, x, y, z (a zero one counts as no rotation)."""
    norm = np.linalg.norm(rotations, axis=1, keepdims=True)
    unit = np.where(norm > 1e-6, rotations / np.maximum(norm, 1e-12), np.array([1, 0, 0, 0], np.float32))
    w, x, y, z = unit.T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    squares = (scales * scales).T
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    columns = [sum(rows[i][k] * rows[j][k] * squares[k] for k in range(3)) for i, j in pairs]
    return np.stack(columns, axis=1).astype(np.float32)
