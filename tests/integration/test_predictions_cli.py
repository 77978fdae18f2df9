"""`flask predictions` as an operator meets it, and as anybody meets it who was handed a receipt."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from grid_node.predictions.ports import Miner
from tests.command_line import CommandLine
from tests.miners import game, new_keypair, prediction_message, public_key
from tests.nodes import ROOT


class Operator(CommandLine):
    """Types commands on a node's machine, and lets miners predict there."""

    commands = ("predictions",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.grid.predicting.log.open()
        self.grid.predicting.predictions.intake.start()
        self.grid.predicting.games.put("nfl-17", game())

    def close(self) -> None:
        self.grid.predicting.predictions.intake.stop()
        super().close()

    def predict(self, keypair: Keypair, **members: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was sent, and its receipt."""
        sent = prediction_message(keypair, self.grid.node_key.hotkey, **members)
        miner = Miner(public_key(keypair).hex(), keypair.ss58_address, public_key(keypair))
        answer = self.grid.predicting.predictions.submit(miner, sent, "http").wait(20)
        assert answer is not None
        return sent, json.loads(answer.text)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    made = Operator(tmp_path_factory.mktemp("operator"))
    yield made
    made.close()


@pytest.fixture
def keypair() -> Keypair:
    return new_keypair()


# --- list and show ----------------------------------------------------------------------------------------------------


def test_predictions_are_listed_newest_first(operator, keypair):
    operator.predict(keypair, prediction_id="first", wager="2.50")
    operator.predict(keypair, prediction_id="second", wager="0")
    moment = operator.predict(keypair, prediction_id="third")[1]["received_at"]

    lines = operator.done("list", "--miner", keypair.ss58_address).splitlines()

    assert [line.split("|")[2] for line in lines] == ["third", "second", "first"]
    assert lines[0] == f"{keypair.ss58_address}|3|third|nfl-17|successful|1.00|1|2.1000|-|{moment}"
    assert lines[1].startswith(f"{keypair.ss58_address}|2|second|nfl-17|invalid_wager|-|-|-|-|")
    assert operator.done("list", "--limit", "1").splitlines() == lines[:1]


def test_a_list_in_json(operator, keypair):
    operator.predict(keypair, prediction_id="in-json")

    (line,) = json.loads(operator.done("list", "--miner", keypair.ss58_address, "--json"))

    assert (line["prediction_id"], line["wager"], line["payout"]) == ("in-json", "1.00", None)


def test_a_list_of_a_miner_that_never_predicted(operator, keypair):
    assert operator.done("list", "--miner", keypair.ss58_address) == ""
    assert operator.done("list", "--miner", "key:abc") == ""
    assert operator.refused("list", "--miner", "nonsense") == "Invalid hotkey"
    assert operator.flask("list", "--limit", "0").exit_code == 2


def test_a_prediction_is_shown_with_what_was_sent_and_its_receipt(operator, keypair):
    sent, receipt = operator.predict(keypair, prediction_id="to-show")

    shown = json.loads(operator.done("show", "to-show", "--json"))
    lines = operator.done("show", "to-show").splitlines()

    assert (shown["prediction"], shown["receipt"], shown["seq"]) == (sent["prediction"], receipt, 1)
    assert f"miner: {keypair.ss58_address}" in lines
    assert "payout: -" in lines
    assert f"receipt: {canonical(receipt).decode()}" in lines


def test_a_terminal_obeys_nothing_that_a_miner_sent(operator, keypair):
    sent, _ = operator.predict(keypair, model_name="x\x9b2J\x85\x7f")
    shown = operator.done("show", sent["prediction"]["prediction_id"])
    assert not set(map(chr, range(0x7F, 0xA0))) & set(shown)
    (body,) = [line.removeprefix("prediction: ") for line in shown.splitlines() if line.startswith("prediction: ")]
    assert json.loads(body) == sent["prediction"]


def test_what_can_be_no_id_and_no_miner_is_answered_so(operator):
    assert operator.refused("show", "\udcff") == "Prediction not found"
    assert operator.refused("list", "--miner", "key:\udcff") == "Invalid hotkey"


def test_an_id_that_two_miners_used_needs_the_miner(operator, keypair):
    operator.predict(keypair, prediction_id="shared")
    operator.predict(new_keypair(), prediction_id="shared")

    assert "--miner" in operator.refused("show", "shared")
    assert f"miner: {keypair.ss58_address}" in operator.done("show", "shared", "--miner", keypair.ss58_address)
    assert operator.refused("show", "nothing") == "Prediction not found"


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(operator, keypair, tmp_path) -> dict[str, Path]:
    """A receipt and what it is about, each as it may be at hand."""
    sent, receipt = operator.predict(keypair)
    contents = {
        "receipt": receipt,
        "answer": {"success": True, "receipt": receipt},
        "message": sent,
        "body": sent["prediction"],
        "changed": {**receipt, "seq": receipt["seq"] + 1},
        "other": {**sent["prediction"], "wager": "2.00"},
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    return {name: tmp_path / name for name in contents}


def test_a_genuine_receipt(operator, keypair, files):
    said = operator.done("verify", str(files["receipt"]))

    receipt = json.loads(files["receipt"].read_text())
    assert said == f"Genuine: {receipt['prediction_id']} of {keypair.ss58_address}, accepted, seq 1\n"
    for name in ("receipt", "answer"):
        for about in ("message", "body"):
            assert operator.done("verify", str(files[name]), "--prediction", str(files[about])) == said


def test_a_genuine_rejection(operator, keypair, tmp_path):
    _, receipt = operator.predict(keypair, wager="0")
    (tmp_path / "rejection").write_text(json.dumps(receipt))

    assert "rejected (invalid_wager)" in operator.done("verify", str(tmp_path / "rejection"))


def test_a_receipt_of_which_one_byte_was_changed(operator, files):
    said = operator.refused("verify", str(files["changed"]))

    assert said.startswith("Not genuine: ")
    assert "--node-hotkey" not in said


def test_a_receipt_of_another_node(operator, files):
    other = new_keypair().ss58_address

    foreign = files["receipt"].with_name("foreign")
    foreign.write_text(json.dumps({**json.loads(files["receipt"].read_text()), "sender_hotkey": other}))

    assert operator.refused("verify", str(files["receipt"]), "--node-hotkey", other).endswith("another node")
    assert operator.refused("verify", str(foreign)).endswith("(--node-hotkey names a node other than this one)")
    assert operator.refused("verify", str(files["receipt"]), "--node-hotkey", "x") == "Invalid hotkey"


def test_a_receipt_about_another_body(operator, files):
    said = operator.refused("verify", str(files["receipt"]), "--prediction", str(files["other"]))

    assert said.startswith("Not genuine: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"a":NaN}', b'{"a":1,"a":1}', b"\xff", b" " * 1048577])
def test_a_file_that_holds_no_receipt(operator, tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    assert operator.refused("verify", str(tmp_path / "file"))


def test_a_receipt_is_verified_where_there_is_no_database_and_no_setting(operator, files, tmp_path):
    """Anybody with the files and the node's public key."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    environment |= {"FLASK_APP": str(ROOT / "app.py"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "flask", "predictions", "verify", "--node-hotkey"]
    command += [operator.grid.node_key.hotkey]

    captured: dict[str, Any] = {"capture_output": True}

    good, bad = (
        subprocess.run(
            [*command, str(files[name])], cwd=elsewhere, env=environment, timeout=60, check=False, **captured
        )
        for name in ("receipt", "changed")
    )

    assert (good.returncode, good.stdout[:9]) == (0, b"Genuine: "), good.stderr
    assert (bad.returncode, bad.stdout) == (1, b"")
    assert not (elsewhere / "instance" / "grid.db").exists()
