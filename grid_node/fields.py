"""Fields of wire messages that take exactly what they name, and how a message is loaded."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from grid_node.errors import InvalidPayload

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
EPOCH_LENGTH = 16
EPOCH_TEXT = f"must be {EPOCH_LENGTH} lower hex digits"
EPOCH_PATTERN = re.compile(rf"^[0-9a-f]{{{EPOCH_LENGTH}}}\Z")
EPOCH = validate.Regexp(EPOCH_PATTERN, error=EPOCH_TEXT)
"""The life of a log of updates: its numbers mean something within one epoch only."""
SHA256 = validate.Regexp(r"^[0-9a-f]{64}\Z", error="must be 64 lower hex digits")


class StrictBool(fields.Boolean):
    """true or false, and nothing that resembles them."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class StrictFloat(fields.Float):
    """A JSON number: no text, no bytes, no boolean, no NaN, no infinity."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a number")
        return float(super()._validated(value))


class StrictInt(fields.Integer):
    """A JSON integer: no text, no bytes, no boolean, no fraction."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def _validated(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("must be a whole number")
        return super()._validated(value)


class StrictText(fields.String):
    """A JSON string without NUL, which PostgreSQL's text cannot hold, and without lone surrogates."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be a string")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValidationError("must not contain NUL or lone surrogates")
        return value


def no_control_characters(text: str) -> None:
    """Names and keys go into the database as they are, and PostgreSQL's text cannot hold NUL."""
    if CONTROL.search(text):
        raise ValidationError("must not contain control characters")


def load(schema: Schema, payload: Any) -> dict[str, Any]:
    """The checked message; raises InvalidPayload with what is wrong in each field."""
    if not isinstance(payload, Mapping):
        raise InvalidPayload(fields={"_schema": ["must be an object"]})
    try:
        return dict(schema.load(payload))
    except ValidationError as error:
        raise InvalidPayload(fields=error.normalized_messages()) from None
