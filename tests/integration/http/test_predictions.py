"""Routes of miners as a miner meets them: signed requests, receipts, and what is refused."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from grid_client.receipts import verify_receipt

from app import create_app
from grid_node.canonical import canonical
from grid_node.settings import Settings
from tests.faults import locked
from tests.miners import (
    SignedHttp,
    allow,
    allow_list,
    game,
    new_keypair,
    node_hotkey,
    prediction_body,
    prediction_message,
    public_key,
    put_games,
    resent,
    rows,
    signed,
    stored,
)
from tests.nodes import LiveNode, running_node

UNKNOWN = "no-such-id"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("predictions"), prediction_rate=1000, prediction_burst=5000) as live:
        put_games(
            live,
            game(),
            game("ties", tie_odds="3.50", can_tie=True),
            game("begun", event_start_date="2026-01-01T00:00:00Z"),
        )
        yield live


@pytest.fixture(scope="module")
def public_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """No keys, no sockets, two predictions at once, and half a second for a commit."""
    with running_node(
        tmp_path_factory.mktemp("public"),
        worker_api_keys=False,
        websocket_enabled=False,
        prediction_rate=0.01,
        prediction_burst=2,
        prediction_commit_timeout=0.5,
    ) as live:
        put_games(live)
        yield live


@contextlib.contextmanager
def registered(node: LiveNode) -> Iterator[SignedHttp]:
    keypair = new_keypair()
    allow(node, keypair)
    with SignedHttp(node, keypair) as made:
        yield made


@pytest.fixture
def miner(node: LiveNode) -> Iterator[SignedHttp]:
    with registered(node) as made:
        yield made


def message(miner: SignedHttp, **members: Any) -> dict[str, Any]:
    return prediction_message(miner.keypair, miner.node_hotkey, **members)


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"], body["success"]) == (status, status, code, False), body
    return body


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_a_prediction_gets_a_receipt_that_the_node_signed(miner):
    sent = message(miner)

    answer = miner.post("/predictions", sent)

    receipt = answer.json()
    assert (answer.status_code, receipt["code"], receipt["seq"], receipt["accepted_odds"]) == (
        200,
        "successful",
        1,
        "2.1000",
    )
    assert answer.content == canonical(receipt)
    assert answer.headers["Content-Type"] == "application/json"
    assert "Grid-Replayed" not in answer.headers
    verify_receipt(receipt, miner.node_hotkey, sent["prediction"])


def test_a_rejection_is_signed_too_and_uses_the_id_up(node, miner):
    sent = message(miner, game_id="unknown")

    first, again = miner.post("/predictions", sent), miner.post("/predictions", resent(miner.keypair, sent))

    assert refused(first, 422, "game_not_found")["message"] == "Game not found in validator game_data"
    assert (again.status_code, again.content, again.headers["Grid-Replayed"]) == (422, first.content, "1")
    verify_receipt(first.json(), miner.node_hotkey, sent["prediction"])
    assert len(stored(node, miner.keypair)) == 1


def test_a_repeat_gets_the_same_bytes_and_says_so(node, miner):
    sent = message(miner)
    first = miner.post("/predictions", sent)

    again = miner.post("/predictions", resent(miner.keypair, sent))

    assert (again.status_code, again.content, again.headers["Grid-Replayed"]) == (200, first.content, "1")
    assert wagered(node, miner) == [(100, 1)]


def test_one_prediction_sent_ten_times_at_once_counts_once(node, miner):
    sent = message(miner, wager="7.00")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(SignedHttp(node, miner.keypair)) for _ in range(10)]
        threads = stack.enter_context(ThreadPoolExecutor(10))
        posts = [threads.submit(one.post, "/predictions", resent(miner.keypair, sent)) for one in clients]
        answers = [post.result(30) for post in posts]

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("Grid-Replayed" in answer.headers for answer in answers) == 9
    assert len(stored(node, miner.keypair)) == 1
    assert answers[0].json()["miner_stats"]["wagered"] == "7.00"
    assert wagered(node, miner) == [(700, 1)]


def wagered(node: LiveNode, miner: SignedHttp) -> list[Any]:
    """Cents and number of the miner's accepted predictions, day by day."""
    by_day = "SELECT wagered, accepted FROM miner_daily_wagers WHERE miner = :m"
    return rows(node, by_day, m=public_key(miner.keypair).hex())


def test_another_body_under_a_used_id_changes_nothing(node, miner):
    prediction_id = miner.predict().json()["prediction_id"]
    before = stored(node, miner.keypair)

    answer = miner.predict(prediction_id=prediction_id, wager="2.00")

    assert (
        refused(answer, 409, "duplicate_prediction")["error"]
        == f"Prediction {prediction_id} already exists in database"
    )
    assert stored(node, miner.keypair) == before


def test_a_batch_answers_each_message_as_it_would_be_answered_alone(miner):
    good, bad, broken = (
        message(miner),
        message(miner, wager="0"),
        signed(miner.keypair, {**message(miner), "timestamp": 1}),
    )

    answer = miner.post("/predictions", {"messages": [good, bad, broken, good]})

    results = answer.json()["results"]
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert [one["code"] for one in results] == ["successful", "invalid_wager", "invalid_message", "successful"]
    assert [one.get("seq") for one in results] == [1, 2, None, 1]
    assert results[0] == results[3]
    for sent, receipt in zip((good, bad), results, strict=False):
        assert miner.post("/predictions", resent(miner.keypair, sent)).json() == receipt


def test_a_batch_that_was_taken_before_says_so(miner):
    sent = [message(miner) for _ in range(3)]
    first = miner.post("/predictions", {"messages": sent})

    again = miner.post("/predictions", {"messages": [resent(miner.keypair, one) for one in sent]})

    assert "Grid-Replayed" not in first.headers
    assert (again.json(), again.headers["Grid-Replayed"]) == (first.json(), "1")


def test_the_second_of_two_bodies_under_one_id_of_a_batch_is_a_conflict(miner):
    one = message(miner)
    other = message(miner, prediction_id=one["prediction"]["prediction_id"], wager="3.00")

    results = miner.post("/predictions", {"messages": [one, other]}).json()["results"]

    assert [result["code"] for result in results] == ["successful", "duplicate_prediction"]


def test_two_miners_may_use_one_id(node, miner):
    with registered(node) as other:
        codes = [one.predict(prediction_id="shared").json()["code"] for one in (miner, other)]

    assert codes == ["successful", "successful"]


def test_a_confirmation_is_logged_without_its_signature(node, miner):
    receipt = miner.predict().json()

    line = f"Sent confirmation for prediction {receipt['prediction_id']} to {miner.keypair.ss58_address} via HTTP"
    assert line in node.log_text()
    assert receipt["signature"] not in node.log_text()


MISMATCH = "Submitted team odds do not match current game odds"
NUMERIC = "Invalid numeric predicted_outcome: "


@pytest.mark.parametrize(
    ("members", "code", "text"),
    [
        ({"wager": "abc"}, "invalid_wager", "Invalid wager value"),
        ({"wager": "1.001"}, "invalid_wager", "Invalid wager value"),
        ({"wager": "1e-9"}, "invalid_wager", "Invalid wager value"),
        ({"wager": 0}, "invalid_wager", "Prediction with non-positive wager - nice try"),
        ({"wager": "-5.00"}, "invalid_wager", "Prediction with non-positive wager - nice try"),
        ({"wager": "0.99"}, "invalid_wager", "Wager is below the minimum of $1.00"),
        ({"wager": "0", "game_id": "none"}, "invalid_wager", "Prediction with non-positive wager - nice try"),
        (
            {"wager": "1000.01", "game_id": "none"},
            "daily_limit_exceeded",
            "Would exceed daily limit (Current: $0.00, Attempted: $1000.01)",
        ),
        ({"game_id": "none", "team_a": "Jets"}, "game_not_found", "Game not found in validator game_data"),
        ({"game_id": "begun", "team_a": "Jets"}, "game_started", "Game has already started"),
        (
            {"team_a": "Jets", "team_a_odds": "9"},
            "team_mismatch",
            "Submitted team names do not match game data",
        ),
        ({"team_a_odds": "NaN"}, "invalid_odds", "Invalid odds value"),
        ({"team_a_odds": "1.8101", "tie_odds": "3"}, "odds_mismatch", MISMATCH),
        (
            {"tie_odds": "3.50", "predicted_outcome": 7},
            "odds_mismatch",
            "Submitted tie odds for game that doesn't support ties",
        ),
        (
            {"game_id": "ties", "tie_odds": "3.4899"},
            "odds_mismatch",
            "Submitted tie odds do not match current game odds",
        ),
        ({"predicted_outcome": 3, "predicted_odds": None}, "invalid_outcome", f"{NUMERIC}3"),
        ({"predicted_outcome": "Jets"}, "invalid_outcome", "Invalid predicted_outcome: Jets"),
        ({"predicted_odds": None, "confidence_score": 2}, "missing_odds", "Missing predicted_odds"),
        ({"predicted_outcome": "tie"}, "invalid_odds", "No odds available for the predicted outcome"),
        ({"predicted_odds": "x"}, "invalid_odds", "Invalid odds value"),
        ({"confidence_score": "x"}, "invalid_confidence", "Invalid confidence score format"),
        (
            {"confidence_score": 1.01},
            "invalid_confidence",
            "If provided, confidence score must be between 0 and 1",
        ),
    ],
)
def test_the_first_rule_that_is_broken_is_the_answer(miner, members, code, text):
    body = refused(miner.predict(**members), 422, code)

    assert (body["message"], body["error"]) == (text, text)


def test_odds_that_are_a_hundredth_off_are_taken_at_the_nodes_own(miner):
    receipt = miner.predict(team_a_odds="1.81", team_b_odds="2.09", predicted_odds="2.11").json()

    assert (receipt["code"], receipt["accepted_odds"]) == ("successful", "2.1000")


# --- looking receipts up ----------------------------------------------------------------------------------------------


def test_a_prediction_is_looked_up_with_the_receipt_as_it_was_signed(miner):
    receipt = miner.predict(prediction_id="look:me.up_1")

    answer = miner.get("/predictions/look:me.up_1")

    assert answer.json() == {
        "success": True,
        "prediction_id": "look:me.up_1",
        "state": "accepted",
        "receipt": receipt.json(),
        "settlement": None,
    }
    assert receipt.content in answer.content


def test_a_rejection_is_looked_up_too(miner):
    receipt = miner.predict(wager="0.5").json()

    found = miner.get(f"/predictions/{receipt['prediction_id']}").json()

    assert (found["state"], found["receipt"]) == ("rejected", receipt)


@pytest.mark.parametrize("name", [UNKNOWN, "theirs", "a b", "x" * 129, "%00", "a|b"])
def test_an_unknown_id_and_another_miners_look_the_same(node, miner, name):
    with registered(node) as other:
        other.predict(prediction_id="theirs")

    unknown = miner.get(f"/predictions/{UNKNOWN}")
    answer = miner.get(f"/predictions/{name.replace(' ', '%20').replace('|', '%7C')}")

    refused(answer, 404, "prediction_not_found")
    assert answer.json() == unknown.json()


def test_receipts_are_listed_by_seq(miner):
    ids = [miner.predict().json()["prediction_id"] for _ in range(3)]
    assert [one["prediction_id"] for one in miner.get("/predictions").json()["predictions"]] == ids

    page = miner.get("/predictions", after_seq=1, limit=1).json()

    assert [one["prediction_id"] for one in page["predictions"]] == ids[1:2]
    assert page["predictions"][0] == without(miner.get(f"/predictions/{ids[1]}").json(), "success")
    assert (page["success"], page["last_seq"]) == (True, 3)
    assert miner.get("/predictions", after_seq=3).json()["predictions"] == []


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize(
    "query",
    [
        "after_seq=-1",
        "after_seq=x",
        "after_seq=1.5",
        "limit=0",
        "limit=501",
        "limit=",
        "after_seq=1&after_seq=2",
        "x=1",
    ],
)
def test_a_query_that_is_none(miner, query):
    assert refused(miner.request("GET", f"/predictions?{query}"), 400, "invalid_message")["fields"]


def test_a_miner_that_was_removed_still_fetches_its_receipts(node, miner):
    receipt = miner.predict().json()
    allow_list(node).disallow(public_key(miner.keypair))

    refused(miner.predict(), 403, "not_registered")
    refused(miner.get("/games"), 403, "not_registered")

    assert miner.get(f"/predictions/{receipt['prediction_id']}").json()["receipt"] == receipt
    assert miner.get("/predictions").json()["last_seq"] == 1


# --- who may come in --------------------------------------------------------------------------------------------------


def test_a_hotkey_that_nobody_registered(node):
    with SignedHttp(node, new_keypair()) as stranger:
        answer = stranger.predict()

        assert refused(answer, 403, "not_registered")["error"] == "Unregistered hotkey"
        assert stored(node, stranger.keypair) == []


def test_a_blacklisted_hotkey(node, miner):
    allow_list(node).blacklist(public_key(miner.keypair))

    refused(miner.predict(), 403, "blacklisted")


def test_a_request_is_good_once(node, miner):
    body = canonical(message(miner))
    headers = miner.headers("POST", "/predictions", body)
    first = miner.send("POST", "/predictions", body, headers)
    assert first.status_code == 200

    refused(miner.send("POST", "/predictions", body, headers), 401, "replayed_request")

    batch = canonical({"messages": [message(miner), message(miner)]})
    headers = miner.headers("POST", "/predictions", batch)
    assert miner.send("POST", "/predictions", batch, headers).status_code == 200
    refused(miner.send("POST", "/predictions", batch, headers), 401, "replayed_request")
    headers = miner.headers("GET", "/predictions")
    assert miner.send("GET", "/predictions", b"", headers).json()["last_seq"] == 3
    refused(miner.send("GET", "/predictions", b"", headers), 401, "replayed_request")
    assert len(stored(node, miner.keypair)) == 3


@pytest.mark.parametrize("shift", [-9, 9])
def test_a_clock_that_is_nine_seconds_off(miner, shift):
    body = canonical(message(miner))

    answer = miner.request("POST", "/predictions", body, shift=shift)

    assert refused(answer, 401, "stale_timestamp")["server_time"].endswith("Z")


def test_a_request_to_another_node(node, miner):
    other = new_keypair().ss58_address
    body = canonical(message(miner))

    refused(miner.request("POST", "/predictions", body, signed_for=other), 401, "wrong_receiver")
    refused(miner.post("/predictions", prediction_message(miner.keypair, other)), 401, "wrong_receiver")
    headers = without(miner.headers("POST", "/predictions", body), "Epistula-Signed-For")
    refused(miner.send("POST", "/predictions", body, headers), 401, "wrong_receiver")
    assert stored(node, miner.keypair) == []


def test_a_body_that_was_not_signed(miner):
    body, changed = canonical(message(miner)), canonical(message(miner))
    headers = miner.headers("POST", "/predictions", body)

    refused(miner.send("POST", "/predictions", changed, headers), 401, "bad_signature")

    headers = miner.headers("GET", "/predictions?limit=1")
    refused(miner.send("GET", "/predictions?limit=2", b"", headers), 401, "bad_signature")


def test_a_message_that_was_not_signed(miner):
    sent = message(miner)

    refused(miner.post("/predictions", {**sent, "prediction": prediction_body()}), 401, "bad_signature")
    refused(miner.post("/predictions", {**sent, "signature": "0x12"}), 401, "bad_signature")
    refused(miner.post("/predictions", without(sent, "signature")), 401, "bad_signature")


def test_a_message_of_another_miner(node, miner):
    with registered(node) as other:
        refused(miner.post("/predictions", message(other)), 403, "sender_mismatch")
        assert stored(node, other.keypair) == []


@pytest.mark.parametrize(
    ("name", "value", "status", "code"),
    [
        ("Epistula-Version", "1", 400, "invalid_message"),
        ("Epistula-Timestamp", "soon", 400, "invalid_message"),
        ("Epistula-Uuid", "6fa459ea-ee8a-11ca-894e-0800200c9a66", 400, "invalid_message"),
        ("Epistula-Signed-By", "5nobody", 400, "invalid_hotkey"),
        ("Epistula-Request-Signature", "0xabc", 401, "bad_signature"),
        ("Epistula-Request-Signature", "0x" + "ab" * 64, 401, "bad_signature"),
    ],
)
def test_headers_that_are_none(miner, name, value, status, code):
    body = canonical(message(miner))
    headers = miner.headers("POST", "/predictions", body) | {name: value}

    refused(miner.send("POST", "/predictions", body, headers), status, code)


def test_without_a_name_not_a_byte_of_the_body_is_read(node):
    """The answer comes though the body that was announced never does."""
    with socket.create_connection(("127.0.0.1", node.port), 20) as peer:
        peer.sendall(b"POST /predictions HTTP/1.1\r\nHost: node\r\nContent-Length: 100000\r\n\r\n")
        head = peer.recv(4096)

    assert head.startswith(b"HTTP/1.1 401")
    for method, path in (
        ("POST", "/predictions"),
        ("GET", "/predictions"),
        ("GET", "/predictions/x"),
        ("GET", "/games"),
    ):
        refused(httpx.request(method, node.url + path), 401, "missing_auth")


# --- messages that are none -------------------------------------------------------------------------------------------


def test_a_body_without_a_length(node, miner):
    headers = miner.headers("POST", "/predictions", b"{}")
    peer = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    peer.request("POST", "/predictions", iter([b"{}"]), headers, encode_chunked=True)
    answer = peer.getresponse()

    assert (answer.status, json.loads(answer.read())["code"]) == (411, "length_required")
    peer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e400}',
        b'{"a":1,"a":2}',
        b'"\\ud800"',
        b'{"a":"\xff"}',
        b"[" * 100 + b"]" * 100,
    ],
)
def test_a_body_that_is_no_json(miner, body):
    refused(miner.request("POST", "/predictions", body), 400, "invalid_json")


@pytest.mark.parametrize("payload", [[], 1, None, "text", {}, {"messages": []}, {"messages": {}}, {"messages": 1}])
def test_a_body_that_is_no_message(miner, payload):
    assert refused(miner.post("/predictions", payload), 400, "invalid_message")["fields"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_id", "no uuid"),
        ("sender_hotkey", None),
        ("timestamp", "2026-11-20T12:00:00"),
        ("message_type", "authenticate"),
        ("prediction", 7),
    ],
)
def test_a_member_that_cannot_be(miner, name, value):
    sent = signed(miner.keypair, {**message(miner), name: value})

    assert name in refused(miner.post("/predictions", sent), 400, "invalid_message")["fields"]


def test_what_is_missing_is_named_and_nothing_is_kept(node, miner):
    answer = miner.predict(wager=None, team_a=None)

    body = refused(answer, 400, "missing_data")
    assert (body["error"], sorted(body["fields"])) == ("Missing prediction data", ["team_a", "wager"])
    assert stored(node, miner.keypair) == []


def test_too_much(node, miner):
    too_long = miner.predict(note="x" * 16384)
    assert refused(too_long, 413, "payload_too_large")["limit"] == 16384

    too_many = miner.post("/predictions", {"messages": [message(miner)] * 65})
    assert refused(too_many, 413, "payload_too_large")["limit"] == 64

    too_large = miner.request("POST", "/predictions", b" " * 262145)
    assert refused(too_large, 413, "payload_too_large")["limit"] == 262144
    assert stored(node, miner.keypair) == []


def test_the_largest_batch_that_is_taken(miner):
    sent = [message(miner) for _ in range(64)]

    answer = miner.post("/predictions", {"messages": sent})

    assert [one["seq"] for one in answer.json()["results"]] == list(range(1, 65))


def test_another_method(node):
    answer = httpx.delete(f"{node.url}/predictions")

    refused(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


# --- a private grid ---------------------------------------------------------------------------------------------------


def test_a_miner_of_a_private_grid_shows_a_key_and_signs_nothing(node):
    info = node.key_info(key := node.keys.generate(), "private", ("worker",), 10, 60, 0)
    sent = without(prediction_message(new_keypair(), node_hotkey(node)), "signature") | {
        "sender_hotkey": f"key:{info.id}"
    }
    bearer = {"Authorization": f"Bearer {key}"}

    answer = httpx.post(f"{node.url}/predictions", json=sent, headers=bearer)

    receipt = answer.json()
    assert (answer.status_code, receipt["receiver_hotkey"]) == (200, f"key:{info.id}")
    verify_receipt(receipt, node_hotkey(node), sent["prediction"])
    found = httpx.get(f"{node.url}/predictions/{receipt['prediction_id']}", headers=bearer)
    assert found.json()["receipt"] == receipt
    assert httpx.get(f"{node.url}/games", headers=bearer).status_code == 200
    stolen = httpx.post(f"{node.url}/predictions", json={**sent, "sender_hotkey": "key:other"}, headers=bearer)
    assert stolen.json()["success"] is False


def test_keys_that_do_not_open_the_door(node, public_node):
    client = {"Authorization": f"Bearer {node.add_key('client')}"}
    refused(httpx.post(f"{node.url}/predictions", json={}, headers=client), 403, "forbidden")
    refused(httpx.get(f"{node.url}/predictions", headers=client), 403, "forbidden")
    nobody = {"Authorization": "Bearer nonsense"}
    refused(httpx.get(f"{node.url}/predictions", headers=nobody), 401, "invalid_key")
    worker = {"Authorization": f"Bearer {public_node.add_key('worker', ('worker',))}"}
    refused(httpx.get(f"{public_node.url}/predictions", headers=worker), 401, "not_authenticated")


# --- not now ----------------------------------------------------------------------------------------------------------


def test_too_many_new_predictions_say_when_there_is_room_again(public_node):
    with registered(public_node) as miner:
        first = message(miner)
        codes = [miner.post("/predictions", one).json()["code"] for one in (first, message(miner))]
        assert codes == ["successful", "successful"]

        answer = miner.predict()

        wait = refused(answer, 429, "rate_limited")["retry_after"]
        assert 0 < wait <= 100
        assert int(answer.headers["Retry-After"]) == -int(-wait // 1)
        assert miner.post("/predictions", resent(miner.keypair, first)).headers["Grid-Replayed"] == "1"
        batch = miner.post("/predictions", {"messages": [message(miner), message(miner)]}).json()
        assert [one["code"] for one in batch["results"]] == ["rate_limited", "rate_limited"]


def test_a_commit_that_takes_too_long_is_answered_and_may_be_sent_again(public_node):
    with registered(public_node) as miner, locked(public_node):
        sent = message(miner)
        answer = miner.post("/predictions", sent)
        refused(answer, 503, "commit_timeout")
        assert int(answer.headers["Retry-After"]) >= 1

    with SignedHttp(public_node, miner.keypair) as miner:
        again = miner.post("/predictions", resent(miner.keypair, sent))

    assert (again.status_code, again.json()["code"]) == (200, "successful")
    assert len(stored(public_node, miner.keypair)) == 1


# --- how the sockets are ----------------------------------------------------------------------------------------------


def test_health_asks_for_nothing(node):
    answer = httpx.get(f"{node.url}/ws/health")

    body = answer.json()
    assert (answer.status_code, body["status"], body["node_hotkey"]) == (200, "online", node_hotkey(node))
    assert (body["connections"], body["active_connections"], body["pending"]) == (0, 0, 0)
    assert body["uptime"] > 0
    assert len(body) == 6


def test_health_says_that_sockets_are_switched_off(public_node):
    answer = httpx.get(f"{public_node.url}/ws/health")

    assert (answer.status_code, answer.json()["status"]) == (200, "disabled")


def test_health_says_that_the_node_is_on_its_way_out(tmp_path):
    app = create_app(Settings.load({}, data_dir=tmp_path))
    grid = app.extensions["grid"]
    grid.draining = True

    answer = app.test_client().get("/ws/health")

    grid.bells.close()
    grid.store.close()

    assert (answer.status_code, answer.json["status"], answer.headers["Retry-After"]) == (503, "draining", "1")


def test_the_routes_are_in_the_document(node):
    paths = httpx.get(f"{node.url}/schema/openapi.json").json()["paths"]

    assert {
        "/predictions",
        "/predictions/{prediction_id}",
        "/games",
        "/games/updates",
        "/games/{game_id}",
        "/ws/health",
    } <= set(paths)
