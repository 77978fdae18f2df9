"""The light side of scoring: port, kinds, text, settings; and what may be imported where."""

import hmac
import json
import subprocess
import sys
from pathlib import Path

import pytest

from grid_node.scoring.kinds import KINDS, KindSpec, register
from grid_node.scoring.port import Component, InvalidAsset, Report, ScoreTask, view_seed
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.text import TextScorer

ROOT = Path(__file__).parents[3]
TASK = ScoreTask("t-1", "a poem on rain", 0xA41F, "text", "text")


def test_the_view_seed_is_the_head_of_an_hmac_and_differs_by_task_and_secret():
    expected = hmac.new(b"secret", b"task-1", "sha256").digest()[:8]

    assert view_seed(b"secret", "task-1") == int.from_bytes(expected, "big")
    assert len({view_seed(b"secret", "task-1"), view_seed(b"secret", "task-2"), view_seed(b"other", "task-1")}) == 3


def test_a_report_becomes_the_wire_form_with_four_decimals():
    report = Report(
        score=0.123456,
        accepted=False,
        threshold=0.6,
        score_kind="integrity",
        scorer="splat-1",
        components={"quality": Component(0.98765), "alignment": Component(None, "unavailable", "no model")},
        gates={"solid": 1.0, "frame": None},
        signals={"coverage": 0.000049},
        reasons=("haze", "below_threshold"),
        view_seed=0xA41F,
        artifacts={"asset.spz": Path("x")},
    ).with_attempts(2)

    body = json.loads(json.dumps(report.to_dict()))

    assert list(body) == [
        *("success", "score", "accepted", "threshold", "score_kind", "scorer", "components", "gates", "signals"),
        *("reasons", "flags", "splats", "format", "bytes", "view_seed", "backend", "attempts", "seconds"),
    ]
    assert body["score"] == 0.1235
    assert body["components"] == {
        "quality": {"value": 0.9877, "status": "ok"},
        "alignment": {"value": None, "status": "unavailable", "why": "no model"},
    }
    assert body["gates"] == {"solid": 1.0, "frame": None}
    assert body["view_seed"] == "000000000000a41f"
    assert body["attempts"] == 2


@pytest.mark.parametrize("score_kind", ["integrity", "validity"])
def test_a_rejected_report_scores_zero_for_its_one_reason(score_kind):
    report = Report.rejected("truncated", task=TASK, scorer="x-1", score_kind=score_kind, threshold=0.6, size=9)
    body = report.to_dict()

    assert (body["score"], body["accepted"], body["reasons"], body["bytes"]) == (0.0, False, ["truncated"], 9)
    assert body["components"][score_kind] == {"value": 0.0, "status": "ok"}
    assert all(part["status"] == "ok" or part["value"] is None for part in body["components"].values())


def test_an_invalid_asset_carries_its_reason():
    error = InvalidAsset("bad_header", "no end")

    assert (error.reason, error.detail, str(error)) == ("bad_header", "no end", "bad_header: no end")


def test_a_text_is_valid(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_bytes("Regen fällt.".encode())

    body = TextScorer().score(path, TASK).to_dict()

    assert (body["score"], body["accepted"], body["score_kind"], body["bytes"]) == (1.0, True, "validity", 13)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "blank"),
        (b" \n\t ", "blank"),
        ("\u2003".encode(), "blank"),
        (b"\xff\xfe", "bad_encoding"),
        (b" A POEM on rain\n", "prompt_repeated"),
        (b"x" * 65_537, "too_large"),
    ],
)
def test_a_bad_text_is_refused(tmp_path, data, reason):
    path = tmp_path / "text"
    path.write_bytes(data)

    with pytest.raises(InvalidAsset) as caught:
        TextScorer().score(path, TASK)
    assert caught.value.reason == reason


def test_a_text_of_exactly_the_limit_is_valid():
    assert TextScorer().judge(b"x" * 65_536, TASK).accepted


def test_text_is_judged_inline_and_splats_are_not():
    assert KINDS["text"].inline
    assert not KINDS["text_to_3d"].inline
    assert KINDS["text_to_3d"].formats == ("ply", "spz")


def test_a_kind_can_be_added_once(monkeypatch):
    monkeypatch.setattr("grid_node.scoring.kinds.KINDS", dict(KINDS))
    spec = KindSpec("haiku", ("text",), 1_000, True, "grid_node.scoring.text:TextScorer")

    register(spec)

    assert isinstance(spec.load(ScoringSettings()), TextScorer)
    with pytest.raises(ValueError, match="haiku"):
        register(spec)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.1},
        {"min_splats": 0},
        {"max_splats": 10},
        {"max_bytes": 0},
        {"view_size": 8},
        {"preview_size": 9_000},
        {"up_axis": "Z"},
        {"backend": "cuda"},
        {"previews": -1},
    ],
)
def test_nonsense_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        ScoringSettings(**wrong)


def in_a_fresh_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_light_modules_load_neither_torch_nor_numba_nor_numpy():
    loaded = in_a_fresh_python(
        "import sys; from grid_node.scoring import port, kinds, settings, text; "
        "kinds.KINDS['text'].load(settings.ScoringSettings()).warm(); "
        "print([m for m in ('torch', 'numba', 'numpy', 'PIL', 'zstandard', 'flask') if m in sys.modules])"
    )

    assert loaded.strip() == "[]"


def test_the_command_line_loads_no_heavy_module():
    loaded = in_a_fresh_python(
        "import sys; import grid_node.cli.scorer; print([m for m in ('torch', 'numba', 'numpy') if m in sys.modules])"
    )

    assert loaded.strip() == "[]"


def test_the_scorer_loads_and_judges_without_flask_database_or_network():
    program = """
import socket, sys
def refuse(*_, **__): raise AssertionError("network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from grid_node.scoring.kinds import KINDS
from grid_node.scoring.settings import ScoringSettings
KINDS["text_to_3d"].load(ScoringSettings(view_size=32, previews=0)).warm()
names = ("flask", "sqlalchemy", "socketio", "eventlet", "requests", "grid_node.database")
print([name for name in names if name in sys.modules])
"""
    assert in_a_fresh_python(program).strip() == "[]"
