"""`make demo-predictions`, as somebody runs it who saw this project five minutes ago."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
from grid_client.receipts import verify_receipt

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 110
"""Seconds on a machine that does other things too."""


def demo(folder: Path, **streams: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "scripts/demo_predictions.py", "--output", str(folder)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    return subprocess.Popen(command, cwd=ROOT, env=environ, text=True, stdin=subprocess.DEVNULL, **streams)


def left_behind(folder: Path) -> list[int]:
    """Processes that still work in the demo's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(word.startswith(str(folder)) for word in told):
            found.append(process.pid)
    return found


def test_the_demo_tells_its_story_and_leaves_a_receipt(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    with demo(folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        story, _ = running.communicate(timeout=WITHIN)

    assert running.returncode == 0, story
    for step in (
        "operator: new 20 changed 0 unchanged 0",
        "miner: games: a snapshot of 20",
        "node: 1 connection, 1 active",
        " team_a_odds ",
        " outcome unfinished -> team ",
        ": settled, receipt 1",
        "anybody: valid: receipt ",
        "anybody, with one digit changed: not valid: ",
    ):
        assert step in story
    receipt, prediction = (json.loads((folder / name).read_text()) for name in ("receipt.json", "prediction.json"))
    verify_receipt(receipt, receipt["sender_hotkey"], prediction)
    assert left_behind(folder) == []


def test_a_demo_that_nobody_reads_any_more_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    with demo(folder, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert "starting a node" in running.stdout.readline()
        running.stdout.close()
        assert running.wait(WITHIN) == 1

    assert left_behind(folder) == []
