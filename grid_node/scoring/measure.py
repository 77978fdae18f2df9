"""Renders the views of a scene and measures them, cheapest first; views are shared out among the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from grid_node.scoring import rules
from grid_node.scoring.camera import RING_VIEWS, Camera, judged_views
from grid_node.scoring.cloud import Floats
from grid_node.scoring.filters import Local, local_statistics, ssim
from grid_node.scoring.geometry import FINE_VIEW, geometry_signals
from grid_node.scoring.scene import Scene
from grid_node.scoring.signals import coverage, hole, luminance_of, view_signals

GREY = 0.5
FINE_INDEX = 1
"""The view that is rendered once more at 1024 px."""
GLANCE_SIZE = 64
GLANCE_VIEWS = (0, 3)
GLANCE_EMPTY, GLANCE_FULL = 0.002, 0.98
"""Coverage of the quick views beyond which the full ones cannot save the gate `frame`."""
NO_TEXTURE = {"std": 0.0, "hf": 0.0, "entropy": 0.0, "grad": 0.0}

Renderer = Callable[[Scene, Camera, float], tuple[Floats, Floats]]


@dataclass(frozen=True, slots=True)
class Measured:
    """`is_whole` is False when the judgement stopped early, because a gate was 0 already."""

    signals: Mapping[str, float]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Studio:
    """Renders and measures for one scoring call: a renderer, threads, and how views are taken."""

    render: Renderer
    pool: ThreadPoolExecutor
    view_size: int
    up_axis: str

    def measure(self, scene: Scene, seed: int, gates: rules.Gates) -> Measured:
        """All signals, or those so far once a gate is 0 without the expensive views."""
        cameras = judged_views(seed, self.view_size, self.up_axis)
        signals = geometry_signals(scene, seed)
        if 0 in rules.gate_values(signals, gates).values():
            return Measured(signals, is_whole=False)
        covered = self._glance(scene, cameras)
        if not GLANCE_EMPTY < covered < GLANCE_FULL:
            signals["coverage"] = covered
            if 0 in rules.gate_values(signals, gates).values():
                return Measured(signals, is_whole=False)
        return Measured(signals | self._views(scene, cameras), is_whole=True)

    def _glance(self, scene: Scene, cameras: list[Camera]) -> float:
        quick = [cameras[k].resized(GLANCE_SIZE) for k in GLANCE_VIEWS]
        return float(np.mean(list(self.pool.map(lambda camera: coverage(self._alpha(scene, camera)), quick))))

    def _views(self, scene: Scene, cameras: list[Camera]) -> dict[str, float]:
        fine = self.pool.submit(self._fine, scene, cameras[FINE_INDEX].resized(FINE_VIEW))  # the longest first
        views = list(self.pool.map(lambda camera: self._view(scene, camera), cameras))
        signals = NO_TEXTURE | _means(found for found, _ in views)
        signals["ssim"] = self._ring_ssim([local for _, local in views[:RING_VIEWS]])
        fine_coverage, fine_hole = fine.result()
        signals["hole"] = max(signals["hole"], fine_hole)
        coarse = views[FINE_INDEX][0]["coverage"]
        signals["hires"] = fine_coverage / coarse if coarse > 0 else 1.0
        return signals

    def _view(self, scene: Scene, camera: Camera) -> tuple[dict[str, float], Local]:
        color, alpha = self.render(scene, camera, GREY)
        return view_signals(color, alpha), local_statistics(luminance_of(color))

    def _fine(self, scene: Scene, camera: Camera) -> tuple[float, float]:
        """Coverage and hole at 1024 px."""
        alpha = self._alpha(scene, camera)
        return coverage(alpha), hole(alpha)

    def _alpha(self, scene: Scene, camera: Camera) -> Floats:
        return self.render(scene, camera, GREY)[1]

    def _ring_ssim(self, ring: list[Local]) -> float:
        """Mean similarity of each view of the ring with the next one, the last with the first."""
        return float(np.mean(list(self.pool.map(ssim, ring, ring[1:] + ring[:1]))))


def _means(views: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each signal over the views that have it."""
    found: dict[str, list[float]] = {}
    for view in views:
        for name, value in view.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
