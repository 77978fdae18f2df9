import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grid_client.cli.main import main

KEY = "key-of-the-tests-0001"
BEST = {
    "n": 0,
    "hotkey": "key:abc/w",
    "score": 0.91,
    "format": "ply",
    "size": 9,
    "sha256": "ab",
    "components": {"integrity": {"value": 1.0, "status": "ok"}, "alignment": {"status": "unavailable"}},
    "reasons": ["holes"],
}


def generate(node: Any, *arguments: str) -> int:
    return main(["generate", "--url", node.url, "--api-key", KEY, "a donut", *arguments])


def test_generate_prints_a_line_for_each_update_and_saves_the_best(
    node: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(sid: str, after: int) -> None:
        if len(node.updates) == 1:
            node.push(node.add_update("started"), sid)
            node.push(node.add_update("best_results", results=BEST), sid)

    node.on_resume = work
    node.assets["best"] = b"ply\nbytes"
    assert generate(node, "--send-first-results", "--copies", "2", "--out", str(tmp_path / "b.ply")) == 0
    queued, started, best, saved = capsys.readouterr().out.splitlines()
    assert queued == "queued: task t1, position 1, 1 workers free"
    assert started == "started"
    assert best == (
        "best results: score 0.910 by key:abc/w; ply, 9 bytes; integrity 1.000; alignment unavailable; reasons: holes"
    )
    assert saved.startswith("saved: ")
    assert (tmp_path / "b.ply").read_bytes() == b"ply\nbytes"
    assert node.generated[0]["send_first_results"] is True
    assert node.generated[0]["copies"] == 2


def test_a_failed_task_exits_1_and_says_why(node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    node.add_update("queued")
    node.add_update("failed", error={"code": "no_worker", "error": "No worker took the task"})
    node.on_generate = lambda sid: {"success": True, "task": {"id": "t1", "status": "queued", "seq": 1}}
    assert generate(node) == 1
    assert "no_worker: No worker took the task" in capsys.readouterr().err


def test_a_wrong_key_exits_1_and_never_prints_it(node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--url", node.url, "--api-key", "wrong-key-00000000", "p"]) == 1
    printed = capsys.readouterr()
    assert "invalid_key" in printed.err
    assert "wrong-key" not in printed.err + printed.out


def test_usage_errors_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GRID_API_KEY", raising=False)
    assert main(["generate", "p"]) == 2
    assert main(["worker", "run", "--node-url", "http://127.0.0.1:9"]) == 2
    missing = str(tmp_path / "absent")
    assert main(["worker", "run", "--node-url", "http://x", "--wallet-seed-file", missing]) == 2
    with pytest.raises(SystemExit) as wrong:
        main(["worker", "run", "--node-url", "http://x", "--api-key", KEY, "--quality", "0"])
    assert wrong.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_worker_finish_and_exit_0(node: Any, number: signal.Signals) -> None:
    lease = {"task_id": "t1", "lease_id": "l1", "kind": "text", "prompt": "p", "formats": ["text"]}
    node.leases = [lease]
    command = [sys.executable, "-m", "grid_client.cli.main", "worker", "run", "--node-url", node.url]
    environment = {**os.environ, "GRID_WORKER_API_KEY": KEY}
    with subprocess.Popen(
        [*command, "--generator", "text"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert node.submitted.acquire(timeout=20)
            process.send_signal(number)
            _, log = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, log
    assert KEY not in log
    assert len(node.submissions) == 1


def test_a_refused_worker_exits_1(node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    node.authenticate = lambda data: {"success": False, "status": 401, "code": "invalid_key", "error": "no"}
    arguments = ["worker", "run", "--node-url", node.url, "--api-key", KEY, "--generator", "text"]
    assert main(arguments) == 1
    assert "invalid_key" in capsys.readouterr().err
