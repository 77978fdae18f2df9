"""Scorer of `text_to_3d`: one Gaussian-splat asset -> report, previews and the other stored form."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from grid_node.scoring import raster, reference, rules, shapes
from grid_node.scoring.artifacts import write_artifacts
from grid_node.scoring.assets import read_asset
from grid_node.scoring.measure import Measured, Studio
from grid_node.scoring.ply import write_ply
from grid_node.scoring.port import Component, Report, ScoreTask
from grid_node.scoring.scene import build_scene
from grid_node.scoring.settings import CONTRACT_VIEW_SIZE, ScoringSettings
from grid_node.scoring.sorting import canonical
from grid_node.scoring.validity import check_valid

ALIGNMENT = Component(None, "unavailable", "no model directory configured")
NOT_JUDGED = Component(None, "unavailable", "a gate was 0 before the views were judged")
SIGNAL_NAMES = (
    *("coverage", "border", "soft", "haze", "hole", "hires", "px", "std", "hf", "entropy", "grad"),
    *("ssim", "thin", "needle", "cross"),
)


class SplatScorer:
    """Rule version `splat-1`; docs/scoring.md says what its scores mean.

    Views are rendered and measured on several threads, each view on one of them, so their number changes nothing.
    """

    kind = "text_to_3d"
    score_kind = "integrity"
    formats: tuple[str, ...] = ("ply", "spz")

    def __init__(self, settings: ScoringSettings | None = None, gates: rules.Gates = rules.GATES) -> None:
        self.settings = settings or ScoringSettings()
        self.version = _version(self.settings)
        self.backend = "torch" if self.settings.backend == "torch" else "numba"
        self.limits: Mapping[str, int] = MappingProxyType(
            {name: getattr(self.settings, name) for name in ("max_bytes", "min_splats", "max_splats")}
        )
        self._gates = gates
        self._threads = self.settings.threads or len(os.sched_getaffinity(0))

    def warm(self) -> None:
        """Compile the kernels and touch every torch operation: judge one small asset."""
        small = SplatScorer(replace(self.settings, min_splats=1, max_splats=1_000_000))
        with tempfile.TemporaryDirectory(prefix="grid-warm-") as folder:
            path = Path(folder, "robot.ply")
            with path.open("wb") as file:
                write_ply(file, shapes.build("robot", 7_000 if self.backend == "numba" else 50))
            small.score(path, ScoreTask("warm", "a robot", 1, self.kind, "ply"), Path(folder))

    def score(self, path: Path, task: ScoreTask, artifacts: Path | None = None) -> Report:
        """See the port. `artifacts` are made only when all views were judged: an asset that stopped early, or is
        not valid, is shown to nobody."""
        started = time.perf_counter()
        cloud = read_asset(path, task.format, self.settings)
        check_valid(cloud)
        scene = build_scene(canonical(cloud))
        with ThreadPoolExecutor(self._threads, "scoring", torch.set_num_threads, (1,)) as pool:
            studio = self._studio(pool)
            measured = studio.measure(scene, task.seed, self._gates)
            files = {}
            if artifacts is not None and measured.is_whole:
                files = write_artifacts(artifacts, cloud, scene, task.format, studio, self.settings)
        report = self._report(measured, task)
        return replace(
            report,
            splats=len(cloud),
            bytes=path.stat().st_size,
            artifacts=files,
            seconds=time.perf_counter() - started,
        )

    def _studio(self, pool: ThreadPoolExecutor) -> Studio:
        render = reference.render if self.backend == "torch" else raster.render
        return Studio(render, pool, self.settings.view_size, self.settings.up_axis)

    def _report(self, measured: Measured, task: ScoreTask) -> Report:
        gates = rules.gate_values(measured.signals, self._gates)
        whole = rules.integrity(gates)
        components = {"integrity": Component(whole), "quality": NOT_JUDGED, "alignment": ALIGNMENT}
        score = 0.0
        if measured.is_whole:
            quality = rules.quality(measured.signals)
            components["quality"] = Component(quality)
            score = rules.final_score(whole, {"quality": (quality, 1.0)})
        accepted = score >= self.settings.threshold
        return Report(
            score=score,
            accepted=accepted,
            threshold=self.settings.threshold,
            score_kind=self.score_kind,
            scorer=self.version,
            components=components,
            gates=gates,
            signals={name: measured.signals.get(name) for name in SIGNAL_NAMES},
            reasons=rules.reasons(measured.signals, accepted, self._gates),
            flags=() if measured.is_whole else ("stopped_early",),
            format=task.format,
            view_seed=task.seed,
            backend=self.backend,
        )


def _version(settings: ScoringSettings) -> str:
    """The rule version, with every setting that changes scores."""
    version = rules.RULE_VERSION
    if settings.view_size != CONTRACT_VIEW_SIZE:
        version += f"+view-{settings.view_size}"
    return version if settings.up_axis == "+Y" else f"{version}+up{settings.up_axis.lower()}"
