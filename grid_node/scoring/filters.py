"""Neighbourhood filters on one image, torch tensors (height, width); an image is small enough for one thread."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn

Tensor = torch.Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
"""Wang et al. 2004, for values of 0..1."""


def dilate(image: Tensor, side: int) -> Tensor:
    """Largest value of the side × side neighbourhood (inside the picture)."""
    rows = fn.max_pool2d(image[None, None], (side, 1), 1, (side // 2, 0))
    return fn.max_pool2d(rows, (1, side), 1, (0, side // 2))[0, 0]


def erode(image: Tensor, side: int) -> Tensor:
    """Smallest value of the side × side neighbourhood (inside the picture)."""
    return -dilate(-image, side)


def closing(image: Tensor, side: int) -> Tensor:
    """Dilation, then erosion: fills gaps narrower than `side`."""
    return erode(dilate(image, side), side)


def box_mean(image: Tensor, side: int) -> Tensor:
    """Mean of the side × side neighbourhood, edges repeated."""
    half = side // 2
    padded = fn.pad(image[None, None], (half, half, half, half), mode="replicate")
    rows = fn.avg_pool2d(padded, (side, 1), 1)
    return fn.avg_pool2d(rows, (1, side), 1)[0, 0]


@dataclass(frozen=True, slots=True)
class Local:
    """An image with its windowed mean and variance, ready to be compared with others."""

    image: Tensor
    mean: Tensor
    variance: Tensor


def local_statistics(image: Tensor) -> Local:
    mean = _gaussian(image)
    return Local(image, mean, _gaussian(image * image) - mean * mean)


def ssim(first: Local, second: Local) -> float:
    """Mean structural similarity of two images (Wang et al. 2004), 11 × 11 Gaussian window, sigma 1.5."""
    covariance = _gaussian(first.image * second.image) - first.mean * second.mean
    top = (2 * first.mean * second.mean + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (first.mean**2 + second.mean**2 + SSIM_C1) * (first.variance + second.variance + SSIM_C2)
    return float((top / bottom).mean(dtype=torch.float64))


def _window() -> Tensor:
    steps = torch.arange(SSIM_WINDOW, dtype=torch.float32) - SSIM_WINDOW // 2
    weights = torch.exp(-(steps**2) / (2 * SSIM_SIGMA**2))
    return (weights / weights.sum()).view(1, 1, -1, 1)


WINDOW = _window()


def _gaussian(image: Tensor) -> Tensor:
    columns = fn.conv2d(image[None, None], WINDOW)
    return fn.conv2d(columns, WINDOW.transpose(2, 3))[0, 0]
