"""What recipes are made of: painted parts, the choices left free, and ways to paint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grid_client.patterns import COLOURS, Colour, Paint, blend, contrast, noise, spots, stripes, wood
from grid_client.surfaces import Array, Surface


@dataclass(frozen=True)
class Part:
    surface: Surface
    paint: Paint


@dataclass(frozen=True)
class Design:
    """The choices that are free within a recipe."""

    rng: np.random.Generator
    colours: Sequence[Colour]
    salt: int

    def vary(self, value: float, share: float = 0.08) -> float:
        return float(value * self.rng.uniform(1 - share, 1 + share))

    def colour(self, slot: int, default: str) -> Colour:
        """The prompt's colour number `slot`, or else the default, slightly shifted."""
        base = self.colours[slot] if slot < len(self.colours) else COLOURS[default]
        red, green, blue = np.clip(np.array(base) + self.rng.uniform(-0.035, 0.035, 3), 0.02, 0.98)
        return float(red), float(green), float(blue)


def spotted(first: Colour, second: Colour, size: float, salt: int) -> Paint:
    return lambda p: blend(first, second, spots(p, size, salt=salt))


def striped(first: Colour, second: Colour, axis: int, wavelength: float) -> Paint:
    return lambda p: blend(first, second, stripes(p, axis, wavelength))


def grained(colour: Colour, axis: int, salt: int) -> Paint:
    return lambda p: blend(colour, contrast(colour, 0.4), wood(p, axis, salt))


def mottled(first: Colour, second: Colour, salt: int) -> Paint:
    """Clouds of two tones with fine spots: for large calm faces."""

    def paint(points: Array) -> Array:
        share = 0.45 * noise(points, 0.25, salt) + 0.55 * spots(points, 0.1, 0.34, salt)
        return blend(first, second, np.clip(share, 0, 1))

    return paint


def panelled(colour: Colour, seam: float) -> Paint:
    """Riveted plates: dark seams every `seam` units, spots between them."""

    def paint(points: Array) -> Array:
        edge = np.min(np.abs((points / seam + 0.5) % 1.0 - 0.5), axis=1)
        lines = np.clip((0.07 - edge) / 0.03, 0, 1)
        return blend(colour, contrast(colour, 0.6), np.maximum(lines, spots(points, seam / 2, 0.25)))

    return paint
