"""Pictures for people: previews around an asset, and four of them as a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from grid_node.scoring.cloud import Floats

GRID_GAP = 5
PNG_LEVEL = 1
"""zlib level: previews are mostly white, higher levels cost time and save little."""

Pixels = npt.NDArray[np.uint8]


def to_pixels(image: Floats) -> Pixels:
    """Colours of 0..1 as bytes."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def grid_indices(count: int) -> tuple[int, ...]:
    """The four previews of the grid (0, 2, 4, 6 of 8), none when there are fewer than four."""
    return tuple(count * k // 4 for k in range(4)) if count >= 4 else ()


def grid(pictures: list[Pixels]) -> Pixels:
    """Four square pictures as 2 × 2 with a white gap of 5 px."""
    side = pictures[0].shape[0]
    whole = np.full((2 * side + GRID_GAP, 2 * side + GRID_GAP, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = (k // 2) * (side + GRID_GAP), (k % 2) * (side + GRID_GAP)
        whole[top : top + side, left : left + side] = picture
    return whole


def write_png(path: Path, pixels: Pixels) -> Path:
    Image.fromarray(pixels).save(path, format="PNG", compress_level=PNG_LEVEL)
    return path
