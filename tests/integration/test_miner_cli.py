"""`grid-client miner` against a real node."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from grid_client.cli.main import main
from grid_client.outbox import Outbox

from tests import miners
from tests.nodes import ROOT, LiveNode, running_node, until


class Stand:
    """A node with one game, and a hotkey that it lets in."""

    def __init__(self, node: LiveNode, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.hotkey = miners.node_hotkey(node)
        self.keypair = self.let_in("miner.seed")

    def let_in(self, name: str) -> Keypair:
        keypair = self.stranger(name)
        miners.allow(self.node, keypair)
        return keypair

    def stranger(self, name: str) -> Keypair:
        seed = os.urandom(32).hex()
        (self.folder / name).write_text(seed)
        return Keypair.create_from_seed("0x" + seed)

    def options(self, seed: str = "miner.seed") -> list[str]:
        node = ["--node-url", self.node.url, "--node-hotkey", self.hotkey, "--outbox", str(self.outbox)]
        return [*node, "--wallet-seed-file", str(self.folder / seed)]

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox.db"

    def prediction(self, **members: Any) -> tuple[dict[str, Any], Path]:
        body = miners.prediction_body(**members)
        file = self.folder / f"{body['prediction_id']}.json"
        file.write_text(json.dumps(body))
        return body, file

    def states(self) -> dict[str, str]:
        outbox = Outbox(self.outbox)
        try:
            return {entry.prediction_id: entry.state for entry in outbox.entries()}
        finally:
            outbox.close()

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "grid_client.cli.main", "miner", *words, *self.options()]
        with (self.folder / "run.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self) -> str:
        return (self.folder / "run.log").read_text()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("node"), compute_processes=0) as node:
        miners.put_games(node, miners.game(), miners.game("nba-1", sport="basketball", league="NBA", active=False))
        yield node


@pytest.fixture
def stand(node: LiveNode, tmp_path: Path) -> Stand:
    return Stand(node, tmp_path)


def miner(*words: object) -> int:
    return main(["miner", *map(str, words)])


def test_a_prediction_gets_a_receipt_that_stands_without_the_node(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    body, file = stand.prediction(wager="7.50")
    receipt = stand.folder / "receipt.json"

    assert miner("submit", file, "--wait", "30", "--receipt", receipt, *stand.options()) == 0
    assert miner("verify", receipt, "--node-hotkey", stand.hotkey, "--prediction", file) == 0
    assert miner("status", body["prediction_id"], *stand.options()) == 0

    submitted, verified, told, *_ = capsys.readouterr().out.splitlines()
    assert submitted.startswith(f"receipt 1, {body['prediction_id']} accepted at 2.1000")
    assert verified == f"valid: {submitted}"
    assert told == f"{body['prediction_id']}: accepted, receipt 1"
    assert stand.states() == {body["prediction_id"]: "accepted"}


def test_a_rejection_exits_1_with_its_reason_and_its_receipt(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    _, file = stand.prediction(team_a_odds="9.99")
    receipt = stand.folder / "receipt.json"

    assert miner("submit", file, "--wait", "30", "--receipt", receipt, *stand.options()) == 1
    assert miner("verify", receipt, "--node-hotkey", stand.hotkey) == 0

    assert "rejected, odds_mismatch: Submitted team odds do not match" in capsys.readouterr().out


def test_a_stranger_is_told_so_with_the_hotkey_that_is_missing(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    address = stand.stranger("stranger.seed").ss58_address
    _, file = stand.prediction()

    assert miner("games", *stand.options("stranger.seed")) == 1
    assert miner("submit", file, "--wait", "2", *stand.options("stranger.seed")) == 1
    assert miner("status", *stand.options("stranger.seed")) == 0

    out, err = capsys.readouterr()
    last = [line for line in err.splitlines() if line.startswith("grid-client: ")]
    assert [line.split(": ")[1] for line in last] == ["not_registered", "deadline_exceeded"]
    assert all("not_registered: " in line and f"this miner is {address}" in line for line in last)
    assert f"miner: {address}" in out.splitlines()


def test_games_are_listed_and_filtered(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert miner("games", *stand.options()) == 0
    assert miner("games", "--sport", "basketball", *stand.options()) == 0
    assert miner("games", "--active", "true", *stand.options()) == 0
    assert miner("games", "--league", "none", *stand.options()) == 0
    assert miner("games", "--active", "false", "--json", *stand.options()) == 0

    *rows, found = capsys.readouterr().out.splitlines()
    assert [row.split("\t")[0] for row in rows] == ["nba-1", "nfl-17", "nba-1", "nfl-17"]
    assert list(json.loads(found)["games"]) == ["nba-1"]


def test_status_compares_the_nodes_hotkey(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    _, file = stand.prediction()
    miner("submit", file, *stand.options())
    other = [word if word != stand.hotkey else stand.keypair.ss58_address for word in stand.options()]

    assert miner("status", *stand.options()) == 0
    assert miner("status", *other) == 1

    out, err = capsys.readouterr()
    assert "wrong_node" in err
    assert "outbox: 1 queued, 0 sent, 0 accepted" in out
    assert f"node: online, connections 0, active_connections 0, pending 0, node_hotkey {stand.hotkey}" in out


def test_an_unknown_prediction_exits_1(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert miner("status", "nobody-knows", *stand.options()) == 1
    assert "prediction_not_found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("enabled", "way", "number"), [("True", "WebSocket", signal.SIGTERM), ("False", "HTTP", signal.SIGINT)]
)
def test_run_sends_what_other_commands_file_and_ends_by_signal(
    stand: Stand, enabled: str, way: str, number: signal.Signals
) -> None:
    before, first = stand.prediction()
    assert miner("submit", first, *stand.options()) == 0
    with stand.running("run", f"--websocket_enabled={enabled}") as process:
        until(lambda: stand.states()[before["prediction_id"]] == "accepted")
        after, second = stand.prediction()
        assert miner("submit", second, *stand.options()) == 0
        until(lambda: stand.states()[after["prediction_id"]] == "accepted")
        until(lambda: "games: a snapshot of 2" in stand.log())
        process.send_signal(number)
        assert process.wait(30) == 0, stand.log()

    assert f"Pushed prediction {after['prediction_id']} via {way}" in stand.log()
    assert (stand.folder / "miner.seed").read_text() not in stand.log()


def test_submit_and_status_leave_the_socket_of_a_run_alone(stand: Stand) -> None:
    with stand.running("run"):
        until(lambda: "games: a snapshot of 2" in stand.log())
        _, file = stand.prediction()
        assert miner("submit", file, "--wait", "30", *stand.options()) == 0
        assert miner("status", *stand.options()) == 0
        miners.Bookmaker(stand.node).put(miners.game(team_a_odds="1.81"))
        until(lambda: "team_a_odds 1.8000 -> 1.8100" in stand.log())
        miners.Bookmaker(stand.node).put(miners.game())

    assert "replaced" not in stand.log()
    assert stand.log().count("connected to") == 1


def test_the_example_predicts_once_whatever_happens_to_it(stand: Stand) -> None:
    with stand.running("example", "--least-value=-1") as process:
        until(lambda: "receipt 1: odds-nfl-17 accepted" in stand.log())
        process.kill()
        process.wait()
    first = stand.log()
    with stand.running("example", "--least-value=-1", "--fraction", "0.05"):
        until(lambda: "Game nfl-17 has a prediction already" in stand.log())

    assert "prediction odds-nfl-17: 10.00 on " in first
    assert stand.states() == {"odds-nfl-17": "accepted"}


def test_the_miner_of_the_documents_works(stand: Stand) -> None:
    guide = (ROOT / "docs" / "miners.md").read_text()
    program = guide.partition("## A miner of your own")[2].partition("```python")[2].partition("```")[0]
    for written, real in {
        "https://node.example": stand.node.url,
        '"5G..."': repr(stand.hotkey),
        '"hotkey.seed"': repr(str(stand.folder / "miner.seed")),
        '"outbox.db"': repr(str(stand.outbox)),
        "threading.Event().wait()": "",
    }.items():
        assert written in program
        program = program.replace(written, real)

    names: dict[str, Any] = {"my_model": lambda game: 0.7}
    exec(program, names)
    try:
        until(lambda: stand.states() == {"mine-nfl-17": "accepted"})
    finally:
        names["client"].stop(10.0)


def test_a_private_grids_miner_shows_a_key(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRID_WORKER_API_KEY", stand.node.add_key("miner", ("worker",)))
    _, file = stand.prediction()
    options = stand.options()[:-2]

    assert miner("submit", file, "--wait", "30", *options) == 0
    assert "accepted at 2.1000" in capsys.readouterr().out
