"""P7: a receipt is signed and verifies offline: id, body, time, place in line and verdict."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grid_client.receipts import InvalidReceipt, verify_receipt

from tests.miners import Miner, new_keypair
from tests.nodes import ROOT

OFFLINE = """
import json, sys
def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise PermissionError(event)
from grid_client.receipts import InvalidReceipt, verify_receipt
sys.addaudithook(refuse)
receipt, node_hotkey, prediction = json.load(sys.stdin)
try:
    verify_receipt(receipt, node_hotkey, prediction)
except InvalidReceipt as error:
    sys.exit(error.reason)
"""


@pytest.fixture
def message(miner: Miner) -> dict[str, Any]:
    return miner.message(confidence_score=0.25, model_name="élan vital")


@pytest.fixture
def receipt(miner: Miner, message: dict[str, Any]) -> dict[str, Any]:
    return miner.send(message)


def verified_offline(*what: Any) -> "subprocess.CompletedProcess[str]":
    """By a process of its own that may open no socket."""
    environment = {"PYTHONPATH": str(ROOT / "clients" / "python"), "PATH": ""}
    command = [sys.executable, "-c", OFFLINE]
    return subprocess.run(
        command, input=json.dumps(what), env=environment, text=True, capture_output=True, timeout=60, check=False
    )


def test_p7_a_receipt_verifies_in_a_process_without_network_and_not_after_a_change(
    miner: Miner, message: dict[str, Any], receipt: dict[str, Any]
) -> None:
    genuine = verified_offline(receipt, miner.node_hotkey, message["prediction"])
    assert (genuine.returncode, genuine.stderr) == (0, "")
    forged = verified_offline({**receipt, "seq": receipt["seq"] + 1}, miner.node_hotkey, message["prediction"])
    assert (forged.returncode, forged.stderr.strip()) == (
        1,
        "the signature is not the node's, or something was changed",
    )


def test_p7_a_rejection_is_signed_like_an_acceptance(miner: Miner) -> None:
    message = miner.message(game_id="nowhere")
    rejection = miner.send(message)
    assert rejection["success"] is False
    verify_receipt(rejection, miner.node_hotkey, message["prediction"])


def test_p7_no_member_of_a_receipt_can_be_changed_taken_away_or_added(
    miner: Miner, message: dict[str, Any], receipt: dict[str, Any]
) -> None:
    verify_receipt(receipt, miner.node_hotkey, message["prediction"])
    for forged in forgeries(receipt):
        with pytest.raises(InvalidReceipt):
            verify_receipt(forged, miner.node_hotkey, message["prediction"])


def forgeries(receipt: dict[str, Any]) -> list[dict[str, Any]]:
    other = {name: changed(value) for name, value in receipt.items()}
    forged = [{**receipt, name: value} for name, value in other.items()]
    forged += [{name: value for name, value in receipt.items() if name != gone} for gone in receipt]
    forged.append({**receipt, "note": "paid"})
    stats = receipt["miner_stats"]
    forged += [{**receipt, "miner_stats": {**stats, name: changed(value)}} for name, value in stats.items()]
    return forged


def changed(value: Any) -> Any:
    """Another value of the same kind, which differs as little as can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, dict):
        return {**value, "more": 1}
    last = value[-1]
    return value[:-1] + ("1" if last == "0" else "0")


def test_p7_each_byte_of_the_stored_text_counts(miner: Miner, receipt: dict[str, Any]) -> None:
    text = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for place in range(0, len(text), 7):
        byte = "x" if text[place] != "x" else "y"
        with pytest.raises((InvalidReceipt, ValueError)):
            verify_receipt(json.loads(text[:place] + byte + text[place + 1 :]), miner.node_hotkey)


def test_p7_another_nodes_key_and_another_body_do_not_pass(
    miner: Miner, message: dict[str, Any], receipt: dict[str, Any]
) -> None:
    other = str(new_keypair().ss58_address)
    for forged, node_hotkey, body in (
        (receipt, other, message["prediction"]),
        ({**receipt, "sender_hotkey": other}, other, message["prediction"]),
        (receipt, miner.node_hotkey, {**message["prediction"], "wager": "100.00"}),
        (receipt, miner.node_hotkey, {**message["prediction"], "prediction_id": "another"}),
        (receipt, miner.node_hotkey, {}),
    ):
        with pytest.raises(InvalidReceipt):
            verify_receipt(forged, node_hotkey, body)


def test_p7_the_command_line_verifies_a_file(
    tmp_path: Path, miner: Miner, message: dict[str, Any], receipt: dict[str, Any]
) -> None:
    pytest.importorskip("grid_client.cli.miner")
    file, body = tmp_path / "receipt.json", tmp_path / "body.json"
    body.write_text(json.dumps(message["prediction"]))
    outcomes = []
    for content in (receipt, {**receipt, "accepted_odds": "9.9999"}):
        file.write_text(json.dumps(content))
        command = [sys.executable, "-m", "grid_client.cli.main", "miner", "verify", str(file)]
        command += ["--node-hotkey", miner.node_hotkey, "--prediction", str(body)]
        environment = {"PYTHONPATH": str(ROOT / "clients" / "python"), "PATH": ""}
        outcomes.append(
            subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode
        )
    assert outcomes == [0, 1]
