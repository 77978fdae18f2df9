"""The reference generator: builds a Gaussian-splat asset from a prompt, without model or stored file."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from grid_client.design import Design, Part
from grid_client.patterns import colour_words
from grid_client.recipes import RECIPES, recipe_for
from grid_client.splats import SH_C0, Floats, Splats
from grid_client.surfaces import Array, rotation

MIN_SPLATS, MAX_SPLATS = 20_000, 50_000
FLOOR_SPLATS = 8_000
"""The least that is built at the lowest quality; scoring refuses fewer than 7,000."""

LIGHT = np.array([0.45, 0.75, 0.48]) / np.linalg.norm([0.45, 0.75, 0.48])
WIDTH, THICKNESS = 0.68, 0.12
"""Standard deviations of a splat along and across its surface, in sample spacings."""
SCATTER, BLUR = 0.02, 0.018
"""What quality 0 would add to places and sizes of splats; things are about two units large."""


def build(prompt: str, seed: int | None, identity: str, *, splats: int | None = None, quality: float = 1.0) -> Splats:
    """The asset for a prompt; a pure function of its arguments.

    `identity` (hotkey or worker name) changes proportions, placing and tones, so that two workers never build
    equal geometry. `quality` below 1 honestly builds worse: fewer, larger, duller, scattered splats. `splats` is
    about how many there will be.
    """
    if not 0.0 < quality <= 1.0:
        raise ValueError("quality must be above 0 and at most 1")
    rng = _generator(prompt, seed, identity)
    design = Design(rng, colour_words(prompt), int(rng.integers(1, 1000)))
    parts = RECIPES[recipe_for(prompt)](design)
    wanted = splats or int(rng.integers(36_000, 44_000))
    count = max(FLOOR_SPLATS, round(wanted * quality**1.5))
    spacing = float(np.sqrt(sum(part.surface.area for part in parts) / count))
    points, normals, colours = _sample(parts, spacing, rng)
    turn = rotation((0.0, 1.0, 0.0), rng.uniform(0, 2 * np.pi))
    points, normals = points @ turn.T, normals @ turn.T
    shaded = colours * _shade(points, normals)[:, None]
    return _splats(points, normals, shaded, spacing=spacing, flaw=1.0 - quality, rng=rng)


def _generator(prompt: str, seed: int | None, identity: str) -> np.random.Generator:
    key = "\x1f".join((prompt, "" if seed is None else str(seed), identity))
    digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _sample(parts: list[Part], spacing: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    points, normals, colours = [], [], []
    for part in parts:
        p, n = part.surface.sample(spacing, rng)
        points.append(p)
        normals.append(n)
        colours.append(part.paint(p))
    return np.concatenate(points), np.concatenate(normals), np.concatenate(colours)


def _shade(points: Array, normals: Array) -> Array:
    """Baked light (n,): one lamp, sky from above, a darker foot."""
    lamp = np.clip(normals @ LIGHT, 0, 1)
    sky = 0.5 + 0.5 * normals[:, 1]
    low, high = points[:, 1].min(), points[:, 1].max()
    lift = (points[:, 1] - low) / max(high - low, 1e-9)
    shade: Array = 0.34 + 0.42 * lamp + 0.16 * sky + 0.14 * lift
    return shade


def _splats(
    points: Array, normals: Array, colours: Array, *, spacing: float, flaw: float, rng: np.random.Generator
) -> Splats:
    """Flat splats lying in the surface; `flaw` from 0 to 1 blurs, scatters and bleaches them."""
    n = len(points)
    points = points + rng.normal(0, 1, (n, 3)) * (SCATTER * flaw)
    dull = colours + (colours.mean(axis=0) - colours) * (0.6 * flaw)
    colours = np.clip(dull + rng.normal(0, 1, (n, 3)) * 0.02, 0, 1)
    width = (spacing * WIDTH + BLUR * flaw) * rng.uniform(0.9, 1.1, (n, 2))
    depth = np.full((n, 1), spacing * THICKNESS + BLUR * flaw / 2)
    alpha = np.clip(rng.normal(0.96 - 0.3 * flaw, 0.01, n), 0.3, 0.985)
    return Splats(
        centers=points.astype(np.float32),
        f_dc=((colours - 0.5) / SH_C0).astype(np.float32),
        opacity=np.log(alpha / (1 - alpha)).astype(np.float32),
        scales=np.log(np.hstack([width, depth])).astype(np.float32),
        rotations=_facing(normals),
    )


def _facing(normals: Array) -> Floats:
    """Quaternions w, x, y, z that turn +Z, the thin axis of a splat, to the normals."""
    w = 1.0 + normals[:, 2]
    quaternion = np.stack([w, -normals[:, 1], normals[:, 0], np.zeros_like(w)], axis=1)
    quaternion[w < 1e-6] = (0.0, 1.0, 0.0, 0.0)
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return quaternion.astype(np.float32)
