"""Junk that must not pass: ways to spoil a genuine asset, and the table that proves that each is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grid_node.scoring import shapes
from grid_node.scoring.cloud import SH_C0, Floats, SplatCloud
from grid_node.scoring.ply import write_ply
from grid_node.scoring.port import InvalidAsset, Report, Scorer, ScoreTask

BASES = ("robot", "donut", "tree")
SEEDS = (11, 222, 3333)
JUNK_LIMIT = 0.6
GENUINE_LIMIT = 0.7
FLAT = 0.002

Rng = np.random.Generator
Spoil = Callable[[SplatCloud, Rng], SplatCloud]


@dataclass(frozen=True, slots=True)
class Junk:
    """One way to cheat, and the reasons of which at least one must be named."""

    name: str
    spoil: Spoil
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Outcome for one asset over all seeds: the lowest and highest score, and the reasons named most often first."""

    name: str
    base: str
    is_genuine: bool
    lowest: float
    highest: float
    reasons: tuple[str, ...]
    is_right: bool


def _dc(color: float) -> float:
    return (color - 0.5) / SH_C0


def _flat(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    return replace(cloud, centers=cloud.centers * np.array([1, 1, FLAT], np.float32))


def _flat_discs(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    """Squeezed flat, every splat a disc facing +Z."""
    flat = _flat(cloud, rng)
    logs = flat.log_scales.copy()
    logs[:, :2], logs[:, 2] = logs.max(axis=1, keepdims=True), np.log(1e-4)
    return replace(flat, log_scales=logs, rotations=_identity(len(cloud)))


def _identity(count: int) -> Floats:
    return np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))


def _crossed(sheets: int) -> Spoil:
    """Flat copies turned about the upright axis, the splats shared out among them."""

    def spoil(cloud: SplatCloud, rng: Rng) -> SplatCloud:
        flat = _flat_discs(cloud, rng)
        centers, rotations = flat.centers.copy(), flat.rotations.copy()
        for k in range(sheets):
            angle = np.pi * k / sheets
            turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
            part = slice(k, None, sheets)
            centers[part] = flat.centers[part] @ turn.T.astype(np.float32)
            rotations[part] = [np.cos(angle / 2), 0, np.sin(angle / 2), 0]
        return replace(flat, centers=centers, rotations=rotations)

    return spoil


def _fainter(factor: float) -> Spoil:
    return lambda cloud, rng: replace(cloud, opacity=cloud.opacity * np.float32(factor))


def _one_color(color: float) -> Spoil:
    return lambda cloud, rng: replace(cloud, f_dc=np.full_like(cloud.f_dc, _dc(color)))


def _scaled(*factors: float) -> Spoil:
    return lambda cloud, rng: replace(cloud, log_scales=cloud.log_scales + np.log(np.array(factors, np.float32)))


def _grey_ball(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    count = 60_000
    points = rng.normal(size=(count, 3))
    points *= rng.random((count, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    return SplatCloud(
        points.astype(np.float32),
        np.zeros((count, 3), np.float32),
        np.full(count, 0.9, np.float32),
        np.full((count, 3), np.log(0.02), np.float32),
        _identity(count),
    )


def _shuffled_colors(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    return replace(cloud, f_dc=cloud.f_dc[rng.permutation(len(cloud))])


def _random_cube(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    centers = rng.uniform(-0.5, 0.5, cloud.centers.shape).astype(np.float32)
    colors = _dc(0.0) + rng.random(cloud.f_dc.shape) * (_dc(1.0) - _dc(0.0))
    return replace(cloud, centers=centers, f_dc=colors.astype(np.float32))


def _shaken(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    sigma = 0.15 * np.abs(cloud.centers).max()
    return replace(cloud, centers=cloud.centers + rng.normal(0, sigma, cloud.centers.shape).astype(np.float32))


def _in_a_box(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    """A quarter of the splats spread through a box 1.3 times as large."""
    low, high = cloud.centers.min(axis=0), cloud.centers.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * 1.3
    return _moved(cloud, rng, 0.25, lambda count: middle + rng.uniform(-1, 1, (count, 3)) * half)


def _far_clouds(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    return _moved(cloud, rng, 0.05, lambda count: rng.normal(0, 20, (count, 3)))


def _small_far_clouds(cloud: SplatCloud, rng: Rng) -> SplatCloud:
    return _far_clouds(replace(cloud, log_scales=np.full_like(cloud.log_scales, np.log(0.004))), rng)


def _moved(cloud: SplatCloud, rng: Rng, share: float, places: Callable[[int], npt.NDArray[np.float64]]) -> SplatCloud:
    chosen = rng.permutation(len(cloud))[: int(len(cloud) * share)]
    centers = cloud.centers.copy()
    centers[chosen] = places(len(chosen))
    return replace(cloud, centers=centers)


def _hard(change: Callable[[SplatCloud], SplatCloud]) -> Spoil:
    return lambda cloud, rng: change(cloud)


def _nan_center(cloud: SplatCloud) -> SplatCloud:
    centers = cloud.centers.copy()
    centers[len(cloud) // 2, 1] = np.nan
    return replace(cloud, centers=centers)


JUNK: tuple[Junk, ...] = (
    Junk("squeezed flat", _flat, ("flat",)),
    Junk("squeezed flat, discs facing +Z", _flat_discs, ("flat",)),
    Junk("two crossed flat copies", _crossed(2), ("crossed_sheets",)),
    Junk("three crossed flat copies", _crossed(3), ("crossed_sheets",)),
    Junk("opacity x 0.02", _fainter(0.02), ("transparent", "haze", "nothing_visible")),
    Junk("opacity x 0.1", _fainter(0.1), ("transparent", "haze", "nothing_visible")),
    Junk("all colours 0.5 grey", _one_color(0.5), ("no_detail",)),
    Junk("all colours white", _one_color(1.0), ("no_detail",)),
    Junk("plain grey ball", _grey_ball, ("no_detail",)),
    Junk("colours shuffled among splats", _shuffled_colors, ("noise",)),
    Junk("random positions and colours in a cube", _random_cube, ("views_disagree", "leaves_view", "noise")),
    Junk("needles", _scaled(60, 0.2, 0.2), ("needles",)),
    Junk("scales x 6", _scaled(6, 6, 6), ("transparent", "blurred", "haze", "leaves_view")),
    Junk("scales x 0.02", _scaled(0.02, 0.02, 0.02), ("dust", "nothing_visible")),
    Junk("positions with noise", _shaken, ("transparent", "haze", "noise", "holes", "views_disagree")),
    Junk("a quarter of the splats in a larger box", _in_a_box, ("transparent", "haze", "holes", "noise")),
    Junk("5 % of the splats far away", _far_clouds, ("nothing_visible", "haze", "transparent", "dust")),
    Junk(
        "5 % of the splats far away, all small", _small_far_clouds, ("nothing_visible", "haze", "transparent", "dust")
    ),
    Junk("all points zero", _hard(lambda c: replace(c, centers=c.centers * 0)), ("degenerate",)),
    Junk("a NaN position", _hard(_nan_center), ("non_finite",)),
    Junk("all scales e^-30", _hard(lambda c: replace(c, log_scales=c.log_scales * 0 - 30)), ("degenerate",)),
    Junk(
        "all scales 1e6",
        _hard(lambda c: replace(c, log_scales=c.log_scales * 0 + np.log(np.float32(1e6)))),
        ("degenerate",),
    ),
    Junk("6,999 splats", _hard(lambda c: c.take(np.arange(6_999))), ("too_few_splats",)),
)


def run_table(scorer: Scorer, bases: tuple[str, ...] = BASES, seeds: tuple[int, ...] = SEEDS) -> Iterator[Row]:
    """Judge every genuine shape and all junk made of it, one row an asset."""
    for base in bases:
        cloud = shapes.build(base)
        yield _genuine_row(scorer, base, cloud, seeds)
        for k, junk in enumerate(JUNK):
            spoiled = junk.spoil(cloud, np.random.default_rng([k, BASES.index(base) if base in BASES else 99]))
            yield _junk_row(scorer, base, junk, spoiled, seeds)


def _genuine_row(scorer: Scorer, base: str, cloud: SplatCloud, seeds: tuple[int, ...]) -> Row:
    scores, reasons = _judge(scorer, base, cloud, seeds)
    return Row("genuine", base, True, min(scores), max(scores), reasons, min(scores) >= GENUINE_LIMIT)


def _junk_row(scorer: Scorer, base: str, junk: Junk, cloud: SplatCloud, seeds: tuple[int, ...]) -> Row:
    scores, reasons = _judge(scorer, base, cloud, seeds)
    is_right = max(scores) < JUNK_LIMIT and bool(set(reasons) & set(junk.reasons))
    return Row(junk.name, base, False, min(scores), max(scores), reasons, is_right)


def _judge(scorer: Scorer, base: str, cloud: SplatCloud, seeds: tuple[int, ...]) -> tuple[list[float], tuple[str, ...]]:
    """The scores of all seeds, and every reason that was named."""
    scores: list[float] = []
    reasons: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix="grid-junk-") as folder:
        path = Path(folder, "asset.ply")
        with path.open("wb") as file:
            write_ply(file, cloud)
        for seed in seeds:
            report = _report(scorer, path, ScoreTask("junk", f"a {base}", seed, "text_to_3d", "ply"))
            scores.append(report.score)
            reasons.update(dict.fromkeys(report.reasons))
    return scores, tuple(reasons)


def _report(scorer: Scorer, path: Path, task: ScoreTask) -> Report:
    try:
        return scorer.score(path, task)
    except InvalidAsset as error:
        return Report.rejected(
            error.reason, task=task, scorer=scorer.version, score_kind=scorer.score_kind, threshold=0.6
        )
