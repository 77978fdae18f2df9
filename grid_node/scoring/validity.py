"""Hard validity: what no score can be given to. Each rule raises InvalidAsset with its reason."""

from __future__ import annotations

import numpy as np

from grid_node.scoring.cloud import SplatCloud, robust_box
from grid_node.scoring.port import InvalidAsset

MIN_EXTENT = 1e-9
MAX_EXTENT = 1e9
MIN_SCALE = 1e-9
MAX_SCALE_TO_EXTENT = 1e4
MIN_NORM = 1e-6
MIN_OPACITY = 1e-3
BAD_SHARE = 0.01
INVISIBLE_SHARE = 0.8


def check_valid(cloud: SplatCloud) -> None:
    """Raise InvalidAsset unless the cloud is finite, extended, rotated and visible."""
    _check_finite(cloud)
    _check_degenerate(cloud)
    norms = np.linalg.norm(cloud.rotations.astype(np.float64), axis=1)
    if np.mean(norms < MIN_NORM) > BAD_SHARE:
        raise InvalidAsset("zero_rotation", "more than 1 % of the quaternions are zero")
    if np.mean(cloud.opacity < MIN_OPACITY) > INVISIBLE_SHARE:
        raise InvalidAsset("invisible", "more than 80 % of the splats have an opacity below 0.001")


def _check_finite(cloud: SplatCloud) -> None:
    arrays = (cloud.centers, cloud.f_dc, cloud.opacity, cloud.log_scales, cloud.rotations)
    if not all(np.isfinite(array).all() for array in arrays):
        raise InvalidAsset("non_finite", "NaN, or an infinity outside opacity")


def _check_degenerate(cloud: SplatCloud) -> None:
    extent = float((cloud.centers.max(axis=0).astype(np.float64) - cloud.centers.min(axis=0)).max())
    if not MIN_EXTENT <= extent <= MAX_EXTENT:
        raise InvalidAsset("degenerate", f"the centres extend over {extent:.3g}")
    low, high = robust_box(cloud.centers)
    robust = max(float((high - low).max()), MIN_EXTENT)
    largest = cloud.log_scales.max(axis=1)
    wrong = (largest < np.log(MIN_SCALE)) | (largest > np.log(MAX_SCALE_TO_EXTENT * robust))
    if np.mean(wrong) > BAD_SHARE:
        raise InvalidAsset("degenerate", "more than 1 % of the splats have no size or a monstrous one")
