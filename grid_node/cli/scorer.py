"""`flask scorer`: judge files, check the scorer, prove that junk is refused, measure.

The commands import the scoring package when they run: numba and torch take seconds, which no other command should pay.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup

from grid_node.scoring.kinds import KINDS
from grid_node.scoring.port import InvalidAsset, Report, Scorer, ScoreTask
from grid_node.scoring.settings import ScoringSettings

if TYPE_CHECKING:
    from grid_node.scoring.junk import Row

KIND = "text_to_3d"
BENCH_SPLATS = (40_000, 268_000, 800_000)

scorer_cli = AppGroup("scorer", help="Judge assets and check the scorer.")


@scorer_cli.command("score")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prompt", default="", help="The task's prompt.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="View seed; random when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--previews", type=click.Path(file_okay=False, path_type=Path), help="Write previews into this folder.")
def score(file: Path, prompt: str, seed: int | None, as_json: bool, previews: Path | None) -> None:
    """Judge a PLY or SPZ file as a task's result; exit 1 when it is not accepted."""
    task = ScoreTask("cli", prompt, secrets.randbits(64) if seed is None else seed, KIND, _format_of(file))
    if previews is not None:
        previews.mkdir(parents=True, exist_ok=True)
    scorer = _load()
    try:
        report, detail = scorer.score(file, task, previews), ""
    except InvalidAsset as error:
        report, detail = _rejected(scorer, error, task, file), error.detail
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else _in_words(report, detail))
    if previews is not None and not report.artifacts:
        click.echo("No previews: the asset was refused before its views were rendered.", err=True)
    sys.exit(0 if report.accepted else 1)


@scorer_cli.command("check")
def check() -> None:
    """Say what judges here, and time one asset."""
    scorer = _load()
    started = time.perf_counter()
    scorer.warm()
    warm_s = time.perf_counter() - started
    report = _timed(scorer, BENCH_SPLATS[0])
    click.echo(f"scorer     {scorer.version}")
    click.echo(f"backend    {report.backend}")
    click.echo("models     none (alignment is unavailable)")
    click.echo("versions   " + ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy")))
    click.echo(f"warm-up    {warm_s:.2f} s")
    click.echo(f"one asset  {report.splats} splats, score {report.score}, {report.seconds:.2f} s with previews")
    if not report.accepted:
        raise click.ClickException("a genuine asset was refused: run `flask scorer junk`")


@scorer_cli.command("junk")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def junk(as_json: bool) -> None:
    """Judge genuine shapes and junk made of them; exit 1 when one is on the wrong side."""
    from grid_node.scoring.junk import run_table  # noqa: PLC0415 - loads numba and torch

    rows = list(run_table(_load()))
    for row in rows:
        click.echo(json.dumps(_row(row)) if as_json else _row_in_words(row))
    wrong = [row for row in rows if not row.is_right]
    if wrong:
        click.echo(f"{len(wrong)} of {len(rows)} assets are on the wrong side.", err=True)
        sys.exit(1)
    if not as_json:
        click.echo(f"All {len(rows)} assets are on the right side.")


@scorer_cli.command("bench")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Rounds for each size.")
def bench(rounds: int) -> None:
    """Time full reports with previews of three sizes."""
    scorer = _load()
    scorer.warm()
    for splats in BENCH_SPLATS:
        seconds = [_timed(scorer, splats).seconds for _ in range(rounds)]
        middle = statistics.median(seconds)
        click.echo(f"{splats:>8} splats  median {middle:.2f} s  min {min(seconds):.2f} s  max {max(seconds):.2f} s")


def _format_of(file: Path) -> str:
    """What an honest worker would say of it; the file's name says nothing."""
    with file.open("rb") as opened:
        return "ply" if opened.read(3) == b"ply" else "spz"


def _load() -> Scorer:
    return KINDS[KIND].load(ScoringSettings())


def _timed(scorer: Scorer, splats: int) -> Report:
    from grid_node.scoring import ply, shapes  # noqa: PLC0415 - loads numpy

    with tempfile.TemporaryDirectory(prefix="grid-scorer-") as folder:
        path = Path(folder, "asset.ply")
        with path.open("wb") as file:
            ply.write_ply(file, shapes.build("robot", splats))
        return scorer.score(path, ScoreTask("cli", "a robot", 1, KIND, "ply"), Path(folder))


def _rejected(scorer: Scorer, error: InvalidAsset, task: ScoreTask, file: Path) -> Report:
    return Report.rejected(
        error.reason,
        task=task,
        scorer=scorer.version,
        score_kind=scorer.score_kind,
        threshold=ScoringSettings().threshold,
        size=file.stat().st_size,
    )


def _in_words(report: Report, detail: str) -> str:
    body = report.to_dict()
    lines = [
        f"score    {body['score']} ({'accepted' if report.accepted else 'refused'}, threshold {report.threshold})",
        f"reasons  {', '.join(report.reasons) or 'none'}" + (f" ({detail})" if detail else ""),
        f"scorer   {report.scorer} ({report.score_kind}), view seed {body['view_seed']}",
    ]
    for title in ("gates", "signals"):
        lines += [f"{title[:-1]:<8} {name} {_number(value)}" for name, value in body[title].items()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not judged" if value is None else f"{value:.4f}"


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "base": row.base,
        "genuine": row.is_genuine,
        "lowest": row.lowest,
        "highest": row.highest,
        "reasons": list(row.reasons),
        "right": row.is_right,
    }


def _row_in_words(row: Row) -> str:
    mark = "ok   " if row.is_right else "WRONG"
    return f"{mark} {row.base:<6} {row.name:<40} {row.lowest:.4f}..{row.highest:.4f}  {', '.join(row.reasons)}"
