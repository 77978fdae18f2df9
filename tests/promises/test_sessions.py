"""Who gets in, who is shown out, and with which words."""

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import socketio
from bittensor_wallet import Keypair

from grid_node.identity.hotkeys import check_message, decode_hotkey
from tests.miners import (
    NAMESPACE,
    RawMiner,
    SignedHttp,
    allow_list,
    new_keypair,
    prediction_message,
    public_key,
    stored,
)
from tests.nodes import LiveNode, until
from tests.promises.conftest import started

AUTH_TIMEOUT = 1.5
SEED = 20261121
VISIBLE = 5.0
"""Seconds within which a change of the lists must be felt."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with started(tmp_path_factory.mktemp("sessions"), websocket_auth_timeout=AUTH_TIMEOUT) as live:
        yield live


@pytest.fixture
def raw(node: LiveNode, hotkey: Keypair) -> Iterator[RawMiner]:
    with closing(RawMiner(node, hotkey)) as opened:
        yield opened


def words(closing: dict[str, Any]) -> tuple[int, str, str]:
    return closing["code"], closing["reason"], closing["error"]


# --- before authentication --------------------------------------------------------------------------------------------


def test_without_authenticate_the_socket_is_closed_in_time(raw: RawMiner) -> None:
    assert words(raw.wait_for("closing")) == (4402, "auth_timeout", "Authentication deadline exceeded")
    raw.read_to_the_end()


def test_before_authentication_nothing_is_served(raw: RawMiner, hotkey: Keypair) -> None:
    payloads = {
        "prediction": prediction_message(hotkey, raw.node_hotkey),
        "prediction_status": {"prediction_id": "any"},
        "games": {},
        "resume": {"epoch": "0" * 16, "seq": 0},
    }
    for event, payload in payloads.items():
        answer = raw.call(event, payload)
        assert (answer["code"], answer["status"]) == ("not_authenticated", 401), event
    assert raw.enter()["success"]


def test_a_second_authenticate_is_409_and_the_socket_stays(raw: RawMiner) -> None:
    assert raw.enter()["success"]
    answer = raw.enter()
    assert (answer["code"], answer["status"]) == ("already_authenticated", 409)
    assert raw.predict()["success"]


def test_the_node_signs_who_it_is_over_the_miners_own_nonce(raw: RawMiner) -> None:
    welcome = raw.enter(client_nonce="cd" * 32)
    check_message(decode_hotkey(raw.node_hotkey), welcome)
    assert (welcome["client_nonce"], welcome["receiver_hotkey"]) == ("cd" * 32, raw.keypair.ss58_address)
    assert welcome["uid"] is None
    limits = {name: welcome[name] for name in ("max_in_flight", "max_message_bytes", "max_batch", "last_seq")}
    assert limits == {"max_in_flight": 64, "max_message_bytes": 16384, "max_batch": 64, "last_seq": 0}


# --- standing ---------------------------------------------------------------------------------------------------------


def test_an_unregistered_hotkey_is_shown_out(node: LiveNode) -> None:
    with closing(RawMiner(node, new_keypair())) as raw:
        answer = raw.enter()
        assert (answer["code"], answer["status"], "signature" in answer) == ("not_registered", 403, False)
        assert words(raw.wait_for("closing")) == (4403, "not_registered", "Unregistered hotkey")
        raw.read_to_the_end()


def test_f1_a_blacklisted_hotkey_is_shown_out_and_refused_by_http(
    node: LiveNode, raw: RawMiner, http: SignedHttp, hotkey: Keypair
) -> None:
    allow_list(node).blacklist(public_key(hotkey), "it cheated")
    answer = raw.enter()
    assert (answer["code"], answer["status"]) == ("blacklisted", 403)
    assert "cheated" not in str(answer)
    assert words(raw.wait_for("closing")) == (4404, "blacklisted", "Hotkey is blacklisted")
    raw.read_to_the_end()
    refused = http.predict()
    assert (refused.status_code, refused.json()["code"]) == (403, "blacklisted")
    assert stored(node, hotkey) == []


def test_f1_a_hotkey_that_is_blacklisted_while_open_is_closed_within_five_seconds(
    node: LiveNode, raw: RawMiner, hotkey: Keypair
) -> None:
    assert raw.enter()["success"]
    assert raw.predict()["success"]
    allow_list(node).blacklist(public_key(hotkey), "it cheated")
    raw.wire.sock.settimeout(VISIBLE)
    assert words(raw.wait_for("closing")) == (4404, "blacklisted", "Hotkey is blacklisted")
    raw.read_to_the_end()


def test_f2_a_hotkey_that_is_deregistered_while_open_is_closed_and_can_still_fetch_its_receipts(
    node: LiveNode, raw: RawMiner, http: SignedHttp, hotkey: Keypair
) -> None:
    assert raw.enter()["success"]
    receipt = raw.predict()
    allow_list(node).disallow(public_key(hotkey))
    raw.wire.sock.settimeout(VISIBLE)
    assert words(raw.wait_for("closing")) == (4405, "deregistered", "Hotkey is no longer registered")
    raw.read_to_the_end()
    assert http.predict().json()["code"] == "not_registered"
    assert http.get("/games").json()["code"] == "not_registered"
    assert [row["receipt"] for row in http.get("/predictions").json()["predictions"]] == [receipt]
    assert http.get(f"/predictions/{receipt['prediction_id']}").json()["receipt"] == receipt


def test_a_hotkey_that_comes_back_is_let_in_again(node: LiveNode, hotkey: Keypair) -> None:
    allow_list(node).disallow(public_key(hotkey))
    with closing(RawMiner(node, hotkey)) as raw:
        assert raw.enter()["code"] == "not_registered"
    allow_list(node).allow(public_key(hotkey))
    with closing(RawMiner(node, hotkey)) as raw:
        assert raw.enter()["success"]


# --- twice the same hotkey --------------------------------------------------------------------------------------------


def test_f3_a_hundred_reconnects_with_the_old_socket_open_each_leave_a_new_one_that_works(
    node: LiveNode, hotkey: Keypair
) -> None:
    dice = random.Random(SEED)
    current = RawMiner(node, hotkey)
    try:
        assert current.enter()["success"]
        for number in range(1, 101):
            old, current = current, RawMiner(node, hotkey)
            with closing(old):
                assert current.enter()["success"]
                if dice.random() < 0.5:
                    assert old.wait_for("closing")["code"] == 4409
                    old.read_to_the_end()
                assert current.predict()["seq"] == number
                if not old.pushed or old.pushed[-1][0] != "closing":
                    assert words(old.wait_for("closing")) == (4409, "replaced", "New connection established")
                    old.read_to_the_end()
        until(lambda: httpx.get(f"{node.url}/ws/health").json()["connections"] == 1)
        assert current.predict()["seq"] == 101
    finally:
        current.close()
    assert [row.seq for row in stored(node, hotkey)] == list(range(1, 102))


def test_f3_an_old_socket_that_says_goodbye_late_takes_nothing_from_the_new_one(
    node: LiveNode, hotkey: Keypair
) -> None:
    """Its end is cleaned up after the new one is there: only what was its own may go."""
    with closing(RawMiner(node, hotkey)) as old, closing(RawMiner(node, hotkey)) as new:
        assert old.enter()["success"]
        assert new.enter()["success"]
        old.close()
        until(lambda: httpx.get(f"{node.url}/ws/health").json()["connections"] == 1)
        assert new.predict()["success"]
        new.wait_for("game_update")


# --- switched off -----------------------------------------------------------------------------------------------------


def test_with_sockets_switched_off_http_works_and_health_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with started(tmp_path_factory.mktemp("disabled"), websocket_enabled="False") as node:
        hotkey = new_keypair()
        allow_list(node).allow(public_key(hotkey))
        client, told = socketio.Client(reconnection=False), []
        client.on("connect_error", told.append, namespace=NAMESPACE)
        with pytest.raises(socketio.exceptions.ConnectionError):
            client.connect(node.url, namespaces=[NAMESPACE], transports=["websocket"], wait_timeout=10)
        client.shutdown()
        assert (told[0]["data"]["status"], told[0]["data"]["code"]) == (503, "websocket_disabled")
        with closing(SignedHttp(node, hotkey)) as http:
            assert http.predict().json()["success"]
        answer = httpx.get(f"{node.url}/ws/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "disabled")
