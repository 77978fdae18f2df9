"""The service of predictions over every store: verdicts, receipts, what a miner is told of them later."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from grid_node.canonical import canonical, digest
from grid_node.clock import parse_rfc3339, rfc3339
from grid_node.identity.hotkeys import check_message, decode_hotkey
from tests.contract.predictions.records import ANNA, BERT, rows, wagered
from tests.miners import prediction_body, public_key
from tests.promises.desk import WAIT, Desk, Signing

# --- the receipt ------------------------------------------------------------------------------------------------------


def test_an_accepted_prediction_is_a_row_with_its_receipt(desk: Desk) -> None:
    body = prediction_body(wager="12.34", predicted_odds=2.1, note="kept")

    receipt = json.loads(desk.send(ANNA, desk.message(ANNA, body)).text)

    (row,) = rows(desk)
    assert row._mapping == {
        "miner": public_key(ANNA).hex(),
        "prediction_id": body["prediction_id"],
        "seq": 1,
        "game_id": "nfl-17",
        "accepted": True,
        "code": "successful",
        "wager": 1234,
        "outcome": 1,
        "accepted_odds": 21000,
        "received_at": desk.clock.now(),
        "body_sha256": digest(body),
        "body": canonical(body).decode(),
        "receipt": canonical(receipt).decode(),
    }
    assert wagered(desk) == {"2027-01-15": (1234, 1)}
    check_message(decode_hotkey(Signing.hotkey), receipt)
    assert (receipt["body_sha256"], receipt["seq"], receipt["accepted_odds"]) == (digest(body), 1, "2.1000")


def test_an_answer_is_the_receipt_as_it_is_stored(desk: Desk) -> None:
    answer = desk.send(ANNA, desk.message(ANNA))

    assert answer.text == rows(desk)[0].receipt
    assert (answer.status, answer.replayed, answer.codes) == (200, False, ("successful",))
    assert answer.ids == (rows(desk)[0].prediction_id,)


def test_a_rejection_is_stored_and_signed_and_changes_no_sum(desk: Desk) -> None:
    desk.predict(ANNA, wager="110.00")

    answer = desk.send(ANNA, desk.message(ANNA, wager="900.00"))

    receipt = json.loads(answer.text)
    check_message(decode_hotkey(Signing.hotkey), receipt)
    assert (answer.status, receipt["status"], receipt["code"]) == (422, 422, "daily_limit_exceeded")
    assert receipt["message"] == receipt["error"] == "Would exceed daily limit (Current: $110.00, Attempted: $900.00)"
    stats = {"utc_day": "2027-01-15", "wagered": "110.00", "remaining": "890.00", "accepted": 1}
    assert (receipt["seq"], receipt["miner_stats"]) == (2, stats)
    row = rows(desk)[1]
    assert (row.accepted, row.wager, row.outcome, row.accepted_odds) == (False, None, None, None)
    assert wagered(desk) == {"2027-01-15": (11000, 1)}


def test_the_first_rule_that_fails_is_the_verdict(desk: Desk) -> None:
    """A prediction that breaks every rule is repaired rule by rule."""
    desk.put_games(
        desk.game("begun", event_start_date=rfc3339(desk.clock.now() - 1)), desk.game("asleep", active=False)
    )
    body = {
        "game_id": "nowhere",
        "team_a": "Jets",
        "team_a_odds": "NaN",
        "tie_odds": "3.50",
        "predicted_outcome": 7,
        "predicted_odds": None,
        "confidence_score": "high",
    }
    for repair, code, message in (
        ({"wager": "1e3x"}, "invalid_wager", "Invalid wager value"),
        ({"wager": "-1"}, "invalid_wager", "Prediction with non-positive wager - nice try"),
        ({"wager": "0.99"}, "invalid_wager", "Wager is below the minimum of $1.00"),
        ({"wager": 2000}, "daily_limit_exceeded", "Would exceed daily limit (Current: $0.00, Attempted: $2000.00)"),
        ({"wager": "1.00"}, "game_not_found", "Game not found in validator game_data"),
        ({"game_id": "asleep"}, "game_not_found", "Game not found in validator game_data"),
        ({"game_id": "begun"}, "game_started", "Game has already started"),
        ({"game_id": "nfl-17"}, "team_mismatch", "Submitted team names do not match game data"),
        ({"team_a": "Giants"}, "invalid_odds", "Invalid odds value"),
        ({"team_a_odds": "1.7899"}, "odds_mismatch", "Submitted team odds do not match current game odds"),
        ({"team_a_odds": "1.80"}, "odds_mismatch", "Submitted tie odds for game that doesn't support ties"),
        ({"tie_odds": None}, "invalid_outcome", "Invalid numeric predicted_outcome: 7"),
        ({"predicted_outcome": "Jets"}, "invalid_outcome", "Invalid predicted_outcome: Jets"),
        ({"predicted_outcome": "Cowboys"}, "missing_odds", "Missing predicted_odds"),
        ({"predicted_odds": "two"}, "invalid_odds", "Invalid odds value"),
        ({"predicted_odds": 3}, "odds_mismatch", "Predicted odds 3.0000 do not match current game odds 2.1000"),
        ({"predicted_odds": "2.1"}, "invalid_confidence", "Invalid confidence score format"),
        (
            {"confidence_score": 1.01},
            "invalid_confidence",
            "If provided, confidence score must be between 0 and 1",
        ),
        ({"confidence_score": 1}, "successful", "Prediction accepted"),
    ):
        body |= repair
        receipt = desk.predict(ANNA, **body)
        assert (receipt["code"], receipt["message"]) == (code, message)
        assert ("current" in receipt) is (code == "odds_mismatch")


def test_a_games_tie_odds_are_part_of_the_offer(desk: Desk) -> None:
    desk.put_games(desk.game("ties", tie_odds="3.50", can_tie=True))
    offer = {"game_id": "ties", "tie_odds": "3.50", "predicted_outcome": "TIE", "predicted_odds": "3.50"}

    assert desk.predict(ANNA, **offer)["accepted_odds"] == "3.5000"
    assert desk.predict(ANNA, **{**offer, "predicted_outcome": 2})["accepted_odds"] == "3.5000"
    off = desk.predict(ANNA, **{**offer, "tie_odds": "3.5101"})
    assert (off["code"], off["message"]) == ("odds_mismatch", "Submitted tie odds do not match current game odds")
    assert off["current"]["tie_odds"] == "3.5000"
    draw = {"predicted_outcome": "tie", "predicted_odds": "3.50"}
    assert desk.predict(ANNA, **draw)["message"] == "No odds available for the predicted outcome"


@pytest.mark.parametrize("text", ["a\0b", "é" * 90, "\u2028", "'; --", "\U0001f3c8", '"\\', "0" * 5000])
def test_whatever_text_a_miner_sends_is_kept_as_it_is(desk: Desk, text: str) -> None:
    body = prediction_body(predicted_outcome=text, note={text: [text]})

    answer = desk.send(ANNA, desk.message(ANNA, body))

    receipt = json.loads(answer.text)
    check_message(decode_hotkey(Signing.hotkey), receipt)
    assert (answer.status, receipt["code"], receipt["body_sha256"]) == (422, "invalid_outcome", digest(body))
    assert text[:20] in receipt["message"]
    (row,) = rows(desk)
    assert (row.body, row.receipt) == (canonical(body).decode(), answer.text)


# --- odds and time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", ["0.0100", "-0.0100", "0.0099"])
def test_odds_a_cent_off_are_accepted_and_earn_what_the_node_offers(desk: Desk, off: str) -> None:
    sent = f"{2.1 + float(off):.4f}"

    receipt = desk.predict(ANNA, team_b_odds=sent, predicted_odds=sent)

    assert (receipt["code"], receipt["accepted_odds"]) == ("successful", "2.1000")
    assert rows(desk)[0].accepted_odds == 21000


@pytest.mark.parametrize("sent", ["2.1101", "2.0899", 2.1101])
def test_odds_further_off_are_refused_with_the_current_ones(desk: Desk, sent: Any) -> None:
    position = desk.log.newest
    for members in ({"team_b_odds": sent}, {"predicted_odds": sent}):
        receipt = desk.predict(ANNA, **members)
        assert (receipt["success"], receipt["code"]) == (False, "odds_mismatch")
        assert receipt["current"] == {
            "team_a_odds": "1.8000",
            "team_b_odds": "2.1000",
            "tie_odds": None,
            "epoch": position.epoch,
            "seq": position.seq,
        }


def test_once_the_odds_have_changed_the_old_ones_are_refused(desk: Desk) -> None:
    assert desk.predict(ANNA)["success"]
    desk.games.put("nfl-17", {"team_b_odds": "2.50"})

    receipt = desk.predict(ANNA)

    assert (receipt["code"], receipt["current"]["team_b_odds"]) == ("odds_mismatch", "2.5000")
    assert receipt["current"]["seq"] == desk.log.newest.seq == 2
    assert desk.predict(ANNA, team_b_odds="2.50", predicted_odds="2.50")["accepted_odds"] == "2.5000"


def test_a_game_starts_at_its_time_in_whatever_offset_it_was_given(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.put_games(desk.game(event_start_date="2027-01-15T17:00:00+05:00"))

    desk.clock.advance(parse_rfc3339("2027-01-15T11:59:59.999Z") - desk.clock.now())
    assert desk.predict(ANNA)["code"] == "successful"
    desk.clock.advance(parse_rfc3339("2027-01-15T12:00:00.000Z") - desk.clock.now())
    assert desk.predict(ANNA)["code"] == "game_started"


def test_a_game_with_an_outcome_takes_no_predictions(desk: Desk) -> None:
    desk.games.put("nfl-17", {"outcome": 0})

    assert desk.predict(ANNA)["code"] == "game_started"


# --- the limit of a day -----------------------------------------------------------------------------------------------


def test_of_twenty_wagers_at_once_ten_fit_under_the_limit(desk: Desk) -> None:
    pending = [desk.submit(ANNA, desk.message(ANNA, wager="100.00")) for _ in range(20)]

    codes = [one.wait(WAIT).codes for one in pending]  # type: ignore[union-attr]

    assert codes == [("successful",)] * 10 + [("daily_limit_exceeded",)] * 10
    assert wagered(desk) == {"2027-01-15": (100000, 10)}


def test_the_whole_limit_may_be_wagered_and_not_a_cent_more(desk: Desk) -> None:
    assert desk.predict(ANNA, wager="1000.00")["miner_stats"]["remaining"] == "0.00"
    assert desk.predict(ANNA, wager="1.00")["code"] == "daily_limit_exceeded"
    assert desk.predict(BERT, wager=1000.01)["code"] == "daily_limit_exceeded"
    assert desk.predict(BERT, wager=1000)["success"]


def test_sums_are_exact(desk: Desk) -> None:
    for wager in (1.1, 2.2, "3.30", 994.4 - 1.0):
        receipt = desk.predict(ANNA, wager=wager)
        assert receipt["success"]
    assert receipt["miner_stats"] == {
        "utc_day": "2027-01-15",
        "wagered": "1000.00",
        "remaining": "0.00",
        "accepted": 4,
    }


def test_a_repeat_and_a_rejection_charge_nothing(desk: Desk) -> None:
    desk.predict(ANNA, wager="0")
    assert wagered(desk) == {}
    message = desk.message(ANNA, wager="600.00")
    for _ in range(3):
        assert desk.send(ANNA, message).status == 200
        assert desk.predict(ANNA, wager="600.00")["code"] == "daily_limit_exceeded"

    assert wagered(desk) == {"2027-01-15": (60000, 1)}
    assert desk.predict(ANNA, wager="400.00")["success"]


def test_the_day_turns_at_midnight_utc_of_the_nodes_clock(desk: Desk) -> None:
    """What a miner says of the date never matters."""
    assert desk.predict(ANNA, wager="1000.00", prediction_date="2020-01-01T00:00:00Z")["success"]
    desk.clock.advance(parse_rfc3339("2027-01-15T23:59:59.999Z") - desk.clock.now())
    assert desk.predict(ANNA, prediction_date="2027-01-16T00:00:00Z")["code"] == "daily_limit_exceeded"

    desk.clock.advance(parse_rfc3339("2027-01-16T00:00:00Z") - desk.clock.now())
    receipt = desk.predict(ANNA, wager="1000.00", prediction_date="2027-01-15T12:00:00Z")

    assert (receipt["code"], receipt["miner_stats"]["utc_day"]) == ("successful", "2027-01-16")
    assert wagered(desk) == {"2027-01-15": (100000, 1), "2027-01-16": (100000, 1)}
