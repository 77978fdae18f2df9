"""Every operation of a miner by event and by route: the same payload gives the same body, in success and in refusal.

A receipt has a message id, a time and a signature of its own, and a miner's seq grows: bodies that must differ there
are compared without them. A repeat must not differ in anything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from tests.miners import (
    NAMESPACE,
    Miner,
    SignedHttp,
    allow,
    game,
    new_keypair,
    prediction_message,
    put_games,
    resent,
    signed,
)
from tests.nodes import LiveNode, running_node

VARIES = frozenset(
    {"message_id", "timestamp", "received_at", "signature", "seq", "prediction_id", "body_sha256", "miner_stats"}
)
BURST = 3


def shape(body: Any) -> Any:
    """The body with what must differ taken out."""
    if isinstance(body, dict):
        return {name: None if name in VARIES else shape(value) for name, value in body.items()}
    return [shape(value) for value in body] if isinstance(body, list) else body


class Faces:
    """One hotkey that says everything twice."""

    def __init__(self, node: LiveNode) -> None:
        self.keypair = new_keypair()
        allow(node, self.keypair)
        self.event = Miner(node, self.keypair)
        self.http = SignedHttp(node, self.keypair)

    def message(self, **members: Any) -> dict[str, Any]:
        return prediction_message(self.keypair, self.http.node_hotkey, **members)

    def predictions(self, **members: Any) -> tuple[Any, httpx.Response]:
        """Two of the same make, an id for each."""
        return self.event.send(self.message(**members)), self.http.post("/predictions", self.message(**members))

    def both(self, payload: Any) -> tuple[Any, httpx.Response]:
        """The very same payload."""
        return self.event.send(payload), self.http.post("/predictions", payload)

    def status(self, prediction_id: str) -> tuple[Any, httpx.Response]:
        return self.event.status(prediction_id), self.http.get(f"/predictions/{prediction_id}")

    def games(self, **filters: Any) -> tuple[Any, httpx.Response]:
        return self.event.socket.call("games", filters), self.http.get("/games", **filters)

    def close(self) -> None:
        self.event.close()
        self.http.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    folder = tmp_path_factory.mktemp("faces")
    with running_node(folder, prediction_rate=1000, prediction_burst=5000, websocket_heartbeat_interval=20) as live:
        begun = {"event_start_date": "2026-01-01T00:00:00Z"}
        put_games(
            live,
            game(),
            game("ties", tie_odds="3.50", can_tie=True),
            game("begun", **begun),
            game("over", outcome=0),
            game("asleep", active=False),
        )
        yield live


@pytest.fixture
def faces(node: LiveNode) -> Iterator[Faces]:
    """Of one test alone: twenty faults in a minute end a connection."""
    made = Faces(node)
    yield made
    made.close()


def assert_same(both: tuple[Any, httpx.Response], status: int, code: str | None = None) -> Any:
    """Bodies that are equal but for what must differ. Returns the ack."""
    ack, answer = both
    assert answer.status_code == status, answer.text
    assert shape(ack) == shape(answer.json())
    assert ack["success"] is (code is None)
    if code is not None:
        assert (ack["code"], ack["status"]) == (code, status)
    return ack


def assert_equal(both: tuple[Any, httpx.Response], status: int, code: str | None = None) -> Any:
    """Bodies without any difference. Returns the ack."""
    assert both[0] == both[1].json()
    return assert_same(both, status, code)


# --- success ----------------------------------------------------------------------------------------------------------


def test_a_prediction(faces):
    ack, answer = faces.predictions()

    assert_same((ack, answer), 200)
    assert (ack["seq"], answer.json()["seq"]) == (1, 2)
    assert ack.keys() == answer.json().keys()


def test_one_prediction_sent_both_ways_has_one_receipt(faces):
    sent = faces.message()

    ack, answer = faces.both(sent)

    assert_equal((ack, answer), 200)
    assert answer.content == canonical(ack)
    assert answer.headers["Grid-Replayed"] == "1"


def test_a_receipt_by_event_equals_the_one_by_route(faces):
    sent = faces.message()

    answer = faces.http.post("/predictions", sent)
    ack = faces.event.send(resent(faces.keypair, sent))

    assert_equal((ack, answer), 200)


def test_a_batch(faces):
    sent = [faces.message(), faces.message(wager="0"), faces.message(wager=None), faces.message(game_id="nowhere")]

    ack, answer = faces.both({"messages": sent})

    assert_equal((ack, answer), 200)
    assert [one["code"] for one in ack["results"]] == ["successful", "invalid_wager", "missing_data", "game_not_found"]


def test_a_prediction_that_is_looked_up(faces):
    receipt = faces.event.predict()

    assert assert_equal(faces.status(receipt["prediction_id"]), 200)["receipt"] == receipt
    rejection = faces.event.predict(wager="0")
    assert assert_equal(faces.status(rejection["prediction_id"]), 200)["state"] == "rejected"


@pytest.mark.parametrize("filters", [{}, {"sport": "football"}, {"active": "false"}, {"league": "none"}])
def test_games(faces, filters):
    assert_equal(faces.games(**filters), 200)


def test_updates_from_a_position(faces):
    listed = faces.http.get("/games").json()
    position = {"epoch": listed["epoch"], "seq": listed["seq"]}

    ack = faces.event.socket.call("resume", position)
    body = faces.http.get("/games/updates", epoch=position["epoch"], after=position["seq"], wait=0).json()

    assert ack == {"success": True, "recovered": True, "replayed": 0, **position}
    assert body == {
        "success": True,
        "recovered": True,
        "epoch": position["epoch"],
        "updates": [],
        "last_seq": ack["seq"],
    }


@pytest.mark.parametrize("reason", ["epoch_changed", "ahead"])
def test_a_position_that_cannot_be_resumed(faces, reason):
    listed = faces.http.get("/games").json()
    epoch, seq = {"epoch_changed": ("0" * 16, 1), "ahead": (listed["epoch"], listed["seq"] + 9)}[reason]
    before = len(faces.event.updates)

    ack = faces.event.socket.call("resume", {"epoch": epoch, "seq": seq})
    body = faces.http.get("/games/updates", epoch=epoch, after=seq).json()

    snapshot = body.pop("snapshot")
    assert ack == body
    assert body["reason"] == reason
    pushed = faces.event.socket.wait_for("game_update", before + 1)[-1]
    assert shape(pushed) == shape(snapshot[0])


# --- rejections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"wager": "abc"}, "invalid_wager"),
        ({"wager": -1}, "invalid_wager"),
        ({"wager": True}, "invalid_wager"),
        ({"wager": "1.001"}, "invalid_wager"),
        ({"wager": "0.99"}, "invalid_wager"),
        ({"wager": "1000.01"}, "daily_limit_exceeded"),
        ({"game_id": "nowhere"}, "game_not_found"),
        ({"game_id": "asleep"}, "game_not_found"),
        ({"game_id": "begun"}, "game_started"),
        ({"game_id": "over"}, "game_started"),
        ({"team_a": "Jets"}, "team_mismatch"),
        ({"team_a_odds": "NaN"}, "invalid_odds"),
        ({"team_a_odds": "1.8101"}, "odds_mismatch"),
        ({"tie_odds": "3.50"}, "odds_mismatch"),
        ({"game_id": "ties", "tie_odds": "3.60"}, "odds_mismatch"),
        ({"predicted_outcome": 3}, "invalid_outcome"),
        ({"predicted_outcome": "²"}, "invalid_outcome"),
        ({"predicted_outcome": True}, "invalid_outcome"),
        ({"predicted_outcome": "Jets"}, "invalid_outcome"),
        ({"predicted_odds": None}, "missing_odds"),
        ({"predicted_odds": []}, "invalid_odds"),
        ({"predicted_outcome": "tie"}, "invalid_odds"),
        ({"predicted_odds": "2.2"}, "odds_mismatch"),
        ({"confidence_score": "high"}, "invalid_confidence"),
        ({"confidence_score": 1.5}, "invalid_confidence"),
    ],
)
def test_a_rejection(faces, members, code):
    ack = assert_same(faces.predictions(**members), 422, code)

    assert ack["error"] == ack["message"]
    sent = faces.message(**members)
    assert_equal(faces.both(sent), 422, code)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_another_body_under_a_used_id(faces):
    prediction_id = faces.event.predict()["prediction_id"]
    assert_equal(faces.both(faces.message(prediction_id=prediction_id, wager="9.00")), 409, "duplicate_prediction")


@pytest.mark.parametrize("name", ["prediction_id", "game_id", "team_a", "team_b", "wager", "predicted_outcome"])
def test_something_that_is_missing(faces, name):
    ack = assert_equal(faces.both(faces.message(**{name: None})), 400, "missing_data")
    assert ack["fields"]


@pytest.mark.parametrize("payload", [{}, [], "text", 7, {"messages": []}, {"messages": "many"}])
def test_a_message_that_is_none(faces, payload):
    assert_equal(faces.both(payload), 400, "invalid_message")


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": 7},
        {"timestamp": "2026-11-20T12:00:00"},
        {"message_type": "heartbeat"},
        {"prediction": "text"},
    ],
)
def test_a_member_that_cannot_be(faces, changes):
    assert_equal(faces.both(signed(faces.keypair, {**faces.message(), **changes})), 400, "invalid_message")


def test_a_prediction_id_that_cannot_be(faces):
    for prediction_id in ("", "a b", "x" * 129, "ü", 7):
        assert_equal(faces.both(faces.message(prediction_id=prediction_id)), 400, "invalid_message")


def test_signatures_that_are_none(faces):
    sent = faces.message()
    assert_equal(faces.both({**sent, "signature": "0x00"}), 401, "bad_signature")
    assert_equal(faces.both({**sent, "signature": None}), 401, "bad_signature")
    assert_equal(faces.both({**sent, "extra": 1}), 401, "bad_signature")
    by_another = signed(new_keypair(), sent)
    assert_equal(faces.both(by_another), 401, "bad_signature")


def test_senders_and_receivers(faces):
    other = new_keypair()
    node_hotkey = faces.http.node_hotkey
    assert_equal(faces.both(prediction_message(other, node_hotkey)), 403, "sender_mismatch")
    assert_equal(faces.both(prediction_message(faces.keypair, other.ss58_address)), 401, "wrong_receiver")
    nameless = signed(faces.keypair, {**faces.message(), "sender_hotkey": "5nobody"})
    assert_equal(faces.both(nameless), 400, "invalid_hotkey")


@pytest.mark.parametrize("at", [1_700_000_000.0, 4_000_000_000.0])
def test_a_message_of_another_time(faces, at):
    ack, answer = faces.both(resent(faces.keypair, faces.message(), at))

    assert ack.pop("server_time")
    body = answer.json()
    assert body.pop("server_time")
    assert (ack, answer.status_code, ack["code"]) == (body, 401, "stale_timestamp")


def test_too_much(faces):
    assert assert_equal(faces.both(faces.message(note="x" * 16384)), 413, "payload_too_large")["limit"] == 16384
    batch = {"messages": [faces.message(wager="0")] * 65}
    assert assert_equal(faces.both(batch), 413, "payload_too_large")["limit"] == 64
    large = {"messages": [faces.message()], "note": "x" * 262144}
    assert assert_equal(faces.both(large), 413, "payload_too_large")["limit"] == 262144


@pytest.mark.parametrize("text", ["{", '{"a":NaN}', '{"a":1e400}', '{"a":1,"a":2}', '"\\ud800"', "[" * 100 + "]" * 100])
def test_text_that_is_no_json(node, faces, text):
    """An event is an array around the payload; what is said of it is the same."""
    answer = faces.http.request("POST", "/predictions", text.encode())

    ack = raw_ack(faces, text)

    without_reason = [
        {name: value for name, value in body.items() if name != "reason"} for body in (ack, answer.json())
    ]
    assert without_reason[0] == without_reason[1]
    assert (answer.status_code, ack["code"]) == (400, "invalid_json")


def raw_ack(faces: Faces, text: str) -> Any:
    """The answer to an event whose payload is this very text."""
    client = faces.event.socket._client
    with acks(client) as (ack_id, answers):
        client.eio.send(f'2{NAMESPACE},{ack_id}["prediction",{text}]')
        return answers.get(timeout=20)


@contextmanager
def acks(client: Any) -> Iterator[Any]:
    import queue

    answers: Any = queue.Queue()
    ack_id = client._generate_ack_id(NAMESPACE, answers.put)
    yield ack_id, answers


@pytest.mark.parametrize("name", ["no-such-id", "theirs", "a b", "x" * 200])
def test_a_prediction_that_is_not_there(node, faces, name):
    other = Faces(node)
    other.event.predict(prediction_id="theirs")
    other.close()

    ack, answer = faces.event.status(name), faces.http.get(f"/predictions/{name.replace(' ', '%20')}")

    assert_equal((ack, answer), 404, "prediction_not_found")


@pytest.mark.parametrize("filters", [{"active": "yes"}, {"colour": "red"}])
def test_filters_that_are_none(faces, filters):
    assert_equal(faces.games(**filters), 400, "invalid_message")


def test_a_miner_with_no_tokens_left(tmp_path):
    with running_node(tmp_path, prediction_rate=0.001, prediction_burst=BURST) as node:
        put_games(node)
        faces = Faces(node)
        for _ in range(BURST):
            assert faces.event.predict()["success"]

        ack, answer = faces.predictions()

        body = answer.json()
        waits = ack.pop("retry_after"), body.pop("retry_after")
        assert (ack, answer.status_code, ack["code"]) == (body, 429, "rate_limited")
        assert 0 < waits[1] <= waits[0] <= 1000
        faces.close()


def test_a_hotkey_that_nobody_registered(node):
    keypair: Keypair = new_keypair()
    with SignedHttp(node, keypair) as http, Miner(node, keypair, enter=False) as miner:
        from tests.miners import authenticate

        ack = miner.socket.call("authenticate", authenticate(keypair, miner.challenge))
        answer = http.predict()

    assert_equal((ack, answer), 403, "not_registered")
