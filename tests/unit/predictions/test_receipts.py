"""Receipts: what a miner is told, and that the node's signature covers it."""

from dataclasses import replace
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from grid_node.clock import ManualClock, parse_rfc3339
from grid_node.errors import BadSignature
from grid_node.identity.hotkeys import check_message
from grid_node.identity.node_key import NodeKey
from grid_node.predictions.messages import read_prediction
from grid_node.predictions.ports import Miner
from grid_node.predictions.receipts import Day, confirmation, utc_day
from grid_node.predictions.rules import Limits, Offer, judge
from tests.unit.predictions.bodies import SENT

NOW = parse_rfc3339("2026-11-20T12:00:00.003Z")
NODE = NodeKey(Keypair.create_from_seed("0x" + "01" * 32))
MINER_KEY = Keypair.create_from_seed("0x" + "02" * 32)
MINER = Miner(MINER_KEY.public_key.hex(), MINER_KEY.ss58_address, MINER_KEY.public_key, 7)
OFFER = Offer("nfl-17", "Giants", "Cowboys", NOW + 60, True, 3, 18000, 21000, None)
WITH_NUMBERS = {**SENT, "predicted_odds": 2.1, "team_b_odds": 2.1, "confidence_score": 0.75}
STATS = {"utc_day": "2026-11-20", "wagered": "110.00", "remaining": "890.00", "accepted": 11}


class SignsAsNode:
    """The node's key behind the port, at a fixed time."""

    hotkey = NODE.hotkey

    def __init__(self) -> None:
        self._clock = ManualClock(NOW + 0.003)

    def base_fields(self, message_type: str) -> dict[str, Any]:
        return NODE.base_fields(message_type, self._clock)

    def signed(self, message: Any) -> dict[str, Any]:
        return NODE.sign_message(message)


def receipt(offer: Offer | None = OFFER, miner: Miner = MINER, wagered: int = 11000, **sent: Any) -> dict[str, Any]:
    prediction = read_prediction({**WITH_NUMBERS, **sent})
    return confirmation(
        SignsAsNode(),
        miner,
        prediction,
        judge(prediction, offer, 10000, Limits(100, 100000), NOW),
        seq=41,
        received_at=NOW,
        day=Day(utc_day(NOW), wagered, 11),
        daily_limit=100000,
        offer=offer,
        position=("00000000deadbeef", 17),
    )


def without(message: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


def floats_in(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in floats_in(item)]
    return [value] if isinstance(value, float) else []


def test_an_accepted_prediction_gets_exactly_this_receipt():
    assert without(receipt(), "message_id", "signature") == {
        "sender_hotkey": NODE.hotkey,
        "receiver_hotkey": MINER.address,
        "timestamp": "2026-11-20T12:00:00.006Z",
        "message_type": "confirmation",
        "prediction_id": "nfl-17_9f2c",
        "success": True,
        "message": "Prediction accepted",
        "code": "successful",
        "body_sha256": read_prediction(WITH_NUMBERS).body_sha256,
        "received_at": "2026-11-20T12:00:00.003Z",
        "seq": 41,
        "accepted_odds": "2.1000",
        "miner_stats": STATS,
    }


def test_a_rejected_prediction_gets_a_receipt_with_the_error_and_without_odds():
    made = receipt(wager="1.001")
    assert without(made, "message_id", "signature") == {
        "sender_hotkey": NODE.hotkey,
        "receiver_hotkey": MINER.address,
        "timestamp": "2026-11-20T12:00:00.006Z",
        "message_type": "confirmation",
        "prediction_id": "nfl-17_9f2c",
        "success": False,
        "message": "Invalid wager value",
        "code": "invalid_wager",
        "error": "Invalid wager value",
        "status": 422,
        "body_sha256": read_prediction({**WITH_NUMBERS, "wager": "1.001"}).body_sha256,
        "received_at": "2026-11-20T12:00:00.003Z",
        "seq": 41,
        "miner_stats": STATS,
    }


@pytest.mark.parametrize("tie_odds", [None, 32000])
def test_odds_that_do_not_match_are_answered_with_the_current_ones(tie_odds):
    made = receipt(replace(OFFER, tie_odds=tie_odds), team_a_odds="1.70")
    assert made["code"] == "odds_mismatch"
    assert made["seq"] == 41
    assert made["current"] == {
        "team_a_odds": "1.8000",
        "team_b_odds": "2.1000",
        "tie_odds": None if tie_odds is None else "3.2000",
        "epoch": "00000000deadbeef",
        "seq": 17,
    }


def test_other_rejections_say_nothing_of_the_offer():
    assert "current" not in receipt(team_a="x")
    assert "current" not in receipt(offer=None)
    assert "current" not in receipt()


@pytest.mark.parametrize("sent", [{}, {"wager": 0.5}, {"team_a_odds": 1.7}, {"predicted_outcome": 1.5}])
def test_a_receipt_holds_no_floats_and_the_signature_covers_all_of_it(sent):
    made = receipt(**sent)
    assert floats_in(made) == []
    check_message(NODE.public_key, made)
    for name in made:
        if name not in {"signature", "message_type"}:
            with pytest.raises(BadSignature):
                check_message(NODE.public_key, {**made, name: "another"})
    assert canonical(made)


def test_nothing_remains_of_a_limit_that_was_lowered():
    assert receipt(wagered=123456)["miner_stats"]["remaining"] == "0.00"


def test_a_miner_of_a_private_grid_is_addressed_by_its_key():
    assert receipt(miner=Miner("key:7", "key:7", None))["receiver_hotkey"] == "key:7"


def test_a_utc_day_begins_at_midnight():
    midnight = parse_rfc3339("2026-11-21T00:00:00Z")
    assert utc_day(midnight) == "2026-11-21"
    assert utc_day(midnight - 0.001) == "2026-11-20"
    assert utc_day(midnight + 86399.999) == "2026-11-21"
    assert utc_day(parse_rfc3339("2026-11-21T00:30:00+01:00")) == "2026-11-20"
    assert utc_day(parse_rfc3339("2028-02-29T12:00:00Z")) == "2028-02-29"
