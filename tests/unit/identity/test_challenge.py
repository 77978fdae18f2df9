from datetime import UTC, datetime, timedelta

import pytest
from bittensor_wallet import Keypair
from grid_client.signing import authenticate_message, check_authenticated, signed

from grid_node.clock import ManualClock
from grid_node.errors import (
    AuthFailed,
    BadSignature,
    Blacklisted,
    ChainUnavailable,
    InvalidHotkey,
    InvalidMessage,
    NotRegistered,
    StaleTimestamp,
    WrongReceiver,
)
from grid_node.identity.challenge import Authenticator
from grid_node.identity.node_key import NodeKey
from grid_node.identity.schemas import KeyAuthenticate, load_message
from grid_node.identity.standing import Standing
from grid_node.settings import Settings

NODE = NodeKey(Keypair.create_from_seed("0x" + "0a" * 32))
OTHER_NODE = NodeKey(Keypair.create_from_seed("0x" + "0b" * 32))
WORKER = Keypair.create_from_seed("0x" + "01" * 32)
BLACK = Keypair.create_from_seed("0x" + "02" * 32)
STRANGER = Keypair.create_from_seed("0x" + "03" * 32)


class Metagraph:
    """Knows WORKER and BLACK."""

    available = True

    def standing(self, public_key):
        if not self.available:
            raise ChainUnavailable(retry_after=5)
        known = public_key in (WORKER.public_key, BLACK.public_key)
        return Standing(registered=known, blacklisted=public_key != WORKER.public_key, strong=True, uid=7)


class Scene:
    """A connection that has just got its challenge."""

    def __init__(self):
        self.clock = ManualClock()
        self.metagraph = Metagraph()
        self.authenticator = Authenticator(NODE, self.metagraph, self.clock, Settings())
        self.challenge = self.authenticator.challenge()

    def message(self, keypair=WORKER, node=NODE.hotkey, nonce=None, late=0.0, **more):
        now = datetime.fromtimestamp(self.clock.now(), UTC) + timedelta(seconds=late)
        return authenticate_message(keypair, node, nonce or self.challenge.message["nonce"], now, **more)

    def check(self, payload):
        return self.authenticator.check(self.challenge, payload)


@pytest.fixture
def scene():
    return Scene()


def changed(message, keypair=WORKER, **members):
    """The message with other members, signed again; None removes one."""
    plain = {k: v for k, v in {**message, **members}.items() if v is not None and k != "signature"}
    return signed(keypair, plain)


def test_the_challenge_is_addressed_and_single(scene):
    message = scene.challenge.message
    assert message["message_type"] == "challenge"
    assert message["sender_hotkey"] == NODE.hotkey
    assert message["expires_in"] == 10
    assert len(message["nonce"]) == 64
    assert message["nonce"] != scene.authenticator.challenge().message["nonce"]


def test_a_worker_that_signs_its_challenge_comes_in(scene):
    peer = scene.check(scene.message(kinds=["text_to_3d"], formats=["ply"], max_parallel=2, client="c/1"))
    assert peer.public_key == WORKER.public_key
    assert peer.hotkey == WORKER.ss58_address
    assert peer.standing.uid == 7
    assert peer.introduction == {"kinds": ["text_to_3d"], "formats": ["ply"], "max_parallel": 2, "client": "c/1"}


def test_the_worker_knows_the_node_by_its_answer(scene):
    sent = scene.message()
    answer = scene.authenticator.answer(scene.check(sent), "session-1", heartbeat_interval=60)
    check_authenticated(answer, sent, Keypair(ss58_address=NODE.hotkey))
    assert answer["success"] is True
    assert (answer["uid"], answer["session_id"], answer["heartbeat_interval"]) == (7, "session-1", 60)


def test_unknown_members_are_signed_and_ignored(scene):
    assert scene.check(scene.message(future={"a": [1, None]}))


def test_an_unknown_member_that_was_changed_breaks_the_signature(scene):
    with pytest.raises(BadSignature):
        scene.check({**scene.message(future=1), "future": 2})


def test_a_challenge_is_good_for_one_attempt_even_a_bad_one(scene):
    good = scene.message()
    with pytest.raises(InvalidMessage):
        scene.check({})
    with pytest.raises(AuthFailed):
        scene.check(good)


def test_a_captured_authenticate_is_worthless_on_a_new_connection(scene):
    captured = scene.message()
    scene.check(captured)
    for _ in range(2):
        scene.challenge = scene.authenticator.challenge()
        with pytest.raises(AuthFailed):
            scene.check(captured)


def test_a_challenge_ends_after_its_time(scene):
    scene.clock.advance(10)
    with pytest.raises(AuthFailed):
        scene.check(scene.message())


def test_a_message_for_another_node_is_refused(scene):
    with pytest.raises(WrongReceiver):
        scene.check(scene.message(node=OTHER_NODE.hotkey))


@pytest.mark.parametrize("receiver", [None, "", 5, [NODE.hotkey], NODE.hotkey + " "])
def test_a_missing_or_malformed_receiver_is_the_wrong_one(scene, receiver):
    with pytest.raises(WrongReceiver):
        scene.check(changed(scene.message(), receiver_hotkey=receiver))


@pytest.mark.parametrize("late", [-60.001, 60.001, -86400, 86400 * 365])
def test_a_timestamp_outside_the_skew_is_stale(scene, late):
    with pytest.raises(StaleTimestamp) as refusal:
        scene.check(scene.message(late=late))
    assert refusal.value.body()["server_time"] == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize("late", [-60, 60])
def test_a_timestamp_within_the_skew_is_taken(scene, late):
    assert scene.check(scene.message(late=late))


def test_a_signature_of_another_key_is_bad(scene):
    with pytest.raises(BadSignature):
        scene.check(changed(scene.message(), keypair=STRANGER))


@pytest.mark.parametrize("signature", [None, 5, "", "0x12", "0x" + "0" * 128])
def test_a_missing_or_malformed_signature_is_bad(scene, signature):
    with pytest.raises(BadSignature):
        scene.check({**scene.message(), "signature": signature})


@pytest.mark.parametrize("hotkey", ["5abc", "HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F"])
def test_a_malformed_hotkey_or_another_prefix_is_an_invalid_hotkey(scene, hotkey):
    with pytest.raises(InvalidHotkey):
        scene.check(changed(scene.message(), sender_hotkey=hotkey))


def test_an_unregistered_hotkey_is_told_when_to_come_back(scene):
    with pytest.raises(NotRegistered) as refusal:
        scene.check(scene.message(STRANGER))
    assert refusal.value.body()["retry_after"] == 3600


def test_a_blacklisted_hotkey_is_refused(scene):
    with pytest.raises(Blacklisted):
        scene.check(scene.message(BLACK))


def test_no_one_comes_in_while_standing_is_unknown(scene):
    scene.metagraph.available = False
    with pytest.raises(ChainUnavailable):
        scene.check(scene.message())


@pytest.mark.parametrize("payload", [None, 5, "x", [], b"x", {}, {1: 2}])
def test_what_is_no_object_is_an_invalid_message(scene, payload):
    with pytest.raises(InvalidMessage) as refusal:
        scene.check(payload)
    assert refusal.value.data["fields"]


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("message_id", [None, 5, "x", "5b0e8f3e-0000-1000-8000-000000000001", "5b0e8f3e000040008000000000000001"]),
        ("sender_hotkey", [None, 5, "", "x" * 65]),
        ("timestamp", [None, 5, "", "2027-01-15T08:00:00", "2027-01-15", "now", "2027-01-15T08:00:60Z"]),
        ("message_type", [None, 5, "prediction", "Authenticate"]),
        ("nonce", [None, 5, "", "00", "g" * 64, "A" * 64, "0" * 65, "0" * 64 + "\n"]),
        ("client_nonce", [None, 5, "0" * 63]),
        ("max_parallel", [0, 9, -1, True, "2", 1.0]),
        ("kinds", ["text", 5, [5], [""], ["x" * 65], ["x"] * 33]),
        ("formats", [["x" * 17], {}]),
        ("client", [5, "x" * 65]),
        (
            "position",
            [5, {}, {"epoch": "0" * 16, "seq": -1}, {"epoch": "x", "seq": 1}, {"epoch": "0" * 16, "seq": True}],
        ),
    ],
)
def test_each_member_has_a_shape(member, values):
    for value in values:
        scene = Scene()
        with pytest.raises(InvalidMessage) as refusal:
            scene.check(changed(scene.message(), **{member: value}) if value is not None else _without(scene, member))
        assert list(refusal.value.data["fields"]) == [member]


def _without(scene, member):
    message = scene.message()
    del message[member]
    return message


def test_the_first_failure_in_the_order_of_the_contract_wins(scene):
    """Each step mends the first fault of a message that has all of them."""
    faults = {
        "message_id": "x",
        "receiver_hotkey": OTHER_NODE.hotkey,
        "nonce": "0" * 64,
        "timestamp": "2020-01-01T00:00:00Z",
        "signature": "0x" + "0" * 128,
    }
    order = [InvalidMessage, WrongReceiver, AuthFailed, StaleTimestamp, BadSignature]
    for expected in order:
        scene.challenge = scene.authenticator.challenge()
        with pytest.raises(expected):
            scene.check({**scene.message(STRANGER), **faults})
        faults.pop(next(iter(faults)))
    scene.challenge = scene.authenticator.challenge()
    with pytest.raises(NotRegistered):
        scene.check(scene.message(STRANGER))


def test_a_worker_of_a_private_grid_names_itself():
    loaded = load_message(KeyAuthenticate(), {"api_key": "k" * 42, "name": "rig-1.a_B", "max_parallel": 8})
    assert loaded == {"api_key": "k" * 42, "name": "rig-1.a_B", "max_parallel": 8}


@pytest.mark.parametrize("name", ["", "x" * 33, "a b", "a/b", "ü", "a\n", 5, None])
def test_a_worker_name_has_32_plain_characters(name):
    with pytest.raises(InvalidMessage):
        load_message(KeyAuthenticate(), {"api_key": "k" * 42, "name": name})
