"""What a request asks for, as the same plain data that an event carries; the schema behind both does the rest."""

import re
from typing import Any

from flask import Request
from marshmallow import Schema, fields

from grid_node.errors import InvalidPayload, MessageTooLarge
from grid_node.http.bodies import body_chunks
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
