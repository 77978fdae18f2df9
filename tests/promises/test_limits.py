"""P9 in the service: rates are told exactly, a full queue answers at once, and no one waits for ever."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Disk
from tests.miners import keypair
from tests.promises.desk import WAIT, Desk, miner_of, opened_desk


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def new_desk(tmp_path: Path, sqlite_template: Path, disk: Disk) -> Iterator[Callable[..., Desk]]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Desk:
            return stack.enter_context(opened_desk(tmp_path, sqlite_template, disk.commit, **settings))

        yield make


def test_p9_a_rate_is_told_exactly_and_shared_by_both_faces(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(prediction_rate=0.5, prediction_burst=3)
    anna, boris = keypair("anna"), keypair("boris")
    first = desk.message(anna)
    assert desk.send(anna, first, "websocket").status == 200
    assert desk.send(anna, desk.message(anna), "http").status == 200

    batch = {"messages": [desk.message(anna) for _ in range(3)]}
    results = json.loads(desk.send(anna, batch).text)["results"]
    assert [result["success"] for result in results] == [True, False, False]
    assert results[1] == results[2], "what follows an item that may succeed later is not looked at"
    assert (results[1]["code"], results[1]["status"], results[1]["retry_after"]) == ("rate_limited", 429, 2.0)

    desk.clock.advance(1.5)
    refused = desk.send(anna, desk.message(anna), "http")
    assert (refused.status, json.loads(refused.text)["retry_after"]) == (429, 0.5)
    assert desk.send(anna, first, "http").status == 200, "a repeat costs nothing"
    assert desk.send(boris, desk.message(boris)).status == 200, "nor does a miner's rate bind another"
    desk.clock.advance(0.5)
    assert json.loads(desk.send(anna, desk.message(anna), "http").text)["seq"] == 4
    assert len(desk.receipts(anna)) == 4


def test_p9_a_full_queue_is_503_at_once_and_what_waits_is_answered(new_desk: Callable[..., Desk], disk: Disk) -> None:
    desk = new_desk(prediction_queue_max=40, prediction_max_batch=40)
    anna, boris = keypair("anna"), keypair("boris")
    disk.free.clear()
    in_hand = desk.submit(anna, desk.message(anna))
    assert disk.busy.wait(WAIT)

    waiting = [desk.submit(anna, {"messages": [desk.message(anna) for _ in range(20)]}) for _ in range(2)]
    late = desk.message(boris)
    refused = desk.submit(boris, late)

    assert refused.finished
    answer = json.loads(desk.send(boris, late).text)
    assert (answer["code"], answer["status"], answer["retry_after"]) == ("overloaded", 503, 1)
    assert not any(pending.finished for pending in (in_hand, *waiting))
    disk.free.set()
    for pending in (in_hand, *waiting):
        done = pending.wait(WAIT)
        assert done is not None
        assert done.status == 200
    assert json.loads(desk.send(boris, late).text)["seq"] == 1
    assert len(desk.receipts(anna)) == 41


def test_p9_a_commit_that_takes_too_long_is_said_and_the_same_id_is_safe(
    new_desk: Callable[..., Desk], disk: Disk
) -> None:
    desk = new_desk(prediction_commit_timeout=0.2)
    anna = keypair("anna")
    message = desk.message(anna)
    disk.free.clear()
    answer = json.loads(desk.send(anna, message).text)
    assert (answer["code"], answer["status"]) == ("commit_timeout", 503)
    assert "signature" not in answer
    disk.free.set()
    while (again := desk.send(anna, message)).status != 200:
        assert json.loads(again.text)["code"] == "commit_timeout"
    assert [json.loads(again.text)] == desk.receipts(anna)


def test_f8_concurrent_wagers_never_pass_the_cap(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    pending = [desk.submit(anna, desk.message(anna, wager="100.00"), "http") for _ in range(20)]
    answers = [json.loads(one.wait(WAIT).text) for one in pending]  # type: ignore[union-attr]
    accepted = [answer for answer in answers if answer["success"]]
    assert [answer["miner_stats"]["remaining"] for answer in accepted] == [
        f"{left}.00" for left in range(900, -1, -100)
    ]
    messages = {answer["message"] for answer in answers if not answer["success"]}
    assert messages == {"Would exceed daily limit (Current: $1000.00, Attempted: $100.00)"}
    assert {answer["code"] for answer in answers if not answer["success"]} == {"daily_limit_exceeded"}


def test_f8_sums_are_exact_and_the_limit_itself_may_be_reached(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    for wager in ("1.10", "2.20", 996.6, "0.10"):
        answer = desk.predict(anna, wager=wager)
        assert answer["success"] == (wager != "0.10"), answer
    assert desk.predict(anna, wager="1.00")["code"] == "daily_limit_exceeded"
    assert desk.receipts(anna)[2]["miner_stats"]["wagered"] == "999.90"
    boris = keypair("boris")
    assert desk.predict(boris, wager="1000.00")["miner_stats"]["remaining"] == "0.00"


def test_f7_the_day_is_the_nodes_and_a_date_in_the_past_does_not_move_it(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    desk.put_games(desk.game("long", event_start_date="2027-01-20T00:00:00Z"))
    assert desk.predict(anna, wager="1000.00")["success"]
    dated = desk.predict(anna, wager="1000.00", prediction_date="2020-01-01T00:00:00Z")
    assert dated["code"] == "daily_limit_exceeded"
    desk.clock.advance(86400.0 - desk.clock.now() % 86400.0 - 0.001)
    assert desk.predict(anna, wager="1000.00", game_id="long")["code"] == "daily_limit_exceeded"
    desk.clock.advance(0.001)
    fresh = desk.predict(anna, wager="1000.00", game_id="long")
    assert (fresh["success"], fresh["miner_stats"]["accepted"]) == (True, 1)


def test_f6_odds_a_little_above_the_offer_earn_nothing(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    for sent in ("2.1099", "2.1100", "2.0900", 2.11):
        answer = desk.predict(anna, predicted_odds=sent, team_b_odds=sent)
        assert (answer["success"], answer["accepted_odds"]) == (True, "2.1000")
    refused = desk.predict(anna, predicted_odds="2.1101", team_b_odds="2.1101")
    epoch, seq = desk.log.newest
    offer = {"team_a_odds": "1.8000", "team_b_odds": "2.1000", "tie_odds": None, "epoch": epoch, "seq": seq}
    assert (refused["code"], refused["current"]) == ("odds_mismatch", offer)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"predicted_odds": "NaN", "team_a_odds": "NaN"}, "invalid_odds"),
        ({"predicted_odds": "Infinity"}, "invalid_odds"),
        ({"wager": "1e-9"}, "invalid_wager"),
        ({"wager": 1e-9}, "invalid_wager"),
        ({"wager": "NaN"}, "invalid_wager"),
        ({"predicted_outcome": "²"}, "invalid_outcome"),
        ({"predicted_outcome": "１"}, "invalid_outcome"),
        ({"predicted_outcome": True}, "invalid_outcome"),
    ],
)
def test_f5_numbers_that_are_none_are_refused(
    new_desk: Callable[..., Desk], members: dict[str, Any], code: str
) -> None:
    desk = new_desk()
    anna = keypair("anna")
    assert desk.predict(anna, **members)["code"] == code
    assert desk.predict(anna)["miner_stats"]["wagered"] == "1.00"


def test_f5_an_offset_in_the_start_of_an_event_counts(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    noon = 1_800_014_400.0  # 2027-01-15T12:00:00Z
    assert desk.clock.now() < noon
    desk.put_games(desk.game("east", event_start_date="2027-01-15T17:00:00+05:00"))
    desk.clock.advance(noon - desk.clock.now() - 0.001)
    assert desk.predict(anna, game_id="east")["success"]
    desk.clock.advance(0.001)
    assert desk.predict(anna, game_id="east")["code"] == "game_started"


def test_f12_predictions_belong_to_the_public_key_whoever_has_its_uid(new_desk: Callable[..., Desk]) -> None:
    """A uid that passes to another hotkey takes nothing along."""
    desk = new_desk()
    anna, boris = keypair("anna"), keypair("boris")
    before = desk.predictions.submit(miner_of(anna, 7), desk.message(anna, prediction_id="p", miner_uid=7), "http")
    after = desk.predictions.submit(miner_of(boris, 7), desk.message(boris, prediction_id="p", miner_uid=7), "http")
    answers = [json.loads(one.wait(WAIT).text) for one in (before, after)]  # type: ignore[union-attr]
    assert [(answer["success"], answer["seq"]) for answer in answers] == [(True, 1), (True, 1)]
    assert [desk.receipts(one) for one in (anna, boris)] == [[answers[0]], [answers[1]]]
    wrong = desk.predictions.submit(miner_of(boris, 7), desk.message(boris, miner_uid=8), "http").wait(WAIT)
    assert wrong is not None
    assert (wrong.status, wrong.codes) == (403, ("uid_mismatch",))


def test_a_rejection_comes_back_identical_after_a_restart(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    anna = keypair("anna")
    started = desk.game("started", event_start_date="2027-01-15T00:00:00Z", create_date="2026-01-01T00:00:00Z")
    desk.put_games(started)
    messages = [
        desk.message(anna, wager="1000.01"),
        desk.message(anna, game_id="started"),
        desk.message(anna, game_id="nowhere"),
        desk.message(anna, predicted_odds="2.2", team_b_odds="2.2"),
    ]
    before = [desk.send(anna, message).text for message in messages]
    codes = [json.loads(text)["code"] for text in before]
    assert codes == ["daily_limit_exceeded", "game_started", "game_not_found", "odds_mismatch"]
    again = desk.again()
    try:
        replayed = [again.send(anna, message) for message in messages]
    finally:
        again.close()
    assert [answer.text for answer in replayed] == before
    assert {(answer.status, answer.replayed) for answer in replayed} == {(422, True)}
