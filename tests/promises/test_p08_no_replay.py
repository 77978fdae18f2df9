"""P8: nothing that was signed can be used twice, elsewhere, or by somebody else."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.canonical import canonical
from grid_node.clock import rfc3339
from tests.miners import (
    Miner,
    RawMiner,
    SignedHttp,
    authenticate,
    new_keypair,
    prediction_message,
    resent,
    signed,
    stored,
)
from tests.nodes import LiveNode

HOUR = 3600.0


@pytest.fixture
def raw(node: LiveNode, hotkey: Keypair) -> Iterator[RawMiner]:
    with closing(RawMiner(node, hotkey)) as opened:
        yield opened


def code(answer: dict[str, Any]) -> tuple[str, int]:
    assert answer["success"] is False
    return answer["code"], answer["status"]


def ended_with(raw: RawMiner) -> tuple[int, str]:
    closing = raw.wait_for("closing")
    raw.read_to_the_end()
    return closing["code"], closing["reason"]


def test_p8_a_captured_authenticate_opens_no_other_socket(node: LiveNode, raw: RawMiner, hotkey: Keypair) -> None:
    captured = authenticate(hotkey, raw.challenge)
    assert raw.call("authenticate", captured)["success"]
    with closing(RawMiner(node, hotkey)) as other:
        assert code(other.call("authenticate", captured)) == ("auth_failed", 401)
        assert ended_with(other) == (4401, "auth_failed")
    assert raw.predict()["success"]


def test_p8_a_challenge_is_good_for_one_attempt_whatever_comes_of_it(raw: RawMiner, hotkey: Keypair) -> None:
    answer = authenticate(hotkey, raw.challenge)
    assert code(raw.call("authenticate", {**answer, "client_nonce": "00" * 32})) == ("bad_signature", 401)
    raw.send("authenticate", answer)
    raw.read_to_the_end()
    assert not [late for late in raw.answers.values() if late["success"]]
    assert raw.wait_for("closing")["code"] == 4401


def test_p8_what_is_signed_for_another_node_is_refused(
    node: LiveNode, raw: RawMiner, miner: Miner, http: SignedHttp, hotkey: Keypair
) -> None:
    elsewhere = str(new_keypair().ss58_address)
    message = prediction_message(hotkey, elsewhere)
    assert code(miner.send(message)) == ("wrong_receiver", 401)
    assert code(http.post("/predictions", message).json()) == ("wrong_receiver", 401)
    refused = http.request("GET", "/predictions", signed_for=elsewhere)
    assert code(refused.json()) == ("wrong_receiver", 401)
    assert code(raw.enter(receiver_hotkey=elsewhere)) == ("wrong_receiver", 401)
    assert ended_with(raw) == (4401, "auth_failed")
    changed = {**message, "receiver_hotkey": http.node_hotkey}
    assert code(miner.send(changed)) == ("bad_signature", 401)
    assert stored(node, hotkey) == []


def test_p8_another_miner_cannot_use_a_captured_prediction(
    node: LiveNode, raw: RawMiner, hotkey: Keypair, new_hotkey: Callable[[], Keypair], http: SignedHttp
) -> None:
    raw.enter()
    thief = new_hotkey()
    captured = prediction_message(thief, raw.node_hotkey)
    assert code(raw.call("prediction", captured)) == ("sender_mismatch", 403)
    assert code(raw.call("prediction", {**captured, "sender_hotkey": hotkey.ss58_address})) == ("bad_signature", 401)
    by_route = http.post("/predictions", captured)
    assert code(by_route.json()) == ("sender_mismatch", 403)
    assert stored(node, hotkey) == stored(node, thief) == []


def test_p8_a_captured_prediction_sent_again_has_no_second_effect(
    node: LiveNode, miner: Miner, hotkey: Keypair
) -> None:
    message = miner.message(wager="9.00")
    first = miner.send(message)
    assert [miner.send(message) for _ in range(3)] == [first] * 3
    assert len(stored(node, hotkey)) == 1
    assert miner.predict()["miner_stats"]["wagered"] == "10.00"


@pytest.mark.parametrize("shift", [-HOUR, -61.0, 61.0, HOUR])
def test_p8_a_clock_that_is_off_is_told_the_time_and_signs_nothing_that_counts(
    node: LiveNode, raw: RawMiner, miner: Miner, hotkey: Keypair, shift: float
) -> None:
    late = resent(hotkey, miner.message(), time.time() + shift)
    answer = miner.send(late)
    assert code(answer) == ("stale_timestamp", 401)
    assert answer["server_time"].endswith("Z")
    answer = raw.enter(timestamp=rfc3339(time.time() + shift))
    assert code(answer) == ("stale_timestamp", 401)
    assert ended_with(raw) == (4401, "auth_failed")
    assert stored(node, hotkey) == []
    assert miner.send(resent(hotkey, late))["success"], "the same prediction with the right time is taken"


@pytest.mark.parametrize("shift", [-HOUR, -9.0, 9.0, HOUR])
def test_p8_a_request_stamped_nine_seconds_ahead_or_behind_is_refused(http: SignedHttp, shift: float) -> None:
    answer = http.request("GET", "/predictions", shift=shift)
    assert (answer.status_code, answer.json()["code"]) == (401, "stale_timestamp")
    assert answer.json()["server_time"].endswith("Z")


def test_p8_a_request_signs_its_body_and_its_target(http: SignedHttp, hotkey: Keypair) -> None:
    headers = http.headers("GET", "/predictions?limit=1")
    assert code(http.send("GET", "/predictions?limit=2", b"", headers).json()) == ("bad_signature", 401)
    message = prediction_message(hotkey, http.node_hotkey)
    signing = http.headers("POST", "/predictions", canonical(message))
    other = canonical(prediction_message(hotkey, http.node_hotkey))
    assert code(http.send("POST", "/predictions", other, signing).json()) == ("bad_signature", 401)


def test_p8_a_signature_of_one_kind_of_message_is_none_of_another(
    node: LiveNode, raw: RawMiner, miner: Miner, hotkey: Keypair
) -> None:
    """The type of a message is part of what is signed."""
    message = miner.message()
    other = signed(hotkey, {**message, "message_type": "authenticate"})
    assert code(miner.send({**message, "signature": other["signature"]})) == ("bad_signature", 401)
    assert stored(node, hotkey) == []
