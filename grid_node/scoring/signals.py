"""What is measured on one rendered view. A = opacity image, X = colour over grey, M = pixels deep inside the asset."""

from __future__ import annotations

import torch

from grid_node.scoring.cloud import Floats
from grid_node.scoring.filters import Tensor, box_mean, closing, dilate, erode

SOLID = 0.9
"""Opacity above which a pixel counts as covered for good."""
TRACE = 0.05
LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722])
"""ITU-R BT.709."""
ENTROPY_BINS = 32


def luminance_of(color: Floats) -> Tensor:
    """(H, W) of a picture (H, W, 3), 0..1."""
    return torch.from_numpy(color).clamp(0, 1) @ LUMINANCE


def view_signals(color: Floats, alpha: Floats) -> dict[str, float]:
    """All signals of one view; those of the texture are missing when no pixel is deep inside the asset."""
    opacity = torch.from_numpy(alpha)
    inside = erode((opacity > SOLID).float(), 7) > 0
    signals = outline_signals(alpha) | {"hole": hole(alpha)}
    return signals | _texture(torch.from_numpy(color).clamp(0, 1), inside) if bool(inside.any()) else signals


def outline_signals(alpha: Floats) -> dict[str, float]:
    """`coverage`, `border`, `soft`, `haze`: what share of the picture the asset fills, and how firmly."""
    opacity = torch.from_numpy(alpha)
    trace = opacity > TRACE
    traces = max(int(trace.sum()), 1)
    solid = opacity > SOLID
    haze = trace & ~(dilate(solid.float(), 5) > 0)
    edge = torch.cat([opacity[0], opacity[-1], opacity[1:-1, 0], opacity[1:-1, -1]])
    return {
        "coverage": coverage(alpha),
        "border": int((edge > 0.1).sum()) / edge.numel(),
        "soft": int((trace & (opacity < SOLID)).sum()) / traces,
        "haze": int(haze.sum()) / traces,
    }


def coverage(alpha: Floats) -> float:
    """Share of the pixels with an opacity above one half."""
    return int((alpha > 0.5).sum()) / alpha.size


def hole(alpha: Floats) -> float:
    """Share of the closed silhouette that only the closing filled."""
    shape = (torch.from_numpy(alpha) > 0.5).float()
    closed = int(closing(shape, 9).sum())
    return (closed - int(shape.sum())) / max(closed, 1)


def _texture(color: Tensor, inside: Tensor) -> dict[str, float]:
    """`std`, `hf`, `entropy`, `grad` over M.

    `hf` is the share of the variance that a 5 × 5 mean removes; white noise loses 24/25. M lies 3 px inside the
    asset, so the window never leaves it and the edge of the asset is no detail.
    """
    variance = removed = 0.0
    for channel in color.unbind(dim=2):
        values = channel[inside].double()
        variance += float(values.var(correction=0))
        removed += float(((channel - box_mean(channel, 5))[inside].double() ** 2).mean())
    luminance = color @ LUMINANCE
    return {
        "std": variance**0.5,
        "hf": min(1.0, removed / variance) if variance > 1e-12 else 0.0,
        "entropy": _entropy(luminance[inside]),
        "grad": _gradient(luminance, inside),
    }


def _entropy(values: Tensor) -> float:
    """Bits of a 32-bin histogram of 0..1."""
    bins = (values * ENTROPY_BINS).long().clamp(0, ENTROPY_BINS - 1)
    shares = torch.bincount(bins).double() / len(values)
    return float(-(shares * shares.clamp(min=1e-12).log2()).sum())


def _gradient(luminance: Tensor, inside: Tensor) -> float:
    """Mean |dx| + |dy| in M."""
    steps = torch.zeros_like(luminance)
    steps[:, :-1] += luminance.diff(dim=1).abs()
    steps[:-1] += luminance.diff(dim=0).abs()
    return float(steps[inside].double().mean())
