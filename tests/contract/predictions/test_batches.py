"""Several messages at once, and what admits or holds back all of them: the guard, the refusal, the rate."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from bittensor_wallet import Keypair
from sqlalchemy import func, select

from grid_node.errors import Blacklisted, GridError, NotRegistered
from grid_node.identity.epistula import Epistula, SignedRequest
from grid_node.identity.tables import UsedRequest
from grid_node.predictions.pending import Answer
from grid_node.predictions.submission import Guard
from tests.contract.predictions.records import ANNA, BERT, rows, wagered
from tests.miners import prediction_body, public_key
from tests.promises.desk import WAIT, Desk, Signing

SLOW = {"prediction_rate": 4.0, "prediction_burst": 2}
"""Two at once, then one each quarter of a second."""


@pytest.fixture
def slow(make_desk: Callable[..., Desk]) -> Desk:
    made = make_desk(**SLOW)
    made.put_games(made.game())
    return made


def batch(desk: Desk, *bodies: dict[str, Any], keypair: Keypair = ANNA) -> dict[str, Any]:
    return {"messages": [desk.message(keypair, body) for body in bodies]}


def results(answer: Answer) -> list[dict[str, Any]]:
    body = json.loads(answer.text)
    assert body.keys() == {"success", "results"}
    assert (answer.status, body["success"]) == (200, True)
    return list(body["results"])


def codes(answer: Answer) -> list[str]:
    return [result["code"] for result in results(answer)]


def submitted(desk: Desk, payload: object, keypair: Keypair = ANNA, **options: Any) -> Answer:
    answer = desk.submit(keypair, payload, "http", **options).wait(WAIT)
    assert answer is not None
    return answer


# --- one body for each message ----------------------------------------------------------------------------------------


def test_each_message_of_a_batch_gets_the_body_of_a_single_call(desk: Desk) -> None:
    bodies = [
        prediction_body(prediction_id="good"),
        prediction_body(prediction_id="rejected", wager="0"),
        prediction_body(prediction_id="missing", team_a=None),
        prediction_body(prediction_id="a b"),
        prediction_body(prediction_id="large", note="x" * 16384),
        prediction_body(prediction_id="good", wager="2.00"),
        prediction_body(prediction_id="good-too"),
    ]
    sent = batch(desk, *bodies)
    sent["messages"].insert(3, {**sent["messages"][0], "signature": "0x" + "00" * 64})
    sent["messages"].insert(4, "text")

    answer = desk.send(ANNA, sent)

    expected = ["successful", "invalid_wager", "missing_data", "bad_signature", "invalid_message", "invalid_message"]
    expected += ["payload_too_large", "duplicate_prediction", "successful"]
    assert list(answer.codes) == codes(answer) == expected
    assert answer.ids == ("good", "rejected", "good-too")
    assert [row.seq for row in rows(desk)] == [1, 2, 3]
    for message, result in zip(sent["messages"], results(answer), strict=True):
        assert json.loads(desk.send(ANNA, message).text) == result


def test_a_batch_charges_the_day_message_by_message(desk: Desk) -> None:
    answer = desk.send(ANNA, batch(desk, *(prediction_body(wager=wager) for wager in ("600", "500", "400", "1"))))

    assert codes(answer) == ["successful", "daily_limit_exceeded", "successful", "daily_limit_exceeded"]
    stats = [result["miner_stats"]["wagered"] for result in results(answer)]
    assert stats == ["600.00", "600.00", "1000.00", "1000.00"]
    assert wagered(desk) == {"2027-01-15": (100000, 2)}


def test_two_messages_with_one_id_are_one_prediction_or_a_conflict(desk: Desk) -> None:
    body = prediction_body(prediction_id="twin")

    first, repeat, conflict = results(desk.send(ANNA, batch(desk, body, body, {**body, "wager": "3.00"})))

    assert first == repeat
    assert (first["code"], conflict["code"], conflict["status"]) == ("successful", "duplicate_prediction", 409)
    assert [row.body for row in rows(desk)] == [desk_body(body)]


def desk_body(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def test_a_batch_is_replayed_once_all_of_it_was_answered_before(desk: Desk) -> None:
    bodies = [prediction_body(), prediction_body(wager="0")]
    first = desk.send(ANNA, batch(desk, *bodies))

    repeat = desk.send(ANNA, batch(desk, *bodies))
    more = desk.send(ANNA, batch(desk, *bodies, prediction_body()))

    assert (repeat.text, repeat.replayed, more.replayed) == (first.text, True, False)
    assert results(more)[:2] == results(first)


def test_a_batch_of_one_is_a_batch(desk: Desk) -> None:
    assert codes(desk.send(ANNA, batch(desk, prediction_body()))) == ["successful"]


def test_batches_that_are_none_write_nothing(desk: Desk) -> None:
    for payload in ({"messages": []}, {"messages": {}}, {"messages": None}, {"messages": "m"}):
        answer = desk.send(ANNA, payload)
        assert (answer.status, answer.codes) == (400, ("invalid_message",))
    most = desk.settings.prediction_max_batch
    answer = desk.send(ANNA, batch(desk, *(prediction_body() for _ in range(most + 1))))
    assert (answer.status, json.loads(answer.text)["limit"]) == (413, most)
    assert rows(desk) == []


# --- the rate ---------------------------------------------------------------------------------------------------------


def test_above_the_rate_a_miner_is_told_exactly_when_to_come_again(slow: Desk) -> None:
    assert [slow.predict(ANNA)["success"] for _ in range(2)] == [True, True]
    body = prediction_body()

    answer = slow.send(ANNA, slow.message(ANNA, body), "http")
    assert json.loads(answer.text) == {
        "success": False,
        "error": "Too Many Requests",
        "code": "rate_limited",
        "status": 429,
        "retry_after": 0.25,
    }
    assert (answer.status, answer.retry_after) == (429, 0.25)
    slow.clock.advance(0.125)
    assert slow.send(ANNA, slow.message(ANNA, body)).retry_after == 0.125
    assert slow.predict(BERT)["success"]

    slow.clock.advance(0.125)
    assert json.loads(slow.send(ANNA, slow.message(ANNA, body)).text)["seq"] == 3


def test_a_repeat_costs_no_token_and_a_rejection_does(slow: Desk) -> None:
    body = prediction_body(wager="0")
    for _ in range(5):
        assert slow.send(ANNA, slow.message(ANNA, body)).codes == ("invalid_wager",)
    conflict = slow.message(ANNA, {**body, "wager": "1"})
    assert slow.send(ANNA, conflict).codes == ("duplicate_prediction",)
    assert slow.predict(ANNA, wager=None)["code"] == "missing_data"

    assert slow.predict(ANNA)["success"]
    assert slow.predict(ANNA)["code"] == "rate_limited"
    assert slow.send(ANNA, slow.message(ANNA, body)).replayed


def test_from_the_first_message_on_that_must_wait_nothing_of_a_batch_is_processed(slow: Desk) -> None:
    known = prediction_body()
    slow.send(ANNA, slow.message(ANNA, known))
    slow.clock.advance(0.25)
    fresh = [prediction_body() for _ in range(4)]

    answer = slow.send(ANNA, batch(slow, known, *fresh[:3], {"prediction_id": "a b"}, known, fresh[3]))

    assert codes(answer) == ["successful"] * 3 + ["rate_limited"] * 4
    assert all(result == results(answer)[3] for result in results(answer)[3:])
    assert [row.seq for row in rows(slow)] == [1, 2, 3]
    slow.clock.advance(0.25)
    assert codes(slow.send(ANNA, batch(slow, *fresh)))[:3] == ["successful"] * 3
    assert [row.prediction_id for row in rows(slow)] == [one["prediction_id"] for one in (known, *fresh[:3])]


# --- the guard and the refusal ----------------------------------------------------------------------------------------


def used_once(desk: Desk, number: int = 1, keypair: Keypair = ANNA) -> Guard:
    """The guard of one signed request."""
    epistula = Epistula(desk.store, desk.clock, Signing.hotkey, desk.settings)
    uuid = f"00000000-0000-4000-8000-{number:012d}"
    request = SignedRequest(public_key(keypair), str(keypair.ss58_address), uuid, 0, b"")
    return lambda tx: epistula.remember(tx, request)


def request_uuids(desk: Desk) -> int:
    count = select(func.count()).select_from(UsedRequest.__table__)
    return int(desk.store.read(lambda tx: tx.execute(count).scalar_one()))


def test_a_request_that_was_used_before_writes_nothing(desk: Desk) -> None:
    assert submitted(desk, desk.message(ANNA), guard=used_once(desk)).status == 200

    for payload in (desk.message(ANNA), batch(desk, prediction_body(), prediction_body())):
        answer = submitted(desk, payload, guard=used_once(desk))
        assert (answer.status, json.loads(answer.text)["code"], answer.ids) == (401, "replayed_request", ())
    assert [row.seq for row in rows(desk)] == [1]

    other = submitted(desk, desk.message(BERT), BERT, guard=used_once(desk, keypair=BERT))
    assert (other.status, request_uuids(desk)) == (200, 2)


def test_a_request_is_used_up_with_what_it_says_whatever_that_is(desk: Desk) -> None:
    for number, payload in enumerate((desk.message(ANNA, wager="0"), desk.message(ANNA, wager=None)), 1):
        assert submitted(desk, payload, guard=used_once(desk, number)).status in (400, 422)
        again = submitted(desk, payload, guard=used_once(desk, number))
        assert (again.status, again.codes) == (401, ("replayed_request",))
    assert request_uuids(desk) == 2


def test_of_one_request_twice_at_once_one_counts(desk: Desk) -> None:
    pending = [desk.submit(ANNA, desk.message(ANNA), "http", guard=used_once(desk)) for _ in range(2)]

    answers = [one.wait(WAIT) for one in pending]

    assert [answer.status for answer in answers if answer is not None] == [200, 401]
    assert len(rows(desk)) == 1


@pytest.mark.parametrize("error", [NotRegistered(retry_after=3600), Blacklisted()])
def test_who_may_predict_no_more_is_refused_when_its_turn_comes(desk: Desk, error: GridError) -> None:
    """Everybody else of the same commit is served, and the request of the refused is not used up."""
    payloads = (desk.message(ANNA), batch(desk, prediction_body(), prediction_body()))
    refused = [desk.submit(ANNA, one, "websocket", refusal=lambda: error, guard=used_once(desk)) for one in payloads]
    served = desk.submit(BERT, desk.message(BERT), "websocket", refusal=lambda: None)

    for one in refused:
        answer = one.wait(WAIT)
        assert answer is not None
        assert (answer.status, json.loads(answer.text)) == (403, error.body())
    assert served.wait(WAIT).status == 200  # type: ignore[union-attr]
    assert [row.miner for row in rows(desk)] == [public_key(BERT).hex()]
    assert request_uuids(desk) == 0
