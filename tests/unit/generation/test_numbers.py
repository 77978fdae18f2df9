"""Every numeric member of every message takes what its rule allows and refuses everything else by name."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import Schema, fields

from grid_node.errors import InvalidPayload, PromptTooLong
from grid_node.fields import StrictBool, load
from grid_node.generation import schemas
from grid_node.generation.requests import new_task
from grid_node.settings import Settings

REQUIRED: dict[str, Any] = {
    "prompt": "a chair",
    "task_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "lease_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "format": "ply",
    "sha256": "0" * 64,
}
SCHEMAS = [kind() for kind in vars(schemas).values() if isinstance(kind, type) and issubclass(kind, Schema)]
NUMERIC = [
    pytest.param(schema, name, id=f"{type(schema).__name__}.{name}")
    for schema in SCHEMAS
    for name, field in schema.fields.items()
    if isinstance(field, fields.Number)
]
FLAGS = [
    pytest.param(schema, name, id=f"{type(schema).__name__}.{name}")
    for schema in SCHEMAS
    for name, field in schema.fields.items()
    if isinstance(field, StrictBool)
]
NUMBERS = st.floats() | st.integers() | st.integers(-2, 4000) | st.floats(0, 4000)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
NASTY = [math.nan, math.inf, -math.inf, -1, 10**400, 1e308, True, False, "5", "", "NaN", b"5", [], [1], {}, 0.5, -0.5]

assert len(NUMERIC) >= 12


def message(schema: Schema, **members: Any) -> dict[str, Any]:
    needed = {name: REQUIRED[name] for name, field in schema.fields.items() if field.required}
    return {**needed, **members}


def outcome(schema: Schema, name: str, value: Any) -> Any:
    """The value as it was loaded, or the refusal."""
    try:
        return load(schema, message(schema, **{name: value}))[name]
    except InvalidPayload as refusal:
        error = refusal
    assert list(error.data["fields"]) == [name]
    json.dumps(error.body(), allow_nan=False)
    return error


def allowed(schema: Schema, name: str, value: Any) -> bool:
    """The rule in other words: a number, no boolean, finite, whole where it must be, and in range."""
    if value is None:
        return schema.fields[name].allow_none
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if isinstance(schema.fields[name], fields.Integer) and not isinstance(value, int):
        return False
    (limits,) = schema.fields[name].validators
    return (limits.min is None or value >= limits.min) and (limits.max is None or value <= limits.max)


@pytest.mark.parametrize(("schema", "name"), NUMERIC)
@given(value=JSON)
@settings(max_examples=60, deadline=None)
def test_a_number_is_taken_exactly_when_its_rule_allows_it(schema: Schema, name: str, value: Any) -> None:
    got = outcome(schema, name, value)
    if allowed(schema, name, value):
        assert got == value
        assert value is None or type(got) is (int if isinstance(schema.fields[name], fields.Integer) else float)
    else:
        assert isinstance(got, InvalidPayload)


@pytest.mark.parametrize(("schema", "name"), NUMERIC)
@pytest.mark.parametrize("value", NASTY, ids=lambda value: str(value)[:8])
def test_what_only_resembles_a_number_in_range_is_refused(schema: Schema, name: str, value: Any) -> None:
    if name == "wait_s" and value == 0.5:
        value = 25.5
    assert isinstance(outcome(schema, name, value), InvalidPayload)


@pytest.mark.parametrize(("schema", "name"), FLAGS)
@pytest.mark.parametrize("value", [0, 1, "true", "", None, [], {}, math.nan])
def test_a_flag_is_true_or_false_and_nothing_else(schema: Schema, name: str, value: Any) -> None:
    assert isinstance(outcome(schema, name, value), InvalidPayload)
    assert outcome(schema, name, True) is True


@given(payload=st.dictionaries(st.sampled_from([*schemas.GenerateSchema().fields, "extra"]), JSON | st.just("text")))
@settings(max_examples=150, deadline=None)
def test_whatever_a_client_sends_is_a_task_in_range_or_a_refusal(payload: dict[str, Any]) -> None:
    node = Settings.load({})
    try:
        new = new_task(payload, node, {"text", "text_to_3d"})
    except (InvalidPayload, PromptTooLong) as error:
        json.dumps(error.body(), allow_nan=False)
        return
    assert 1 <= len(new.prompt) <= node.public_api_prompt_max
    assert 1 <= new.copies <= 8
    assert 10 <= new.deadline_s <= node.public_api_deadline_max
    assert new.seed is None or 0 <= new.seed < 2**32


@pytest.mark.parametrize("payload", [None, [], "text", 5, math.nan, b"{}", True])
def test_a_message_that_is_no_object_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidPayload):
        new_task(payload, Settings.load({}), {"text"})


@pytest.mark.parametrize("key", ["", "x" * 129, "a\0b", "a\nb", 5, [], True])
def test_an_idempotency_key_is_text_that_every_database_can_hold(key: Any) -> None:
    with pytest.raises(InvalidPayload) as refusal:
        new_task({"prompt": "a chair", "idempotency_key": key}, Settings.load({}), {"text_to_3d"})
    assert list(refusal.value.data["fields"]) == ["idempotency_key"]
