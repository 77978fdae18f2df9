"""The splats of one asset as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SH_C0 = 0.28209479177387814
"""Zeroth spherical harmonic, 1 / (2·sqrt(pi)): colour = 0.5 + SH_C0 · f_dc (Kerbl et al. 2023)."""

BOX_SHARES = (0.005, 0.995)

LOGIT_CUT = 20.0
"""A logit beyond this (an infinity too) is cut: the opacity is 0 or 1 within float32 all the same."""


@dataclass(frozen=True, slots=True)
class SplatCloud:
    """N Gaussian splats as read from a file, float32, not yet normalised.

    centers (N, 3) in the file's units · f_dc (N, 3) degree-0 coefficients · opacity (N,) 0..1 · log_scales (N, 3)
    natural logarithms of the standard deviations · rotations (N, 4) quaternions w, x, y, z of any length.
    """

    centers: Floats
    f_dc: Floats
    opacity: Floats
    log_scales: Floats
    rotations: Floats

    def __len__(self) -> int:
        return len(self.centers)

    def take(self, order: npt.NDArray[np.integer]) -> SplatCloud:
        """The splats at these indices, in this order."""
        return SplatCloud(
            self.centers[order],
            self.f_dc[order],
            self.opacity[order],
            self.log_scales[order],
            self.rotations[order],
        )


def robust_box(centers: Floats) -> tuple[Doubles, Doubles]:
    """Lower and upper corner (3,) between which 99 % of the centres lie on each axis; strays do not count."""
    last = len(centers) - 1
    places = [int(last * share) for share in BOX_SHARES]
    axes = [np.partition(np.ascontiguousarray(axis), places)[places] for axis in centers.T]
    low, high = np.array(axes, np.float64).T
    return low, high


def opacity_of_logit(logit: Floats) -> Floats:
    """Sigmoid, for any logit but NaN."""
    cut = np.clip(logit, -LOGIT_CUT, LOGIT_CUT)
    return (1.0 / (1.0 + np.exp(-cut))).astype(np.float32)


def logit_of_opacity(opacity: Floats, cut: float) -> Floats:
    """Inverse sigmoid, cut to ±`cut`, never infinite."""
    inside = np.clip(opacity.astype(np.float64), 1e-12, 1.0 - 1e-12)
    return np.clip(np.log(inside / (1.0 - inside)), -cut, cut).astype(np.float32)
