"""Requests of Pylon's API: whatever comes is either taken as it is meant or refused with a place and a reason."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

from grid_node.chain.refusals import refusal
from grid_node.chain.schemas import CommitmentRequest, WeightsRequest, load, parsed
from grid_node.errors import (
    ChainError,
    ChainInvalid,
    ChainMalformed,
    ChainNotFound,
    GridError,
    NotFound,
    StoreUnavailable,
)

NUMBERS = st.floats(allow_nan=False, min_value=0) | st.integers(0, 9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def outcome(schema: Schema, body: bytes) -> dict[str, Any] | ChainError:
    """What is taken, or the refusal."""
    try:
        return load(schema, parsed(body))
    except ChainError as error:
        return error


@given(JSON)
def test_any_json_is_taken_or_refused_field_by_field(value: Any) -> None:
    found = outcome(WeightsRequest(), json.dumps(value).encode())

    if isinstance(found, ChainInvalid):
        assert found.data["extra"]
        assert all(set(problem) == {"message", "key"} for problem in found.data["extra"])
    elif isinstance(found, ChainMalformed):
        assert found.message.startswith("JSON is malformed: ")
    else:
        assert isinstance(found, dict)
        assert found["weights"]


@given(st.dictionaries(st.text(min_size=1, max_size=8), NUMBERS | JSON, min_size=1, max_size=4))
def test_any_weights_are_finite_or_named(weights: dict[str, Any]) -> None:
    found = outcome(WeightsRequest(), json.dumps({"weights": weights}).encode())

    if isinstance(found, dict):
        assert found["weights"].keys() == weights.keys()
        assert all(math.isfinite(weight) and weight >= 0 for weight in found["weights"].values())
    elif isinstance(found, ChainInvalid):
        assert {problem["key"].removeprefix("weights.") for problem in found.data["extra"]} <= set(weights)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    assert outcome(WeightsRequest(), body)


@given(st.binary(min_size=1, max_size=128), st.booleans(), st.booleans())
def test_a_commitment_comes_as_hex_of_any_case_with_or_without_its_prefix(data: bytes, upper: bool, bare: bool) -> None:
    text = ("" if bare else "0x") + (data.hex().upper() if upper else data.hex())

    assert load(CommitmentRequest(), {"commitment": text}) == {"commitment": data}


@given(st.text(max_size=20))
def test_no_other_text_is_a_commitment(text: str) -> None:
    try:
        found = load(CommitmentRequest(), {"commitment": text})["commitment"]
    except ChainInvalid:
        return
    assert found.hex() == text.removeprefix("0x").lower()


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (NotFound("Task not found"), 404, "Not Found"),
        (GridError("secret"), 500, "Internal Server Error"),
        (ValueError("secret"), 500, "Internal Server Error"),
        (ChainNotFound("Subnet 70 not found."), 404, "Subnet 70 not found."),
    ],
)
def test_every_error_has_pylon_s_body(error: Exception, status: int, detail: str) -> None:
    assert refusal(error, "GET /x")[:2] == (status, {"status_code": status, "detail": detail})


def test_an_error_of_another_part_keeps_its_status_and_its_wait() -> None:
    told = refusal(StoreUnavailable(retry_after=3), "GET /x")

    assert (told.status, told.retry_after) == (503, 3)
    assert told.body == {"status_code": 503, "detail": StoreUnavailable.text}
