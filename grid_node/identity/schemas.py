"""Wire messages of identity. A schema checks the shape alone: no signature, no clock, no database."""

import re
import uuid
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from grid_node.clock import parse_rfc3339
from grid_node.errors import InvalidMessage
from grid_node.fields import EPOCH

_NONCE = re.compile(r"[0-9a-f]{64}\Z")
_WORKER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


class Text(fields.Field[str]):
    """A JSON string and nothing else; marshmallow's own would take bytes too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Not a string.")
        return value


class Whole(fields.Field[int]):
    """A JSON integer; true and 1.0 are none."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        if type(value) is not int:
            raise ValidationError("Not a whole number.")
        return value


class Moment(fields.Field[float]):
    """An RFC 3339 time with an offset, read as seconds since 1970."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> float:
        try:
            return parse_rfc3339(value)
        except (TypeError, ValueError):
            raise ValidationError("Not a time with an offset.") from None


def _uuid4(value: str) -> None:
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        raise ValidationError("Not a UUID.") from None
    if parsed.version != 4 or str(parsed) != value.lower():
        raise ValidationError("Not a version 4 UUID.")


def _texts(most: int, length: int) -> fields.List[str]:
    return fields.List(Text(validate=validate.Length(1, length)), validate=validate.Length(max=most))


class Extensible(Schema):
    """Members not named in the schema are covered by the signature, and otherwise ignored."""

    class Meta:
        unknown = EXCLUDE


class Message(Extensible):
    """The members that every message begins with."""

    message_id = Text(required=True, validate=_uuid4)
    sender_hotkey = Text(required=True, validate=validate.Length(1, 64))
    timestamp = Moment(required=True)
    message_type = Text(required=True)
    # absent or malformed they are 401, which is not for a schema to say
    receiver_hotkey = fields.Raw(load_default=None)
    signature = fields.Raw(load_default=None)


class Position(Extensible):
    """Where a reader of a stream stopped."""

    epoch = Text(required=True, validate=EPOCH)
    seq = Whole(required=True, validate=validate.Range(0, 2**53 - 1))


class Introduction(Extensible):
    """What a worker or predictor may say of itself when it authenticates."""

    kinds = _texts(32, 64)
    formats = _texts(16, 16)
    max_parallel = Whole(validate=validate.Range(1, 8))
    client = Text(validate=validate.Length(max=64))
    compression = _texts(8, 16)
    position = fields.Nested(Position)


class Authenticate(Message, Introduction):
    """The answer to a challenge."""

    message_type = Text(required=True, validate=validate.Equal("authenticate"))
    nonce = Text(required=True, validate=validate.Regexp(_NONCE))
    client_nonce = Text(required=True, validate=validate.Regexp(_NONCE))


class KeyAuthenticate(Introduction):
    """`authenticate` in a private grid: an API key with the scope `worker`, and a name for this worker."""

    api_key = Text(required=True, validate=validate.Length(max=1024))
    name = Text(load_default="worker", validate=validate.Regexp(_WORKER_NAME))


def load_message(schema: Schema, payload: object) -> dict[str, Any]:
    """The loaded members. Raises InvalidMessage with `fields`."""
    if not isinstance(payload, dict) or not all(isinstance(name, str) for name in payload):
        raise InvalidMessage(fields={"_schema": ["Not an object."]})
    try:
        loaded: dict[str, Any] = schema.load(payload)
    except ValidationError as error:
        raise InvalidMessage(fields=error.messages) from error
    return loaded
