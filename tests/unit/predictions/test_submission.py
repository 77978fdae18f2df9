"""What is checked before the database is asked: shape, size, sender, receiver, time, signature, in this order."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.clock import ManualClock, rfc3339
from grid_node.errors import GridError, InvalidMessage, PayloadTooLarge
from grid_node.predictions.ports import Miner
from grid_node.predictions.submission import Reading, Reply, Submission
from grid_node.settings import Settings
from tests.miners import base, keypair, prediction_body, signed
from tests.promises.desk import Signing, miner_of

ANNA, BERT = keypair("anna"), keypair("bert")
CLOCK = ManualClock()
NOW = CLOCK.now()
SETTINGS = Settings.load({})
MAX_BYTES, SKEW = SETTINGS.prediction_max_bytes, SETTINGS.websocket_message_skew


def read(payload: object, miner: Miner | None = None) -> Submission:
    reading = Reading(SETTINGS, Signing.hotkey, Signing(CLOCK))
    submission = reading.open(miner or miner_of(ANNA), payload, "websocket", lambda: None, None)
    submission.received_at = NOW
    reading.check(submission)
    return submission


def refusal(payload: object, miner: Miner | None = None) -> dict[str, Any]:
    """The body of the error of a message that is read alone."""
    (item,) = read(payload, miner).items
    assert item.refused is not None
    assert item.prediction is None
    body: dict[str, Any] = json.loads(item.refused.text)
    assert (item.refused.status, item.refused.code) == (body["status"], body["code"])
    return body


def message(at: float = NOW, **prediction: Any) -> dict[str, Any]:
    envelope = {**base(ANNA, "prediction", at), "receiver_hotkey": Signing.hotkey}
    return signed(ANNA, {**envelope, "prediction": prediction_body(**prediction)})


def altered(**members: Any) -> dict[str, Any]:
    """A message with other members outside `prediction`, signed as it is."""
    return signed(ANNA, {**message(), **members})


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in message().items() if name not in names}


# --- one message ------------------------------------------------------------------------------------------------------


def test_a_message_that_is_right_is_read() -> None:
    submission = read(message(prediction_id="p"))

    (item,) = submission.items
    assert (item.prediction.prediction_id, item.refused) == ("p", None)  # type: ignore[union-attr]
    assert (submission.is_batch, submission.received_at, submission.transport) == (False, NOW, "websocket")


def test_the_first_check_that_fails_is_the_answer() -> None:
    """A message that fails every check is repaired check by check."""
    bad: dict[str, Any] = {
        **base(BERT, "heartbeat", NOW - 3600),
        "receiver_hotkey": BERT.ss58_address,
        "signature": "0x",
        "prediction": {"miner_uid": 8, "note": "x" * MAX_BYTES},
    }
    miner = miner_of(ANNA, uid=7)
    whole = prediction_body()
    for repair, code in (
        ({}, "invalid_message"),
        ({"message_type": "prediction"}, "payload_too_large"),
        ({"prediction": {"miner_uid": 8}}, "sender_mismatch"),
        ({"sender_hotkey": ANNA.ss58_address}, "wrong_receiver"),
        ({"receiver_hotkey": Signing.hotkey}, "stale_timestamp"),
        ({"timestamp": rfc3339(NOW)}, "bad_signature"),
    ):
        bad |= repair
        assert refusal(bad, miner)["code"] == code
    assert refusal(signed(ANNA, bad), miner)["code"] == "missing_data"
    bad["prediction"] = {**whole, "miner_uid": 8}
    assert refusal(signed(ANNA, bad), miner)["code"] == "uid_mismatch"
    bad["prediction"] = {**whole, "miner_uid": 7}
    assert read(signed(ANNA, bad), miner).items[0].refused is None


@pytest.mark.parametrize("payload", [None, 7, "text", [], [message()], {}, {"messages": []} | message()])
def test_what_is_no_message_is_said_to_be_none(payload: Any) -> None:
    """A `messages` beside a `prediction` is a member without a meaning, which the signature must cover."""
    expected = "bad_signature" if isinstance(payload, dict) and "prediction" in payload else "invalid_message"

    assert refusal(payload)["code"] == expected


@pytest.mark.parametrize("name", ["message_id", "sender_hotkey", "timestamp", "message_type"])
def test_a_base_field_that_is_missing_is_named(name: str) -> None:
    body = refusal(without(name))

    assert (body["status"], body["code"], list(body["fields"])) == (400, "invalid_message", [name])


@pytest.mark.parametrize("timestamp", ["2027-01-15T08:00:00", "now", 1_800_000_000, None])
def test_a_time_without_an_offset_is_no_time(timestamp: Any) -> None:
    assert refusal(altered(timestamp=timestamp))["fields"].keys() == {"timestamp"}


@pytest.mark.parametrize("off", [SKEW + 0.001, -SKEW - 0.001, 86400.0])
def test_a_message_of_another_time_is_told_the_nodes(off: float) -> None:
    body = refusal(message(NOW + off))

    assert (body["status"], body["code"], body["server_time"]) == (401, "stale_timestamp", rfc3339(NOW))


@pytest.mark.parametrize("off", [SKEW, -SKEW])
def test_the_skew_itself_is_within_it(off: float) -> None:
    assert read(message(NOW + off)).items[0].refused is None


@pytest.mark.parametrize(
    ("hotkey", "status", "code"),
    [
        (BERT.ss58_address, 403, "sender_mismatch"),
        ("5nobody", 400, "invalid_hotkey"),
        ("key:7", 400, "invalid_hotkey"),
        ("0x" + "00" * 31, 400, "invalid_hotkey"),
    ],
)
def test_a_sender_that_is_not_the_session_is_refused(hotkey: str, status: int, code: str) -> None:
    body = refusal(altered(sender_hotkey=hotkey))

    assert (body["status"], body["code"]) == (status, code)


@pytest.mark.parametrize("receiver", [BERT.ss58_address, None, "", 7, ["x"]])
def test_a_message_for_another_node_is_refused(receiver: Any) -> None:
    body = refusal(altered(receiver_hotkey=receiver))

    assert (body["status"], body["code"]) == (401, "wrong_receiver")
    assert refusal(without("receiver_hotkey"))["code"] == "wrong_receiver"


def _by_another(sent: dict[str, Any]) -> dict[str, Any]:
    return {**sent, "signature": signed(BERT, sent)["signature"]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sent: {**sent, "signature": None},
        lambda sent: {**sent, "signature": 7},
        lambda sent: {**sent, "signature": sent["signature"][2:]},
        lambda sent: {**sent, "signature": sent["signature"] + "00"},
        lambda sent: {**sent, "signature": "0x" + "zz" * 64},
        lambda sent: {**sent, "extra": 1},
        lambda sent: {**sent, "prediction": {**sent["prediction"], "wager": "1.01"}},
        lambda sent: {**sent, "message_id": base(ANNA, "prediction")["message_id"]},
        lambda sent: {name: value for name, value in sent.items() if name != "signature"},
        _by_another,
    ],
)
def test_a_signature_that_does_not_cover_the_message_is_refused(spoil: Callable[[dict[str, Any]], Any]) -> None:
    body = refusal(spoil(message()))

    assert (body["status"], body["code"]) == (401, "bad_signature")


def test_members_without_a_meaning_are_covered_and_then_ignored() -> None:
    assert read(altered(note={"a": [1, None]})).items[0].refused is None


def test_only_a_uid_that_is_known_can_differ() -> None:
    sent = message(miner_uid=8)

    assert refusal(sent, miner_of(ANNA, uid=7)) == {
        "success": False,
        "error": refusal(sent, miner_of(ANNA, uid=7))["error"],
        "code": "uid_mismatch",
        "status": 403,
    }
    assert read(sent, miner_of(ANNA, uid=8)).items[0].refused is None
    assert read(sent, miner_of(ANNA)).items[0].refused is None


def test_a_miner_of_a_private_grid_signs_nothing_but_names_itself() -> None:
    key = Miner("key:7", "key:7", None)
    sent = {**without("signature"), "sender_hotkey": "key:7"}

    assert read(sent, key).items[0].refused is None
    assert refusal(message(), key)["code"] == "sender_mismatch"
    assert refusal({**sent, "receiver_hotkey": BERT.ss58_address}, key)["code"] == "wrong_receiver"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["0x", "prediction", "\ud800"]),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=8), some, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_whatever_comes_gets_an_answer(payload: Any) -> None:
    with contextlib.suppress(InvalidMessage):  # the answer to what is no message and no batch
        assert all(item.refused is not None for item in read(payload).items)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*message(), "messages", "extra"]), JSON)
def test_whatever_one_member_is_there_is_an_answer(name: str, value: Any) -> None:
    """Signed where that can be, so that the checks after the signature are reached too."""
    sent = {**message(), name: value}
    with contextlib.suppress(ValueError, InvalidMessage):
        sent = signed(ANNA, sent) if name != "signature" else sent

    (item,) = read(sent).items

    assert (item.refused is None) == (item.prediction is not None)


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_message_may_be_as_large_as_the_limit_and_no_larger() -> None:
    """In its shortest form: the octets of its UTF-8, without white space."""
    room = MAX_BYTES - len(json.dumps(message(prediction_id="p", note="", team="ü"), separators=(",", ":"))) + 4

    assert read(message(prediction_id="p", note="x" * room, team="ü")).items[0].refused is None
    body = refusal(message(prediction_id="p", note="x" * (room + 1), team="ü"))
    assert (body["status"], body["code"], body["limit"]) == (413, "payload_too_large", MAX_BYTES)


@pytest.mark.parametrize("value", [2**53, 2**70, -(2**70), float("nan"), "\ud800", {"\ud800": 1}])
def test_what_has_no_canonical_form_is_no_message(value: Any) -> None:
    assert refusal({**message(), "note": value})["code"] == "invalid_message"


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [[], {}, None, "text", 7])
def test_a_batch_is_a_list_that_is_not_empty(messages: Any) -> None:
    with pytest.raises(InvalidMessage) as caught:
        read({"messages": messages})

    assert caught.value.data["fields"].keys() == {"messages"}


def test_a_batch_has_an_end() -> None:
    most = SETTINGS.prediction_max_batch
    assert len(read({"messages": [{}] * most}).items) == most

    with pytest.raises(PayloadTooLarge) as caught:
        read({"messages": [{}] * (most + 1)})
    assert caught.value.data["limit"] == most


def test_each_message_of_a_batch_is_judged_for_itself() -> None:
    submission = read({"messages": [message(prediction_id="a"), "text", message(prediction_id="b"), {}]})

    assert submission.is_batch
    read_ids = [item.prediction.prediction_id for item in submission.items if item.prediction is not None]
    assert read_ids == ["a", "b"]
    assert [item.refused.code for item in submission.items if item.refused is not None] == ["invalid_message"] * 2


# --- the answer -------------------------------------------------------------------------------------------------------


def test_the_answer_of_a_batch_says_what_became_of_each_message() -> None:
    submission = read({"messages": [message(prediction_id=name) for name in "abcd"]})
    error = Reply.of_error(GridError())
    submission.replies = [Reply("1", 200, "successful", replayed=True), Reply("2", 422, "x"), error, error]

    answer = submission.answer()

    assert json.loads(answer.text) == {"success": True, "results": [1, 2, *[GridError().body()] * 2]}
    assert (answer.status, answer.replayed, answer.ids) == (200, False, ("a", "b"))
    assert answer.codes == ("successful", "x", "internal_error", "internal_error")


def test_the_whole_can_be_refused_with_one_error() -> None:
    submission = read({"messages": [message(), message()]})
    error = InvalidMessage(retry_after=7)

    submission.refuse(error)

    answer = submission.pending.wait(0)
    assert answer is not None
    assert (json.loads(answer.text), answer.status, answer.retry_after, answer.ids) == (error.body(), 400, 7, ())
