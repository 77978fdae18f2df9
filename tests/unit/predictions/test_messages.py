"""Reading messages: each wrong member is named, and what has no meaning is kept."""

import json
from hashlib import sha256

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import InvalidMessage, MissingData
from grid_node.predictions.messages import REQUIRED, Prediction, check_base, read_prediction
from tests.unit.predictions.bodies import SENT

BASE = {
    "message_id": "5b0e8a4e-6f0c-4d6f-9a0b-1c2d3e4f5a6b",
    "sender_hotkey": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "receiver_hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "timestamp": "2026-11-20T12:00:00.000Z",
    "message_type": "prediction",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def base_fields_refused(**changes: object) -> dict[str, list[str]]:
    with pytest.raises(InvalidMessage) as refusal:
        check_base({**BASE, **changes}, "prediction")
    return refusal.value.data["fields"]


def refused(**changes: object) -> dict[str, list[str]]:
    with pytest.raises(InvalidMessage) as refusal:
        read_prediction({**SENT, **changes})
    return refusal.value.data["fields"]


def without(message: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in message.items() if key != name}


def assert_named(error: InvalidMessage | MissingData, *names: str) -> None:
    """At least one member is named, and none but these."""
    named = set(error.data["fields"])
    assert named
    assert named <= set(names)


# --- base fields


def test_a_message_says_when_it_was_sent():
    assert check_base(BASE, "prediction") == 1795176000.0
    assert check_base({**BASE, "timestamp": "2026-11-20T17:00:00.250+05:00"}, "prediction") == 1795176000.25


def test_receiver_and_signature_are_not_a_matter_of_shape():
    for value in (None, 7, [], "x"):
        check_base({**BASE, "receiver_hotkey": value, "signature": value}, "prediction")
    check_base(without(BASE, "receiver_hotkey"), "prediction")


@pytest.mark.parametrize("message", [None, [], "text", 7, 1.5, True, [BASE]])
def test_a_message_is_an_object(message):
    with pytest.raises(InvalidMessage) as refusal:
        check_base(message, "prediction")
    assert refusal.value.data["fields"] == {"_schema": ["Not an object."]}


@pytest.mark.parametrize("name", ["message_id", "sender_hotkey", "timestamp", "message_type"])
def test_each_base_field_is_required_and_named(name):
    with pytest.raises(InvalidMessage) as refusal:
        check_base(without(BASE, name), "prediction")
    assert refusal.value.data["fields"] == {name: ["Missing data for required field."]}


def test_all_base_fields_that_are_wrong_are_named_at_once():
    with pytest.raises(InvalidMessage) as refusal:
        check_base({}, "prediction")
    assert set(refusal.value.data["fields"]) == {"message_id", "sender_hotkey", "timestamp", "message_type"}


@pytest.mark.parametrize("name", ["message_id", "sender_hotkey", "timestamp", "message_type"])
@pytest.mark.parametrize("value", [7, 1.5, True, [], {}, ["x"], ""])
def test_a_base_field_of_a_wrong_type_is_named(name, value):
    assert set(base_fields_refused(**{name: value})) == {name}


@pytest.mark.parametrize(
    "value",
    [
        "5b0e8a4e-6f0c-1d6f-9a0b-1c2d3e4f5a6b",
        "5b0e8a4e-6f0c-4d6f-1a0b-1c2d3e4f5a6b",
        "5b0e8a4e6f0c4d6f9a0b1c2d3e4f5a6b",
        "{5b0e8a4e-6f0c-4d6f-9a0b-1c2d3e4f5a6b}",
        "5b0e8a4e-6f0c-4d6f-9a0b-1c2d3e4f5a6b\n",
        "x" * 16000,
    ],
)
def test_a_message_id_is_a_version_4_uuid(value):
    assert base_fields_refused(message_id=value) == {"message_id": ["Not a version 4 UUID."]}


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-20T12:00:00",
        "2026-11-20T12:00:00.000",
        "2026-11-20 12:00:00Z",
        "2026-11-20",
        "20261120T120000Z",
        "2026-13-20T12:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T12:00:00+0500",
        "２026-11-20T12:00:00Z",
        "2026-11-20T12:00:00Z\n",
        "1795176000",
        "now",
        1795176000,
        {},
    ],
)
def test_a_time_without_offset_is_refused(value):
    assert base_fields_refused(timestamp=value) == {"timestamp": ["Not a time with an offset."]}


def test_a_hotkey_longer_than_any_is_refused():
    assert set(base_fields_refused(sender_hotkey="5" * 65)) == {"sender_hotkey"}


def test_a_message_of_another_type_is_refused():
    assert base_fields_refused(message_type="authenticate") == {"message_type": ["Must be equal to prediction."]}
    with pytest.raises(InvalidMessage):
        check_base(BASE, "heartbeat")


@given(st.dictionaries(st.sampled_from([*BASE, "extra"]), JSON) | JSON)
def test_whatever_comes_is_a_time_or_an_invalid_message(message):
    with pytest.raises(InvalidMessage) as refusal:
        check_base(message, "prediction")
    assert refusal.value.data["fields"]


# --- the prediction


def test_a_prediction_is_read_as_it_came():
    assert read_prediction(SENT) == Prediction(
        prediction_id="nfl-17_9f2c",
        game_id="nfl-17",
        team_a="Giants",
        team_b="Cowboys",
        wager="10.00",
        predicted_outcome=1,
        predicted_odds="2.10",
        team_a_odds="1.80",
        team_b_odds="2.10",
        tie_odds=None,
        confidence_score=None,
        model_name=None,
        miner_uid=None,
        body=rfc8785.dumps(SENT).decode(),
        body_sha256=sha256(rfc8785.dumps(SENT)).hexdigest(),
    )


def test_optional_members_are_read():
    read = read_prediction(
        {**SENT, "tie_odds": 3.1, "confidence_score": 0.5, "model_name": "elo", "miner_uid": 7, "prediction_date": "x"}
    )
    assert (read.tie_odds, read.confidence_score, read.model_name, read.miner_uid) == (3.1, 0.5, "elo", 7)


def test_the_digest_covers_members_without_a_meaning_and_not_their_order():
    plain = read_prediction(SENT)
    backwards = read_prediction(dict(reversed(SENT.items())))
    extended = read_prediction({**SENT, "outcome": 1, "payout": "9.99", "Ünknown": [1.0, {"a": None}]})
    assert backwards.body == plain.body
    assert backwards.body_sha256 == plain.body_sha256
    assert extended.body_sha256 != plain.body_sha256
    assert json.loads(extended.body)["payout"] == "9.99"
    assert extended.body_sha256 == sha256(extended.body.encode()).hexdigest()


def test_numbers_that_json_writes_in_two_ways_have_one_digest():
    assert read_prediction({**SENT, "wager": 10}).body_sha256 == read_prediction({**SENT, "wager": 10.0}).body_sha256


def test_no_prediction_at_all_is_missing_data():
    with pytest.raises(MissingData) as refusal:
        read_prediction(None)
    assert refusal.value.body() == {
        "success": False,
        "error": "Missing prediction data",
        "code": "missing_data",
        "status": 400,
        "fields": ["prediction"],
    }


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_rule_1_names_each_required_member_that_is_missing_or_null(name, absent):
    with pytest.raises(MissingData) as refusal:
        read_prediction(without(SENT, name) if absent else {**SENT, name: None})
    assert refusal.value.message == "Missing prediction data"
    assert refusal.value.data["fields"] == [name]


def test_rule_1_names_all_that_is_missing_and_comes_before_wrong_types():
    with pytest.raises(MissingData) as refusal:
        read_prediction({"team_a": 7, "extra": 1})
    assert refusal.value.data["fields"] == [name for name in REQUIRED if name != "team_a"]


@pytest.mark.parametrize("name", ["predicted_odds", "tie_odds", "confidence_score", "model_name", "miner_uid"])
def test_other_members_may_be_absent_or_null(name):
    assert getattr(read_prediction(without(SENT, name)), name) is None
    assert getattr(read_prediction({**SENT, name: None}), name) is None


@pytest.mark.parametrize("value", [[], "text", 7, True, [SENT]])
def test_a_prediction_is_an_object(value):
    with pytest.raises(InvalidMessage) as refusal:
        read_prediction(value)
    assert refusal.value.data["fields"] == {"prediction": ["Not an object."]}


@pytest.mark.parametrize("name", ["prediction_id", "game_id", "team_a", "team_b", "model_name", "prediction_date"])
@pytest.mark.parametrize("value", [7, 1.5, True, [], {}])
def test_a_wrong_type_of_text_is_named(name, value):
    assert refused(**{name: value}) == {f"prediction.{name}": ["Not a string."]}


@pytest.mark.parametrize("value", ["7", 7.5, True, [], {}])
def test_a_wrong_type_of_uid_is_named(value):
    assert refused(miner_uid=value) == {"prediction.miner_uid": ["Not a whole number."]}


@pytest.mark.parametrize("name", ["wager", "predicted_outcome", "predicted_odds", "team_a_odds", "confidence_score"])
@pytest.mark.parametrize("value", [True, [], {"a": 1}, "text", -1.5])
def test_a_wrong_type_of_what_a_rule_judges_is_left_to_the_rule(name, value):
    assert getattr(read_prediction({**SENT, name: value}), name) == value


@pytest.mark.parametrize("value", ["", "a b", "a/b", "ä", "a\n", "a\0", "²", "x" * 129])
def test_ids_have_an_alphabet_and_a_length(value):
    assert set(refused(prediction_id=value)) == {"prediction.prediction_id"}
    assert set(refused(game_id=value)) == {"prediction.game_id"}


def test_ids_may_be_as_long_as_they_are_allowed_and_no_longer():
    assert read_prediction({**SENT, "prediction_id": "x" * 128, "game_id": "aZ0_.:-" + "x" * 57})
    assert set(refused(game_id="x" * 65)) == {"prediction.game_id"}


@pytest.mark.parametrize(("name", "most"), [("team_a", 200), ("team_b", 200), ("model_name", 128)])
def test_texts_are_bounded_and_hold_no_nul(name, most):
    assert read_prediction({**SENT, name: "é" * most})
    assert refused(**{name: "é" * (most + 1)}) == {f"prediction.{name}": [f"Longer than maximum length {most}."]}
    assert refused(**{name: "a\0b"}) == {f"prediction.{name}": ["Must not contain NUL."]}


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\ud800": 1}])
def test_what_has_no_canonical_form_is_refused(value):
    assert refused(extra=value) == {"prediction": ["Has no canonical form."]}
    assert refused(wager=value) == {"prediction": ["Has no canonical form."]}


@given(JSON | st.dictionaries(st.sampled_from([*SENT, "extra"]), JSON))
def test_whatever_comes_is_a_prediction_or_an_error_of_its_shape(value):
    try:
        read = read_prediction(value)
    except (InvalidMessage, MissingData) as error:
        assert_named(error, "prediction", *REQUIRED, *(f"prediction.{name}" for name in SENT))
    else:
        assert json.loads(read.body)["prediction_id"] == read.prediction_id


@given(st.sampled_from([*SENT, "model_name", "confidence_score", "miner_uid", "extra"]), JSON)
def test_whatever_one_member_is_there_is_a_prediction_or_an_error_of_its_shape(name, value):
    try:
        read = read_prediction({**SENT, name: value})
    except InvalidMessage as error:
        assert_named(error, f"prediction.{name}", "prediction")
    except MissingData as error:
        assert_named(error, name)
    else:
        assert sha256(read.body.encode()).hexdigest() == read.body_sha256
