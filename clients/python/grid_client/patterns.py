"""Colours and solid patterns: functions of a point in space, so that no seam shows where surfaces meet.

Every pattern maps points (n, 3) to (n,) values from 0 to 1; `blend` turns them into colours.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from grid_client.surfaces import Array

Colour = tuple[float, float, float]
Paint = Callable[[Array], Array]
"""Points (n, 3) to linear colours (n, 3), each from 0 to 1."""

COLOURS: dict[str, Colour] = {
    "red": (0.82, 0.12, 0.12),
    "crimson": (0.66, 0.05, 0.15),
    "orange": (0.93, 0.48, 0.10),
    "yellow": (0.95, 0.82, 0.18),
    "golden": (0.86, 0.66, 0.20),
    "gold": (0.86, 0.66, 0.20),
    "green": (0.18, 0.58, 0.22),
    "teal": (0.10, 0.55, 0.55),
    "cyan": (0.20, 0.75, 0.82),
    "turquoise": (0.22, 0.76, 0.70),
    "blue": (0.14, 0.30, 0.80),
    "navy": (0.08, 0.12, 0.38),
    "purple": (0.48, 0.20, 0.66),
    "violet": (0.54, 0.30, 0.80),
    "magenta": (0.80, 0.16, 0.60),
    "pink": (0.95, 0.55, 0.70),
    "brown": (0.45, 0.27, 0.13),
    "wooden": (0.55, 0.36, 0.18),
    "beige": (0.85, 0.76, 0.60),
    "white": (0.92, 0.92, 0.92),
    "silver": (0.72, 0.74, 0.78),
    "grey": (0.50, 0.50, 0.52),
    "gray": (0.50, 0.50, 0.52),
    "black": (0.10, 0.10, 0.12),
}


def colour_words(prompt: str) -> list[Colour]:
    """The colours named in a prompt, in order, each once."""
    words = dict.fromkeys(re.findall(r"[a-z]+", prompt.casefold()))
    return [COLOURS[word] for word in words if word in COLOURS]


def contrast(colour: Colour, amount: float = 0.45) -> Colour:
    """A darker tone of a bright colour; a brighter one, at half the amount, of a dark colour."""
    if sum(colour) / 3 > 0.45:
        red, green, blue = (c * (1 - amount) for c in colour)
    else:
        red, green, blue = (c + (1 - c) * amount / 2 for c in colour)
    return red, green, blue


def blend(first: Colour | Array, second: Colour | Array, share: Array) -> Array:
    """(n, 3): `first` where share is 0, `second` where it is 1."""
    mixed: Array = np.asarray(first) * (1 - share[:, None]) + np.asarray(second) * share[:, None]
    return mixed


def stripes(points: Array, axis: int, wavelength: float, sharpness: float = 4.0) -> Array:
    wave = np.sin(points[:, axis] * (2 * np.pi / wavelength))
    return 0.5 + 0.5 * np.tanh(sharpness * wave)


def checker(points: Array, size: float) -> Array:
    parity = np.floor(points / size + 0.25).astype(np.int64).sum(axis=1) & 1
    return parity.astype(np.float64)


def spots(points: Array, size: float, fill: float = 0.32, salt: int = 0) -> Array:
    """One round spot at a random place of every cell of a grid of `size`; `fill` is its radius in cells."""
    cell = np.floor(points / size)
    centre = np.stack([0.3 + 0.4 * hashed(cell, salt + k) for k in range(3)], axis=1)
    distance = np.linalg.norm(points / size - cell - centre, axis=1)
    return np.clip((fill - distance) / 0.06, 0.0, 1.0)


def noise(points: Array, size: float, salt: int = 0) -> Array:
    """Value noise: random values on a grid of `size`, smoothly interpolated."""
    scaled = points / size
    cell = np.floor(scaled)
    t = scaled - cell
    t = t * t * (3 - 2 * t)
    total = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner) == 1, t, 1 - t), axis=1)
        total += weight * hashed(cell + np.array(corner), salt)
    return total


def wood(points: Array, axis: int, salt: int = 0) -> Array:
    """Year rings around an axis, bent by noise."""
    across = [a for a in range(3) if a != axis]
    stretched = points * np.where(np.arange(3) == axis, 0.35, 1.0)
    radius = np.hypot(points[:, across[0]] + 0.31, points[:, across[1]] * 2.0 + 0.17)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (radius / 0.14 + 1.3 * noise(stretched, 0.22, salt)))


def hashed(cell: Array, salt: int) -> Array:
    """A fixed pseudo-random number from 0 to 1 for every whole-numbered cell (n, 3)."""
    x, y, z = cell.astype(np.int64).astype(np.uint64).T
    mixed = x * np.uint64(73856093) ^ y * np.uint64(19349663) ^ z * np.uint64(83492791)
    mixed ^= np.uint64((salt + 1) * 2654435761)
    mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> np.uint64(12))) * np.uint64(0x297A2D39)
    return ((mixed >> np.uint64(8)) & np.uint64(0xFFFFFF)).astype(np.float64) / float(0xFFFFFF)
