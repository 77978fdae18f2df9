"""One effect for each id: the first verdict is the verdict, and a miner can ask for it later."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid_node.errors import PredictionNotFound
from grid_node.identity.hotkeys import check_message, decode_hotkey
from grid_node.predictions.ports import Miner
from grid_node.predictions.settlement import Settling
from tests.contract.predictions.records import ANNA, BERT, rows, wagered
from tests.miners import DAY, keypair, prediction_body
from tests.promises.desk import WAIT, Desk, Signing, miner_of

Restarted = Callable[[Desk], Desk]


@pytest.fixture
def restarted() -> Iterator[Restarted]:
    """New services over the same rows."""
    with contextlib.ExitStack() as stack:
        yield lambda desk: stack.enter_context(contextlib.closing(desk.again()))


def status(desk: Desk, prediction_id: Any, miner: Any = ANNA) -> dict[str, Any]:
    return desk.predictions.status(miner_of(miner), prediction_id)


# --- one effect for each id -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{}, {"wager": "0"}, {"game_id": "nowhere"}, {"predicted_odds": "9"}])
def test_a_repeat_gets_the_very_bytes_of_the_first_answer(
    restarted: Restarted, desk: Desk, members: dict[str, Any]
) -> None:
    body = prediction_body(**members)
    first = desk.send(ANNA, desk.message(ANNA, body))
    desk.clock.advance(30.0)

    repeats = [desk.send(ANNA, desk.message(ANNA, body), transport) for transport in ("websocket", "http")]
    repeats.append(restarted(desk).send(ANNA, desk.message(ANNA, body)))

    for repeat in repeats:
        assert (repeat.text, repeat.status, repeat.codes) == (first.text, first.status, first.codes)
        assert (first.replayed, repeat.replayed) == (False, True)
    assert len(rows(desk)) == 1


def test_the_same_ten_times_at_once_is_one_prediction(desk: Desk) -> None:
    body = prediction_body(wager="150.00")
    transports = ("websocket", "http") * 5
    pending = [desk.submit(ANNA, desk.message(ANNA, body), transport) for transport in transports]

    answers = [one.wait(WAIT) for one in pending]

    (row,) = rows(desk)
    assert {answer.text for answer in answers if answer is not None} == {row.receipt}
    assert [answer.replayed for answer in answers if answer is not None] == [False] + [True] * 9
    assert wagered(desk) == {"2027-01-15": (15000, 1)}


def test_a_verdict_stays_when_what_it_was_about_has_changed(restarted: Restarted, desk: Desk) -> None:
    """After a restart, on another day, with another game: the first verdict is the verdict."""
    assert desk.predict(ANNA, wager="900.00")["success"]
    over_limit, unknown = prediction_body(wager="500.00"), prediction_body(game_id="later")
    first = [desk.send(ANNA, desk.message(ANNA, body)) for body in (over_limit, unknown)]
    assert [one.codes for one in first] == [("daily_limit_exceeded",), ("game_not_found",)]
    desk.put_games(desk.game("later"))
    desk.clock.advance(DAY / 2 + 14400)

    desk = restarted(desk)

    assert [desk.send(ANNA, desk.message(ANNA, body)).text for body in (over_limit, unknown)] == [
        one.text for one in first
    ]
    assert desk.predict(ANNA, wager="500.00")["miner_stats"]["utc_day"] == "2027-01-16"


def test_another_body_under_a_used_id_is_a_conflict_and_changes_nothing(desk: Desk) -> None:
    for members in ({}, {"wager": "0"}):
        body = prediction_body(**members)
        desk.send(ANNA, desk.message(ANNA, body))
        before = rows(desk)

        answer = desk.send(ANNA, desk.message(ANNA, {**body, "wager": "1.0"}))

        assert json.loads(answer.text) == {
            "success": False,
            "error": f"Prediction {body['prediction_id']} already exists in database",
            "code": "duplicate_prediction",
            "status": 409,
        }
        assert (answer.status, answer.ids, answer.replayed) == (409, (), False)
        assert rows(desk) == before
    assert desk.predict(ANNA)["seq"] == 3


def test_the_id_is_looked_up_before_any_rule(desk: Desk) -> None:
    prediction_id = desk.predict(ANNA)["prediction_id"]

    assert desk.predict(ANNA, prediction_id=prediction_id, wager="abc", game_id="nowhere")["status"] == 409


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"wager": None}, "missing_data"),
        ({"game_id": None}, "missing_data"),
        ({"team_a": 7}, "invalid_message"),
        ({"game_id": "a b"}, "invalid_message"),
        ({"model_name": "x" * 129}, "invalid_message"),
    ],
)
def test_what_is_no_prediction_consumes_no_id(desk: Desk, members: dict[str, Any], code: str) -> None:
    answer = desk.send(ANNA, desk.message(ANNA, prediction_id="p", **members))
    assert (answer.status, answer.codes, answer.ids) == (400, (code,), ())
    assert rows(desk) == []

    assert desk.predict(ANNA, prediction_id="p")["seq"] == 1


def test_two_miners_may_use_one_id_and_a_uid_is_no_identity(desk: Desk) -> None:
    """A uid that another hotkey gets later gives it nothing of its predecessor's."""
    before, after = miner_of(ANNA, uid=7), miner_of(BERT, uid=7)
    for miner, key, wager in ((before, ANNA, "600.00"), (after, BERT, "500.00")):
        message = desk.message(key, prediction_id="same", wager=wager, miner_uid=7)
        answer = desk.predictions.submit(miner, message, "http").wait(WAIT)
        assert answer is not None
        assert (answer.status, json.loads(answer.text)["seq"]) == (200, 1)

    moved = miner_of(ANNA, uid=9)
    assert [row["receipt"]["seq"] for row in desk.predictions.list(moved, 0, 10)["predictions"]] == [1]
    assert desk.predictions.status(moved, "same")["receipt"]["miner_stats"]["wagered"] == "600.00"
    assert desk.predict(ANNA, wager="500.00")["code"] == "daily_limit_exceeded"


def test_seq_counts_each_miners_verdicts_without_a_gap(restarted: Restarted, desk: Desk) -> None:
    seqs = []
    for wager in ("1.00", "0", None, "1.00", "9999", "1.00"):
        seqs.append(desk.predict(ANNA, wager=wager).get("seq"))
        desk.predict(BERT)
    desk = restarted(desk)

    assert seqs == [1, 2, None, 3, 4, 5]
    assert desk.predict(ANNA)["seq"] == 6
    assert desk.predictions.last_seq(miner_of(BERT)) == 6
    assert desk.predictions.last_seq(miner_of(keypair("nobody"))) == 0


# --- what a miner is told later ---------------------------------------------------------------------------------------


def test_a_receipt_can_be_fetched_by_its_miner_alone(desk: Desk) -> None:
    receipt = desk.predict(ANNA, prediction_id="mine")

    assert status(desk, "mine") == {
        "success": True,
        "prediction_id": "mine",
        "state": "accepted",
        "receipt": receipt,
        "settlement": None,
    }
    for prediction_id in ("mine", "none", "", "a\0b", "\ud800", "mine\n", 7, None, ["mine"], "x" * 500):
        with pytest.raises(PredictionNotFound):
            status(desk, prediction_id, BERT)


def test_a_rejection_can_be_fetched_too(desk: Desk) -> None:
    receipt = desk.predict(ANNA, prediction_id="p", wager="0")

    assert (status(desk, "p")["state"], status(desk, "p")["receipt"]) == ("rejected", receipt)


def test_a_settlement_is_shown_beside_the_receipt_which_stays(desk: Desk) -> None:
    won = desk.predict(ANNA, prediction_id="won", wager="10.05")
    lost = desk.predict(ANNA, prediction_id="lost", wager="5", predicted_outcome=0, predicted_odds="1.80")
    desk.predict(ANNA, prediction_id="refused", wager="0")
    desk.games.put("nfl-17", {"outcome": 1})
    settling = Settling(desk.store, desk.clock, desk.settings)
    while settling.tick():
        pass

    assert status(desk, "won") == {
        "success": True,
        "prediction_id": "won",
        "state": "settled",
        "receipt": won,
        "settlement": {"outcome": 1, "payout": "21.10"},
    }
    assert (status(desk, "lost")["receipt"], status(desk, "lost")["settlement"]) == (
        lost,
        {"outcome": 1, "payout": "0.00"},
    )
    assert (status(desk, "refused")["state"], status(desk, "refused")["settlement"]) == ("rejected", None)
    listed = desk.predictions.list(miner_of(ANNA), 0, 500)["predictions"]
    assert [row["state"] for row in listed] == ["settled", "settled", "rejected"]


def test_receipts_are_listed_by_seq_page_by_page(desk: Desk) -> None:
    receipts = [desk.predict(ANNA, wager="1.00" if number % 2 else "0") for number in range(7)]
    desk.predict(BERT)
    list_of = desk.predictions.list

    page = list_of(miner_of(ANNA), 0, 3)
    assert page == {
        "success": True,
        "predictions": [
            {name: value for name, value in status(desk, receipt["prediction_id"]).items() if name != "success"}
            for receipt in receipts[:3]
        ],
        "last_seq": 7,
    }
    assert [row["receipt"]["seq"] for row in list_of(miner_of(ANNA), 5, 3)["predictions"]] == [6, 7]
    assert list_of(miner_of(ANNA), 7, 3) == {"success": True, "predictions": [], "last_seq": 7}
    assert list_of(miner_of(keypair("nobody")), 0, 3) == {"success": True, "predictions": [], "last_seq": 0}


def test_a_miner_without_a_hotkey_signs_nothing_and_gets_a_signed_receipt(desk: Desk) -> None:
    message = {name: value for name, value in desk.message(ANNA).items() if name != "signature"}
    miner = Miner("key:7", "key:7", None)

    answer = desk.predictions.submit(miner, {**message, "sender_hotkey": "key:7"}, "http").wait(WAIT)

    assert answer is not None
    receipt = json.loads(answer.text)
    check_message(decode_hotkey(Signing.hotkey), receipt)
    assert (answer.status, receipt["receiver_hotkey"], rows(desk)[0].miner) == (200, "key:7", "key:7")
