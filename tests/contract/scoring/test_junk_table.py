"""Junk is refused with a reason, genuine assets pass; the check itself is able to fail."""

import json

import pytest
from flask import Flask

from grid_node.cli import scorer as cli
from grid_node.scoring import rules, shapes
from grid_node.scoring.junk import JUNK, SEEDS, run_table
from grid_node.scoring.ply import write_ply
from grid_node.scoring.splats import SplatScorer


@pytest.mark.parametrize(("base", "seed"), list(zip(("robot", "donut", "tree"), SEEDS, strict=True)))
def test_every_row_of_the_table_is_on_its_side(scorer, base, seed):
    """One view seed for each shape here; `flask scorer junk` takes three for each."""
    rows = list(run_table(scorer, bases=(base,), seeds=(seed,)))

    assert len(rows) == len(JUNK) + 1
    assert [f"{row.name}: {row.highest} {row.reasons}" for row in rows if not row.is_right] == []


@pytest.mark.parametrize("base", ["robot", "donut", "tree"])
@pytest.mark.parametrize("seed", SEEDS[1:])
def test_genuine_shapes_pass_for_other_seeds(judge, base, seed):
    report = judge(shapes.build(base), seed)

    assert report.score >= 0.7
    assert report.reasons == ()


@pytest.fixture
def runner():
    app = Flask(__name__)
    app.cli.add_command(cli.scorer_cli)
    return app.test_cli_runner()


@pytest.fixture
def short_table(monkeypatch):
    """Only the rows that a gate of the geometry decides, for one shape and seed."""
    quick = tuple(row for row in JUNK if row.name in ("squeezed flat", "needles", "all points zero"))
    monkeypatch.setattr("grid_node.scoring.junk.JUNK", quick)
    monkeypatch.setattr("grid_node.scoring.junk.SEEDS", (11,))
    monkeypatch.setattr(run_table, "__defaults__", (("robot",), (11,)))


@pytest.mark.usefixtures("short_table")
def test_the_junk_command_ends_with_0_when_all_is_right(runner):
    result = runner.invoke(args=["scorer", "junk"])

    assert (result.exit_code, "All 4 assets are on the right side." in result.output) == (0, True)


@pytest.mark.usefixtures("short_table")
def test_the_junk_command_ends_with_1_when_a_gate_is_disabled(runner, monkeypatch):
    open_gates = {name: factors for name, factors in rules.GATES.items() if name != "shape"}
    monkeypatch.setattr(cli, "_load", lambda: SplatScorer(gates=open_gates))

    result = runner.invoke(args=["scorer", "junk", "--json"])

    wrong = [row["name"] for row in map(json.loads, result.stdout.splitlines()) if not row["right"]]
    assert (result.exit_code, wrong) == (1, ["needles"])


def test_a_file_is_judged_from_the_command_line(runner, tmp_path, robot):
    path = tmp_path / "robot.ply"
    with path.open("wb") as file:
        write_ply(file, robot)

    args = ["scorer", "score", str(path), "--seed", "5", "--json", "--previews", str(tmp_path / "p")]
    result = runner.invoke(args=args)

    body = json.loads(result.stdout)
    assert (result.exit_code, body["accepted"], body["view_seed"]) == (0, True, "0000000000000005")
    assert (tmp_path / "p/previews/grid.png").exists()


def test_a_refused_file_ends_with_1_and_says_why(runner, tmp_path):
    path = tmp_path / "page.ply"
    path.write_text("<html>")

    result = runner.invoke(args=["scorer", "score", str(path)])

    assert result.exit_code == 1
    assert "unknown_format" in result.output
