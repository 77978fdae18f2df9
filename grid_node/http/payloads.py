"""What a request asks for, as the same plain data that an event carries; the schema behind both does the rest."""

import re
from dataclasses import dataclass
from typing import Any

from flask import Request
from marshmallow import Schema, fields

from grid_node.errors import InvalidJson, InvalidMessage, InvalidPayload, MessageTooLarge, PayloadTooLarge
from grid_node.fields import load
from grid_node.http.bodies import body_chunks, require_length
from grid_node.wire import strict_json

JSON_MAX = 64 * 1024
"""Bytes of a JSON request."""

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


def json_payload(request: Request, max_bytes: int = JSON_MAX, **too_large: Any) -> Any:
    """The body as JSON, whatever type it says it has; none at all is `{}`, as for an event.

    Raises InvalidPayload, and MessageTooLarge with `too_large`.
    """
    return parse_json(json_body(request, max_bytes, **too_large))


def json_body(request: Request, max_bytes: int = JSON_MAX, **too_large: Any) -> bytes:
    def refuse(**limit: Any) -> MessageTooLarge:
        return MessageTooLarge(**{**limit, **too_large})

    return b"".join(body_chunks(request, max_bytes, too_large=refuse))


def parse_json(body: bytes | str) -> Any:
    """Raises InvalidPayload for what is no JSON, and for what two readers could understand differently."""
    if not body.strip():
        return {}
    try:
        return strict_json.loads(body)
    except strict_json.InvalidJSON as error:
        raise InvalidPayload(fields={"_schema": [str(error)]}) from None


@dataclass(frozen=True, slots=True)
class StrictBody:
    """A body that was read and not yet understood: its signature covers the bytes as they came."""

    raw: bytes

    def parsed(self) -> Any:
        """Raises InvalidJson; no body is no JSON either."""
        try:
            return strict_json.loads(self.raw)
        except strict_json.InvalidJSON as error:
            raise InvalidJson(reason=str(error)) from None


def strict_body(request: Request, max_bytes: int) -> StrictBody:
    """The body of a request that names its length. Raises LengthRequired, PayloadTooLarge, BodyIncomplete."""
    require_length(request)
    return StrictBody(b"".join(body_chunks(request, max_bytes, too_large=PayloadTooLarge)))


def message_query(request: Request, schema: Schema) -> dict[str, Any]:
    """`query_payload`, but what it refuses is InvalidMessage."""
    try:
        return query_payload(request, schema)
    except InvalidPayload as error:
        raise InvalidMessage(**error.data) from None


def checked_query(request: Request, schema: Schema) -> dict[str, Any]:
    """The query as the schema has it. Raises InvalidMessage with `fields`."""
    try:
        return load(schema, query_payload(request, schema))
    except InvalidPayload as error:
        raise InvalidMessage(**error.data) from None


def with_idempotency_key(request: Request, payload: Any) -> Any:
    """The payload with the idempotency key of the header, where it has none of its own. Raises InvalidPayload."""
    key = request.headers.get("Idempotency-Key")
    if key is None or not isinstance(payload, dict):
        return payload
    if payload.get("idempotency_key") not in (None, key):
        raise InvalidPayload(fields={"idempotency_key": ["differs from the header Idempotency-Key"]})
    return {**payload, "idempotency_key": key}


def query_payload(request: Request, schema: Schema) -> dict[str, Any]:
    """The query as plain data: text that spells a number becomes one where the schema wants a number."""
    payload: dict[str, Any] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidPayload(fields={name: ["must be given once"]})
        payload[name] = _typed(values[0], schema.fields.get(name))
    return payload


def _typed(text: str, field: fields.Field[Any] | None) -> Any:
    if isinstance(field, fields.Integer) and _WHOLE.fullmatch(text):
        return int(text)
    if isinstance(field, fields.Float) and _NUMBER.fullmatch(text):
        return float(text)
    return text
