import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grid_client.receipts import InvalidReceipt, Receipt, body_digest, canonical, read_json, verify_receipt

from tests.unit.clients.prediction_node import MINER, NODE, STRANGER, prediction, receipt_of, rejection_of, sign

BODY = prediction("p1")
HOTKEY = NODE.ss58_address


def test_a_receipt_of_the_node_about_this_body_passes() -> None:
    verify_receipt(receipt_of(BODY), HOTKEY)
    verify_receipt(receipt_of(BODY), HOTKEY, BODY)


def test_a_stored_rejection_is_a_receipt_too() -> None:
    verify_receipt(rejection_of(BODY), HOTKEY, BODY)
    read = Receipt.of(rejection_of(BODY, seq=3))
    assert (read.accepted, read.code, read.seq, read.accepted_odds) == (False, "game_started", 3, None)


def test_members_that_nobody_knows_are_covered_by_the_signature() -> None:
    verify_receipt(receipt_of(BODY, later="version"), HOTKEY, BODY)
    with pytest.raises(InvalidReceipt, match="signature"):
        verify_receipt({**receipt_of(BODY), "later": "version"}, HOTKEY, BODY)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 2},
        {"accepted_odds": "2.2000"},
        {"received_at": "2026-11-20T12:00:00.004Z"},
        {"miner_stats": {}},
        {"message": "Prediction Accepted"},
        {"signature": "0x" + "00" * 64},
    ],
)
def test_one_changed_member_fails(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidReceipt, match="signature"):
        verify_receipt({**receipt_of(BODY), **changes}, HOTKEY, BODY)


def test_each_changed_character_fails() -> None:
    text = json.dumps(receipt_of(BODY), separators=(",", ":"))
    for at in range(0, len(text), 17):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        try:
            read = read_json(changed)
        except ValueError:
            continue
        with pytest.raises(InvalidReceipt):
            verify_receipt(read, HOTKEY, BODY)


def test_a_receipt_of_another_node_fails() -> None:
    with pytest.raises(InvalidReceipt, match="another node"):
        verify_receipt(receipt_of(BODY, keypair=STRANGER), HOTKEY)
    forged = sign({**receipt_of(BODY), "sender_hotkey": HOTKEY}, STRANGER)
    with pytest.raises(InvalidReceipt, match="signature"):
        verify_receipt(forged, HOTKEY)


def test_a_receipt_about_another_body_or_prediction_fails() -> None:
    with pytest.raises(InvalidReceipt, match="another body"):
        verify_receipt(receipt_of(BODY), HOTKEY, {**BODY, "wager": "2.00"})
    with pytest.raises(InvalidReceipt, match="another prediction"):
        verify_receipt(receipt_of(BODY), HOTKEY, {**BODY, "prediction_id": "p2"})
    with pytest.raises(InvalidReceipt, match="another prediction"):
        verify_receipt(receipt_of(BODY), HOTKEY, "p1")
    with pytest.raises(InvalidReceipt, match="canonical"):
        verify_receipt(receipt_of(BODY), HOTKEY, {**BODY, "wager": float("nan")})


@pytest.mark.parametrize(
    "changes",
    [
        {"message_type": "authenticated"},
        {"seq": 0},
        {"seq": True},
        {"seq": "1"},
        {"success": "true"},
        {"success": None},
        {"code": "game_started"},
        {"error": "but"},
        {"accepted_odds": 2.1},
        {"accepted_odds": None},
        {"body_sha256": "AB" * 32},
        {"prediction_id": "p 1"},
        {"received_at": "2026-11-20T12:00:00"},
        {"received_at": "2026-11-20 12:00:00Z"},
        {"received_at": "2026-13-20T12:00:00Z"},
        {"timestamp": None},
        {"miner_stats": None},
        {"receiver_hotkey": ""},
        {"success": False},
        {"success": False, "code": "x", "status": 422},
        {"success": False, "code": "x", "status": 409, "accepted_odds": None},
    ],
)
def test_a_misshapen_receipt_fails_although_it_is_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidReceipt) as failed:
        verify_receipt(receipt_of(BODY, **changes), HOTKEY)
    assert failed.value.reason
    assert "signature" not in failed.value.reason


@pytest.mark.parametrize("signature", [None, "", "0x12", "ab" * 64, "0x" + "zz" * 64, 5, "0x" + "ab" * 65])
def test_a_malformed_signature_fails(signature: object) -> None:
    with pytest.raises(InvalidReceipt, match="signature is missing or malformed"):
        verify_receipt({**receipt_of(BODY), "signature": signature}, HOTKEY)


@pytest.mark.parametrize("receipt", [None, [], "receipt", 7, {}, {"message_type": "confirmation"}])
def test_what_is_no_receipt_fails(receipt: object) -> None:
    with pytest.raises(InvalidReceipt):
        verify_receipt(receipt, HOTKEY)


def test_a_node_hotkey_that_is_none_fails() -> None:
    with pytest.raises(InvalidReceipt, match="no hotkey"):
        verify_receipt({**receipt_of(BODY), "sender_hotkey": "5nonsense"}, "5nonsense")


def test_the_digest_is_of_the_canonical_form() -> None:
    assert canonical({"b": 1.0, "a": "ü"}) == '{"a":"ü","b":1}'.encode()
    assert body_digest({"b": 1, "a": 2}) == body_digest({"a": 2, "b": 1})
    for value in (float("inf"), 2**60, {"a": object()}, "\ud800"):
        with pytest.raises(ValueError):
            canonical(value)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":NaN}', "[1e999]", "{", "[" * 100_000, '"\\ud800"'])
def test_a_text_that_two_readers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_a_receipt_is_verified_without_network_node_or_flask(tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text(json.dumps(receipt_of(BODY)))
    script = f"""
import socket, sys
def refuse(*arguments): raise AssertionError("network")
socket.socket.connect = refuse
from grid_client.receipts import read_json, verify_receipt
verify_receipt(read_json(open({str(tmp_path / "receipt.json")!r}).read()), {HOTKEY!r}, {BODY!r})
assert not [name for name in sys.modules if name.split(".")[0] in ("grid_node", "flask", "sqlalchemy")]
"""
    folder = Path(__file__).parents[3] / "clients" / "python"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env={"PYTHONPATH": str(folder)})


def test_the_receipt_names_its_miner() -> None:
    assert receipt_of(BODY)["receiver_hotkey"] == MINER.ss58_address
