import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from grid_client import game_poll, prediction_http, prediction_link, prediction_sender, prediction_socket, predictions
from grid_client.errors import DeadlineExceeded, GridError
from grid_client.game_feed import GameUpdate, Position
from grid_client.outbox import Outbox
from grid_client.prediction_body import REQUIRED
from grid_client.predictions import PredictionClient
from grid_client.receipts import verify_receipt
from werkzeug.wrappers import Response

from grid_node.predictions import messages
from tests.proxy import Proxy
from tests.unit.clients.prediction_node import (
    EPOCH,
    MINER,
    NAMESPACE,
    NODE,
    STRANGER,
    WAIT,
    Dice,
    ManualClock,
    PredictionNode,
    delta,
    game,
    packed,
    prediction,
    receipt_of,
    refused,
    rejection_of,
    sign,
    snapshot,
    until,
)
from tests.unit.clients.serving import serving

HOTKEY = NODE.ss58_address
LOOK = 0.02
"""How often a client under test looks at its clock and its outbox, in seconds."""


@pytest.fixture
def node(caplog: pytest.LogCaptureFixture) -> Iterator[PredictionNode]:
    """Fails the test if the client's transport met an error of its own and only logged it."""
    caplog.set_level(logging.INFO, "grid_client")
    with serving(PredictionNode()) as scripted:
        yield scripted
    swallowed = [r for r in caplog.get_records("call") if r.name == "engineio.client" and r.levelname == "ERROR"]
    assert swallowed == []


@pytest.fixture
def make(
    node: PredictionNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., PredictionClient]]:
    """Makes clients of one outbox that draw no pauses, and stops them."""
    for module in (prediction_sender, prediction_link, game_poll, predictions):
        monkeypatch.setattr(module, "LOOK", LOOK)
    made: list[PredictionClient] = []

    def make(url: str | None = None, **options: Any) -> PredictionClient:
        settings = {"random": Dice(), **options}
        client = PredictionClient(url or node.url, MINER, HOTKEY, tmp_path / "outbox.db", **settings)
        made.append(client)
        return client

    yield make
    for client in made:
        client.stop()
        assert [thread.name for thread in client._threads if thread.is_alive()] == []


@contextmanager
def running(client: PredictionClient) -> Iterator[PredictionClient]:
    client.start()
    yield client
    client.stop()


def connected(client: PredictionClient) -> PredictionClient:
    client.start()
    until(lambda: client._link.socket is not None and client.status()["position"] is not None)
    return client


def ids(node: PredictionNode, way: str) -> list[str]:
    return [prediction_id for by, prediction_id in node.arrivals if by == way]


Make = Callable[..., PredictionClient]

# --- the ordinary way -------------------------------------------------------------------------------------------------


def test_a_prediction_gets_its_receipt_over_the_socket(
    node: PredictionNode, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    client = connected(make())
    receipt = client.wait(client.submit(prediction("p1")), WAIT)
    assert (receipt.accepted, receipt.code, receipt.accepted_odds) == (True, "successful", "2.1000")
    verify_receipt(receipt.document, HOTKEY, prediction("p1"))
    assert node.arrivals == [("websocket", "p1")]
    assert node.messages[0]["receiver_hotkey"] == HOTKEY
    assert "Pushed prediction p1 via WebSocket" in caplog.messages
    assert client.status()["outbox"]["accepted"] == 1
    assert client.status()["transport"] == "websocket"
    assert client.status()["last_auth"] is not None


def test_a_rejection_by_the_rules_is_a_verdict(node: PredictionNode, make: Make) -> None:
    node.judge = lambda message, way: rejection_of(message["prediction"])
    client = connected(make())
    receipt = client.wait(client.submit(prediction("p1")), WAIT)
    assert (receipt.accepted, receipt.code) == (False, "game_started")
    assert client.status()["outbox"]["rejected"] == 1


def test_a_prediction_without_an_id_gets_one(node: PredictionNode, make: Make) -> None:
    client = connected(make())
    first, second = client.submit(prediction()), client.submit(prediction())
    assert first != second
    assert first.startswith("g1_")
    assert client.wait(second, WAIT).prediction_id == second


def test_a_misshapen_prediction_is_refused_at_once(make: Make) -> None:
    client = make()
    for body in ([], "p1", {"prediction_id": "a b"}, {"prediction_id": 7}, prediction("p1", wager=float("nan"))):
        with pytest.raises(GridError, match="invalid_prediction"):
            client.submit(body)  # type: ignore[arg-type]
    assert client.status()["outbox"]["queued"] == 0
    client.submit(prediction("p1"))
    with pytest.raises(GridError, match="conflict"):
        client.submit(prediction("p1", wager="2.00"))
    with pytest.raises(GridError, match="unknown_prediction"):
        client.wait("p2", 1)
    with pytest.raises(DeadlineExceeded):
        client.wait("p1", 0)


def test_what_waits_is_sent_in_batches_in_the_order_of_submission(node: PredictionNode, make: Make) -> None:
    node.limits["max_batch"] = 4
    client = make()
    wanted = [client.submit(prediction(f"p{number}")) for number in range(10)]
    client.start()
    assert [client.wait(each, WAIT).seq for each in wanted] == list(range(1, 11))
    assert ids(node, "websocket") == wanted
    assert node.payloads == [4, 4, 2]


def test_no_more_than_the_window_is_unanswered(node: PredictionNode, make: Make) -> None:
    node.limits |= {"max_in_flight": 2, "max_batch": 1}
    node.judge = lambda message, way: node.withheld
    client = connected(make())
    for number in range(5):
        client.submit(prediction(f"p{number}"))
    until(lambda: len(node.arrivals) == 2)
    assert client._sender._send() is False
    assert ids(node, "websocket") == ["p0", "p1"]


def test_a_retryable_refusal_starts_again_at_the_oldest_with_a_fresh_envelope(node: PredictionNode, make: Make) -> None:
    node.limits["max_batch"] = 1
    refusals = [refused("overloaded", 503, retry_after=0.01), refused("rate_limited", 429, retry_after=0.01)]

    def judge(message: dict[str, Any], way: str) -> Any:
        return refusals.pop() if refusals else node.accept(message["prediction"])

    node.judge = judge
    client = make()
    wanted = [client.submit(prediction(f"p{number}")) for number in range(3)]
    client.start()
    for each in wanted:
        client.wait(each, WAIT)
    own = [message for message in node.messages if message["prediction"]["prediction_id"] == "p0"]
    assert len(own) >= 2
    assert len({message["message_id"] for message in own}) == len({m["signature"] for m in own}) == len(own)
    assert all(message["prediction"] == prediction("p0") for message in own)
    assert sorted(node.receipts) == wanted


def test_the_rest_of_a_batch_that_was_not_processed_is_sent_again_in_order(node: PredictionNode, make: Make) -> None:
    def judge_payload(messages: list[dict[str, Any]], way: str) -> Any:
        if len(node.payloads) > 1:
            return None
        late = refused("rate_limited", 429, retry_after=0.01)
        return {"success": True, "results": [node.accept(messages[0]["prediction"])] + [late] * (len(messages) - 1)}

    node.judge_payload = judge_payload
    client = make()
    wanted = [client.submit(prediction(f"p{number}")) for number in range(4)]
    client.start()
    assert [client.wait(each, WAIT).seq for each in wanted] == [1, 2, 3, 4]
    assert node.payloads == [4, 3]


def test_a_batch_that_is_refused_as_a_whole_is_sent_message_by_message(node: PredictionNode, make: Make) -> None:
    node.judge_payload = lambda messages, way: refused("payload_too_large", 413) if len(messages) > 1 else None
    client = make()
    wanted = [client.submit(prediction(f"p{number}")) for number in range(3)]
    client.start()
    assert [client.wait(each, WAIT).seq for each in wanted] == [1, 2, 3]
    assert node.payloads == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "state", "code"),
    [
        (refused("duplicate_prediction", 409), "conflict", "conflict"),
        (refused("missing_data", 400, fields=["team_a"]), "rejected", "missing_data"),
        (refused("invalid_message", 400), "rejected", "invalid_message"),
        (refused("payload_too_large", 413, limit=16384), "rejected", "payload_too_large"),
        (refused("uid_mismatch", 403), "rejected", "uid_mismatch"),
    ],
)
def test_a_refusal_for_good_ends_the_entry_without_a_receipt(
    node: PredictionNode, make: Make, answer: dict[str, Any], state: str, code: str
) -> None:
    node.judge = lambda message, way: answer
    client = connected(make())
    prediction_id = client.submit(prediction("p1"))
    with pytest.raises(GridError) as ended:
        client.wait(prediction_id, WAIT)
    assert ended.value.code == code
    entry = client.entry(prediction_id)
    assert (entry.state, entry.document) == (state, None)
    assert entry.error is not None
    assert entry.error["code"] == answer["code"]


@pytest.mark.parametrize("code", ["not_registered", "bad_signature", "stale_timestamp", "unheard_of"])
def test_a_refusal_of_the_miner_leaves_its_predictions_in_the_outbox(
    node: PredictionNode, make: Make, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    node.judge = lambda message, way: refused(code, 401, server_time="2026-11-20T12:00:00.000Z")
    client = connected(make(clock=clock))
    client.submit(prediction("p1"))
    until(lambda: any(f"{code}: " in text for text in caplog.messages))
    node.judge = lambda message, way: node.accept(message["prediction"])
    clock.advance(301)
    assert client.wait("p1", WAIT).accepted


# --- a node that is not trusted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        lambda body: {**receipt_of(body), "accepted_odds": "9.0000"},
        lambda body: receipt_of(body, keypair=STRANGER),
        lambda body: sign(receipt_of(body), STRANGER),
        lambda body: receipt_of({**body, "wager": "9.00"}),
        lambda body: receipt_of({**body, "prediction_id": "another"}),
        lambda body: receipt_of(body, receiver_hotkey=STRANGER.ss58_address),
        lambda body: {"message_type": "confirmation"},
    ],
)
def test_a_bad_receipt_is_counted_leaves_the_row_and_three_in_a_row_end_the_connection(
    node: PredictionNode, make: Make, forged: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    def judge(message: dict[str, Any], way: str) -> Any:
        return forged(message["prediction"]) if len(node.arrivals) <= 3 else node.accept(message["prediction"])

    node.judge = judge
    client = connected(make())
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    assert client.status()["bad_signatures"] == 3
    assert len(node.arrivals) == 4
    assert len(node.introductions) == 2


def test_a_node_with_another_key_gets_no_prediction(node: PredictionNode, make: Make) -> None:
    node.admit = lambda introduction: node.welcome(introduction, STRANGER, sender_hotkey=HOTKEY)
    client = make()
    client.submit(prediction("p1"))
    client.start()
    until(lambda: client.status()["bad_signatures"] >= 2)
    assert node.arrivals == []
    assert client.status()["last_error"]["code"] == "wrong_node"
    node.admit = lambda introduction: None
    assert client.wait("p1", WAIT).accepted


def test_a_tampered_update_is_not_applied_but_resumed(node: PredictionNode, make: Make) -> None:
    client = connected(make())
    genuine = node.change(team_b_odds="2.2000")
    node.push({**genuine, "updated_games": {"g1": {"team_b_odds": "9.0000"}}})
    until(lambda: client.games["g1"]["team_b_odds"] == "2.2000")
    assert node.resumed == [{"epoch": EPOCH, "seq": 0}]
    assert client.status()["bad_signatures"] == 1


def test_three_bad_updates_in_a_row_end_the_connection(node: PredictionNode, make: Make) -> None:
    client = connected(make())
    for _ in range(3):
        node.push(delta(1, {}, keypair=STRANGER))
    until(lambda: len(node.introductions) == 2)
    assert client.status()["bad_signatures"] == 3


# --- games ------------------------------------------------------------------------------------------------------------


def test_updates_reach_the_listener_once_and_in_order(node: PredictionNode, make: Make) -> None:
    client, seen = make(), []
    client.on_game_update(seen.append)
    connected(client)
    for number in range(40):
        update = node.change(team_b_odds=f"2.{number:04d}")
        node.push(packed(update) if number % 2 else update)
        node.push(update)
    until(lambda: len(seen) == 41)
    assert [update.position.seq for update in seen] == list(range(41))
    assert [update.kind for update in seen] == ["snapshot"] + ["delta"] * 40
    assert node.resumed == []
    assert client.games["g1"]["team_b_odds"] == "2.0039"


def test_a_gap_is_resumed_and_nothing_is_missed(node: PredictionNode, make: Make) -> None:
    client, seen = make(), []
    client.on_game_update(seen.append)
    connected(client)
    for number in range(5):
        last = node.change(team_b_odds=f"2.{number:04d}")
    node.push(last)
    until(lambda: len(seen) == 6)
    assert [update.position.seq for update in seen] == list(range(6))
    assert node.resumed == [{"epoch": EPOCH, "seq": 0}]


def test_a_heartbeat_with_a_higher_seq_resumes_what_was_lost(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client = connected(make(clock=clock))
    node.change(team_b_odds="2.5000")
    node.push(node.heartbeat(), "heartbeat")
    until(lambda: client._link.socket._behind_since is not None)  # type: ignore[union-attr]
    assert node.resumed == []
    clock.advance(3)
    until(lambda: client.games["g1"]["team_b_odds"] == "2.5000")
    assert node.resumed == [{"epoch": EPOCH, "seq": 0}]


def test_a_new_epoch_is_followed_from_its_snapshot(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client = connected(make(clock=clock))
    node.epoch = "b" * 16
    node.push(node.heartbeat(), "heartbeat")
    until(lambda: client._link.socket._behind_since is not None)  # type: ignore[union-attr]
    clock.advance(3)
    until(lambda: client.status()["position"] == {"epoch": "b" * 16, "seq": 0})


def test_updates_are_acknowledged_each_sixteen_or_each_second(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client = connected(make(clock=clock))
    for number in range(15):  # with the snapshot: sixteen
        node.push(node.change(team_b_odds=f"2.{number:04d}"))
    until(lambda: node.acked == [{"epoch": EPOCH, "seq": 15}])
    node.push(node.change(team_b_odds="3.0000"))
    until(lambda: client.games["g1"]["team_b_odds"] == "3.0000")
    clock.advance(1.5)
    until(lambda: node.acked[-1] == {"epoch": EPOCH, "seq": 16})


def test_a_reconnect_names_the_position_and_gets_exactly_what_was_missed(node: PredictionNode, make: Make) -> None:
    client, seen = make(), []
    client.on_game_update(seen.append)
    connected(client)
    node.push(node.change(team_b_odds="2.2000"))
    until(lambda: len(seen) == 2)
    until(lambda: client.status()["position"]["seq"] == 1)
    node.change(team_b_odds="2.3000")
    node.change(team_b_odds="2.4000")
    node.drop()
    until(lambda: len(seen) == 4)
    assert "position" not in node.introductions[0]
    assert node.introductions[1]["position"] == {"epoch": EPOCH, "seq": 1}
    assert node.introductions[1]["compression"] == ["zlib"]
    assert [(update.kind, update.position.seq) for update in seen[1:]] == [("delta", 1), ("delta", 2), ("delta", 3)]


# --- the connection ---------------------------------------------------------------------------------------------------


def test_pauses_double_up_to_the_limit_and_only_an_authentication_resets_them(node: PredictionNode, make: Make) -> None:
    dice = Dice()
    node.admit = lambda introduction: refused("auth_failed", 401)
    client = make(random=dice)
    client.start()
    until(lambda: len(dice.drawn) >= 9)
    assert dice.drawn[:9] == [(0.0, min(300.0, 5.0 * 2**n)) for n in range(9)]
    node.admit = lambda introduction: None
    until(lambda: client.status()["transport"] == "websocket")
    drawn = len(dice.drawn)
    node.drop()
    until(lambda: len(dice.drawn) > drawn)
    assert dice.drawn[drawn] == (0.0, 5.0)


def test_a_pause_is_at_least_what_the_node_asks_for(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    node.admit = lambda introduction: refused("server_full", 503, retry_after=17)
    client = make(clock=clock)
    client.start()
    until(lambda: client.status()["last_error"])
    clock.advance(16)
    settle()
    assert len(node.introductions) == 1
    clock.advance(2)
    until(lambda: len(node.introductions) == 2)


@pytest.mark.parametrize("name", REQUIRED[1:])
def test_a_prediction_that_lacks_a_member_is_refused_at_once(make: Make, name: str) -> None:
    client, whole = make(), prediction("p1")
    for body in ({**whole, name: None}, {key: value for key, value in whole.items() if key != name}):
        with pytest.raises(GridError, match=f"invalid_prediction: a prediction needs {name}$"):
            client.submit(body)
    assert client.status()["outbox"]["queued"] == 0


def test_what_a_client_asks_for_is_what_a_node_requires() -> None:
    assert REQUIRED == messages.REQUIRED


@pytest.mark.parametrize("code", ["not_registered", "blacklisted", "deregistered"])
def test_who_is_not_let_in_waits_the_longest_pause(
    node: PredictionNode, make: Make, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    node.admit = lambda introduction: refused(code, 403, retry_after=3600)
    client = make(clock=clock, max_reconnect_interval=120)
    client.start()
    until(lambda: client.status()["last_error"])
    assert any(f"this miner is {MINER.ss58_address}" in text for text in caplog.messages)
    clock.advance(119)
    settle()
    assert len(node.introductions) == 1
    clock.advance(2)
    until(lambda: len(node.introductions) == 2)


def test_who_is_not_let_in_over_http_waits_the_longest_pause_too(
    node: PredictionNode, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    clock, asked = ManualClock(), []

    def bar(request: Any) -> Response:
        asked.append(request.method)
        body = refused("not_registered", 403, retry_after=3600)
        return Response(json.dumps(body), 403, {"Retry-After": "3600"}, content_type="application/json")

    node.on_http = bar
    client = make(clock=clock, websocket_enabled=False, max_reconnect_interval=120)
    client.submit(prediction("p1"))
    client.start()
    for turn in (1, 2):
        until(lambda: sorted(asked) == sorted(["GET", "POST"] * turn))  # noqa: B023
        until(lambda: len([text for text in caplog.messages if "again in 120.0 s" in text]) == 2 * turn)  # noqa: B023
        clock.advance(119)
        settle()
        assert len(asked) == 2 * turn
        clock.advance(2)
    until(lambda: len(asked) == 6)
    assert all(f"this miner is {MINER.ss58_address}" in text for text in caplog.messages if "again in" in text)


def test_a_node_without_sockets_is_told_of_once(
    node: PredictionNode, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "grid_client.prediction_link")
    node.sees_sockets = False
    make().start()

    def levels() -> list[str]:
        return [one.levelname for one in caplog.records if "websocket_disabled" in one.getMessage()]

    until(lambda: len(levels()) >= 3)
    assert levels()[:3] == ["WARNING", "DEBUG", "DEBUG"]


def test_what_is_in_the_way_is_said_when_the_time_is_over(node: PredictionNode, make: Make) -> None:
    node.judge_payload = lambda messages, way: refused("blacklisted", 403, retry_after=3600)
    client = make(websocket_enabled=False, follow_games=False)
    client.start()
    client.submit(prediction("p1"))
    until(lambda: client._sender.last_error)
    with pytest.raises(DeadlineExceeded, match=f"blacklisted.*this miner is {MINER.ss58_address}"):
        client.wait("p1", 0.01)
    node.admit = lambda introduction: refused("deregistered", 403)
    client = make()
    client.start()
    client.submit(prediction("p2"))
    until(lambda: client.status()["last_error"])
    with pytest.raises(DeadlineExceeded, match="deregistered"):
        client.wait("p2", 0.01)


def test_what_was_in_the_way_once_is_not_said_of_what_comes_after(node: PredictionNode, make: Make) -> None:
    answers = [refused("overloaded", 503, retry_after=0.01)]
    node.judge_payload = lambda messages, way: answers.pop() if answers else None
    client = connected(make())
    client.wait(client.submit(prediction("p1")), WAIT)
    node.judge = lambda message, way: node.withheld
    client.submit(prediction("p2"))
    with pytest.raises(DeadlineExceeded, match=r"within 0.01 s$"):
        client.wait("p2", 0.01)


def test_who_only_submits_asks_for_no_games(node: PredictionNode, make: Make) -> None:
    client = make(websocket_enabled=False, follow_games=False)
    client.start()
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    client.stop()
    assert node.polls == []


def settle() -> None:
    """Longer than the loops of a client take to look at their clock."""
    threading.Event().wait(10 * LOOK)


def test_heartbeats_go_both_ways(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    connected(make(clock=clock))
    for count in (1, 2):
        clock.advance(61)
        until(lambda: len(node.heartbeats) == count)  # noqa: B023
    answers: list[Any] = []
    node.sio.emit("heartbeat", node.heartbeat(), node.connections[-1], namespace=NAMESPACE, callback=answers.append)
    until(lambda: answers)
    assert node.heartbeats[0]["sender_hotkey"] == answers[0]["sender_hotkey"] == MINER.ss58_address
    assert answers[0]["message_type"] == "heartbeat"


def test_a_silent_node_is_left_after_two_intervals_and_ten_seconds(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    connected(make(clock=clock, heartbeat_interval=20))
    node.is_mute = True
    clock.advance(49)
    until(lambda: node.heartbeats)
    assert len(node.introductions) == 1
    node.is_mute = False
    clock.advance(2)
    until(lambda: len(node.introductions) == 2)


def test_a_node_that_closes_with_a_reason_is_met_again_later(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client = connected(make(clock=clock))
    node.push({"code": 4503, "reason": "shutdown", "error": "Server shutting down", "retry_after": 8}, "closing")
    node.drop()
    until(lambda: client.status()["last_error"] is not None)
    assert client.status()["last_error"]["code"] == "shutdown"
    assert client.status()["transport"] == "none"
    clock.advance(7)
    settle()
    assert len(node.introductions) == 1
    clock.advance(2)
    until(lambda: len(node.introductions) == 2)


# --- HTTP -------------------------------------------------------------------------------------------------------------


def test_without_sockets_http_does_everything_at_once(
    node: PredictionNode, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    client, seen = make(websocket_enabled=False), []
    client.on_game_update(seen.append)
    client.start()
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    until(lambda: len(seen) == 1)
    node.change(team_b_odds="2.2000")
    until(lambda: len(seen) == 2)
    assert [update.position.seq for update in seen] == [0, 1]
    assert (client.status()["transport"], node.connections) == ("http", [])
    assert "Pushed prediction p1 via HTTP" in caplog.messages


def test_a_blocked_socket_falls_back_to_http_and_back_without_gap_or_double(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client, seen = make(clock=clock), []
    client.on_game_update(seen.append)
    connected(client)
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    node.sees_sockets = False
    node.drop()
    until(lambda: client.status()["transport"] == "none")
    client.submit(prediction("p2"))
    settle()
    assert ids(node, "http") == []
    clock.advance(11)
    assert client.wait("p2", WAIT).accepted
    node.change(team_b_odds="2.2000")
    until(lambda: len(seen) == 2)
    assert node.polls[0]["epoch"] == EPOCH
    assert node.polls[0]["after"] == "0"
    node.sees_sockets = True
    clock.advance(301)
    until(lambda: client.status()["transport"] == "websocket")
    polls = len(node.polls)
    node.push(node.change(team_b_odds="2.3000"))
    until(lambda: len(seen) == 3)
    assert client.wait(client.submit(prediction("p3")), WAIT).accepted
    assert node.arrivals == [("websocket", "p1"), ("http", "p2"), ("websocket", "p3")]
    assert [update.position.seq for update in seen] == [0, 1, 2]
    assert node.introductions[-1]["position"] == {"epoch": EPOCH, "seq": 1}
    assert len(node.polls) == polls


def test_a_late_ack_sends_the_row_by_http_with_the_same_id(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    node.judge = lambda message, way: node.withheld if way == "websocket" else node.accept(message["prediction"])
    client = connected(make(clock=clock))
    client.submit(prediction("p1"))
    until(lambda: node.arrivals)
    clock.advance(11)
    assert client.wait("p1", WAIT).accepted
    assert node.arrivals == [("websocket", "p1"), ("http", "p1")]
    assert node.messages[0]["message_id"] != node.messages[1]["message_id"]
    assert client.status()["transport"] == "websocket"
    node.judge = lambda message, way: node.accept(message["prediction"])
    until(lambda: node.heartbeats)
    until(lambda: not client._link.socket.is_mute)  # type: ignore[union-attr]
    assert client.wait(client.submit(prediction("p2")), WAIT).accepted
    assert node.arrivals[-1] == ("websocket", "p2")


def test_late_rows_around_one_that_was_refused_go_in_their_order_and_leave_none_behind(
    node: PredictionNode, make: Make
) -> None:
    clock = ManualClock()
    node.limits["max_batch"] = 1
    first = {"p0": node.withheld, "p1": refused("rate_limited", 429, retry_after=1), "p2": node.withheld}

    def judge(message: dict[str, Any], way: str) -> Any:
        answer = first.pop(message["prediction"]["prediction_id"], None)
        return answer or node.accept(message["prediction"])

    node.judge = judge
    client = make(clock=clock)
    wanted = [client.submit(prediction(each)) for each in ("p0", "p1", "p2")]
    client.start()
    until(lambda: client._sender._is_held and len(client._sender._flights) == 2)
    clock.advance(11)
    assert [client.wait(each, WAIT).seq for each in wanted] == [1, 2, 3]
    assert ids(node, "http")[0] == "p0"


def test_a_socket_that_answers_nothing_at_all_is_replaced(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    client = connected(make(clock=clock))
    node.is_mute = True
    client.submit(prediction("p1"))
    until(lambda: client._sender._flights)
    clock.advance(11)
    assert client.wait("p1", WAIT).accepted
    assert ids(node, "http") == ["p1"]
    node.is_mute = False
    clock.advance(11)
    until(lambda: len(node.introductions) == 2)


def test_the_stored_receipt_comes_back_when_the_ack_was_lost(node: PredictionNode, make: Make) -> None:
    stored: list[dict[str, Any]] = []

    def judge(message: dict[str, Any], way: str) -> Any:
        stored.append(node.accept(message["prediction"]))
        return node.withheld if len(stored) == 1 else stored[0]

    node.judge = judge
    clock = ManualClock()
    client = connected(make(clock=clock))
    client.submit(prediction("p1"))
    until(lambda: stored)
    clock.advance(11)
    assert client.wait("p1", WAIT).document == stored[0]


def test_a_proxys_own_error_is_no_answer_of_the_node(node: PredictionNode, make: Make) -> None:
    errors = [Response("<html>", 404), Response("<html>", 502), Response("not json", 200), Response("[]", 200)]
    node.on_http = lambda request: errors.pop() if errors and request.method == "POST" else None
    client = make(websocket_enabled=False)
    client.start()
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    assert errors == []


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def overdue(node: PredictionNode, make: Make) -> Callable[[], PredictionClient]:
    """A client that sent p1, got no answer, and looks again after the deadline."""

    def overdue() -> PredictionClient:
        clock = ManualClock()
        first = connected(make(clock=clock))
        first.submit(prediction("p1"))
        until(lambda: first.entry("p1").state == "sent")
        until(lambda: node.arrivals)
        first.stop()
        clock.advance(25 * 3600)
        return make(clock=clock)

    node.judge = lambda message, way: node.withheld
    return overdue


def test_after_the_deadline_the_node_is_asked_and_what_it_never_had_is_expired(
    node: PredictionNode, overdue: Callable[[], PredictionClient]
) -> None:
    with running(overdue()) as client:
        with pytest.raises(GridError, match="expired"):
            client.wait("p1", WAIT)
        assert node.lookups == ["p1"]
        assert len(node.arrivals) == 1


def test_after_the_deadline_a_receipt_is_still_fetched(
    node: PredictionNode, overdue: Callable[[], PredictionClient]
) -> None:
    node.accept(prediction("p1"))
    with running(overdue()) as client:
        assert client.wait("p1", WAIT).accepted


def test_what_cannot_be_asked_is_unresolved_until_the_node_is_back(
    node: PredictionNode, overdue: Callable[[], PredictionClient]
) -> None:
    node.accept(prediction("p1"))
    client = overdue()
    node.sees_sockets = False
    node.on_http = lambda request: Response("<html>", 400)
    client.start()
    with pytest.raises(GridError, match="unresolved"):
        client.wait("p1", WAIT)
    assert client.status()["outbox"]["unresolved"] == 1
    node.sees_sockets, node.on_http = True, lambda request: None
    until(lambda: client.status()["outbox"]["accepted"] == 1)
    assert client.wait("p1", WAIT).accepted


def test_an_unreachable_node_leaves_an_overdue_entry_unresolved(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    clock = ManualClock()
    client = make(f"http://127.0.0.1:{port}", clock=clock)
    client.submit(prediction("p1"))
    clock.advance(25 * 3600)
    client.start()
    with pytest.raises(GridError, match="unresolved"):
        client.wait("p1", WAIT)
    assert client.entry("p1").error["code"] == "connection_lost"  # type: ignore[index]


def test_the_deadline_is_a_minute_after_the_start_of_a_known_game(node: PredictionNode, make: Make) -> None:
    clock = ManualClock()
    node.games["g1"] = game(event_start_date="2100-01-01T00:00:00.000Z")
    client = make(clock=clock)
    client.submit(prediction("before"))
    client.submit(prediction("unknown", game_id="g2"))
    assert client.entry("before").deadline == client.entry("unknown").deadline == clock.now() + 24 * 3600
    node.judge = lambda message, way: node.withheld
    connected(client)
    client.submit(prediction("p1"))
    assert client.entry("p1").deadline == 4102444800 + 60
    until(lambda: len(node.arrivals) == 3)
    clock.advance(11)
    until(lambda: client.entry("before").deadline == 4102444800 + 60)
    assert client.entry("unknown").deadline < 4102444800


# --- one outbox, several clients --------------------------------------------------------------------------------------


def test_a_client_that_was_not_started_files_for_another_process(node: PredictionNode, make: Make) -> None:
    connected(make())
    filing = make()
    assert filing.wait(filing.submit(prediction("p1")), WAIT).accepted


def test_what_an_earlier_process_left_is_sent_first(node: PredictionNode, make: Make) -> None:
    node.judge = lambda message, way: node.withheld
    first = connected(make())
    first.submit(prediction("p1"))
    until(lambda: node.arrivals)
    first.stop()
    node.judge = lambda message, way: node.accept(message["prediction"])
    second = make()
    second.submit(prediction("p2"))
    second.start()
    assert second.wait("p2", WAIT).seq == 2
    assert second.wait("p1", WAIT).seq == 1
    assert ids(node, "websocket") == ["p1", "p1", "p2"]


def test_an_entry_of_another_miner_in_the_same_file_is_left_alone(
    node: PredictionNode, make: Make, tmp_path: Path
) -> None:
    theirs = PredictionClient(node.url, STRANGER, HOTKEY, tmp_path / "outbox.db")
    theirs.submit(prediction("theirs"))
    client = connected(make())
    assert client.wait(client.submit(prediction("mine")), WAIT).accepted
    assert ids(node, "websocket") == ["mine"]
    theirs.stop()


def test_a_broken_outbox_stops_nothing_for_good(
    node: PredictionNode, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connected(make())
    finish, broken = Outbox.finish, [True]

    def failing(self: Outbox, *arguments: Any) -> None:
        if broken:
            broken.clear()
            raise GridError("outbox_unavailable", "disk full")
        finish(self, *arguments)

    monkeypatch.setattr(Outbox, "finish", failing)
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    assert ids(node, "websocket") == ["p1", "p1"]


# --- beginnings and ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://node.example.com", "http://192.0.2.1:8093", "http://[2001:db8::1]/"])
def test_plain_http_to_another_machine_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(GridError, match="insecure_url"):
        PredictionClient(url, MINER, HOTKEY, tmp_path / "o.db")
    PredictionClient(url, MINER, HOTKEY, tmp_path / "o.db", allow_insecure=True).stop()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8093", "", "http://"])
def test_what_is_no_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(GridError, match="bad_url"):
        PredictionClient(url, MINER, HOTKEY, tmp_path / "o.db")


def test_a_miner_needs_one_identity_and_a_real_node_hotkey(tmp_path: Path) -> None:
    for url in ("http://localhost:1", "http://127.9.9.9:1", "http://[::1]:1"):
        PredictionClient(url, MINER, HOTKEY, tmp_path / "o.db").stop()
    with pytest.raises(GridError, match="bad_node_hotkey"):
        PredictionClient("http://localhost:1", MINER, "5nonsense", tmp_path / "o.db")
    with pytest.raises(ValueError, match="either"):
        PredictionClient("http://localhost:1", None, HOTKEY, tmp_path / "o.db")
    with pytest.raises(ValueError, match="either"):
        PredictionClient("http://localhost:1", MINER, HOTKEY, tmp_path / "o.db", api_key="k" * 16)


def test_no_thread_outlives_stop_not_even_one_that_waits_for_updates(node: PredictionNode, make: Make) -> None:
    before = threading.active_count()
    client = make(websocket_enabled=False)
    client.start()
    until(lambda: len(node.polls) == 2)
    client.stop()
    assert [thread for thread in client._threads if thread.is_alive()] == []
    with pytest.raises(RuntimeError, match="once"):
        client.start()
    assert before > 0


def test_stop_does_not_wait_for_a_node_that_fell_silent(node: PredictionNode, make: Make) -> None:
    proxy = Proxy(int(node.url.rsplit(":", 1)[1]))
    try:
        client = connected(make(proxy.url))
        proxy.lose()
        client.submit(prediction("p1"))
        until(lambda: client._sender._flights)
        client.stop(5)
        assert [thread.name for thread in client._threads if thread.is_alive()] == []
    finally:
        proxy.close()


def test_a_node_that_sends_too_much_is_left(node: PredictionNode, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_socket, "MESSAGE_MAX", 50_000)
    client = connected(make())
    node.push({"text": "x" * 40_000})
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    assert len(node.introductions) == 1
    node.push({"text": "x" * 60_000})
    until(lambda: len(node.introductions) == 2)
    assert client.wait(client.submit(prediction("p2")), WAIT).accepted


def test_an_answer_over_http_that_is_too_large_is_none(
    node: PredictionNode, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_http, "ANSWER_MAX", 50_000)
    answers = [Response(b"x" * 60_000, 200), Response(b"x" * 60_000, 500)]
    node.on_http = lambda request: answers.pop() if answers and request.method == "POST" else None
    client = make(websocket_enabled=False)
    client.start()
    assert client.wait(client.submit(prediction("p1")), WAIT).accepted
    assert answers == []


def test_nothing_secret_is_logged(node: PredictionNode, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [refused("overloaded", 503, retry_after=0.01), receipt_of(prediction("x")), None]
    node.judge = lambda message, way: (answers.pop(0) if answers else None) or node.accept(message["prediction"])
    client = connected(make())
    client.wait(client.submit(prediction("p1")), WAIT)
    node.push({**delta(1, {}), "seq": 2})
    until(lambda: client.status()["bad_signatures"] == 2)
    signatures = {message["signature"] for message in node.messages + node.introductions}
    assert len(caplog.messages) > 3
    assert not [text for text in caplog.messages if any(signature[2:40] in text for signature in signatures)]


def test_games_and_updates_are_what_the_listener_and_the_property_say(node: PredictionNode, make: Make) -> None:
    client, seen = make(), []
    client.on_game_update(seen.append)
    connected(client)
    until(lambda: seen)
    update: GameUpdate = seen[0]
    assert (update.kind, update.position) == ("snapshot", Position(EPOCH, 0))
    assert client.games == update.games == snapshot(0, node.games)["updated_games"]


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    return file, key


def test_tls_needs_the_right_authority(
    certificate: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(PredictionNode(), tls=context) as node:
        doubting = PredictionClient(node.url, MINER, HOTKEY, tmp_path / "1.db", http_fallback_after=0, random=Dice(1.0))
        doubting.submit(prediction("p1"))
        with running(doubting):
            until(lambda: any("CERTIFICATE_VERIFY_FAILED" in text for text in caplog.messages))
            until(lambda: doubting.status()["last_error"] is not None)
        assert (node.arrivals, node.connections) == ([], [])
        for number, options in enumerate(({"ca_file": certificate[0]}, {"verify_tls": False})):
            client = PredictionClient(node.url, MINER, HOTKEY, tmp_path / f"ok{number}.db", **options)  # type: ignore[arg-type]
            with running(client):
                assert client.wait(client.submit(prediction(f"q{number}")), WAIT).accepted
        assert node.connections


def test_a_missing_authority_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(GridError, match="bad_ca_file"):
        PredictionClient("https://localhost:1", MINER, HOTKEY, tmp_path / "o.db", ca_file=tmp_path / "none.pem")


def test_the_test_clock_is_close_to_the_real_one() -> None:
    assert abs(ManualClock().now() - time.time()) < 60
