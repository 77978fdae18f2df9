"""Messages about registered models that carry no document: the same for routes and events."""

from typing import Any

from marshmallow import Schema, fields, validate

from grid_node.errors import InvalidPayload, RunnerInvalidJson
from grid_node.fields import StrictBool, StrictInt, StrictText
from grid_node.runners.cursors import CURSOR_MAX
from grid_node.runners.registration import CREDENTIAL, PAGE_MAX


class ModelsSchema(Schema):
    """A page of the caller's models."""

    cursor = StrictText(load_default=None, allow_none=True, validate=validate.Length(1, CURSOR_MAX))
    limit = StrictInt(load_default=None, allow_none=True, validate=validate.Range(1, PAGE_MAX))


class LookSchema(Schema):
    """`include=credential`: with the tunnel's secret and token."""

    include = StrictText(load_default=None, allow_none=True, validate=validate.OneOf([CREDENTIAL]))


class RemovalSchema(Schema):
    """`force`: cancel what still waits or runs."""

    force = StrictBool(load_default=False)


class NamedLookSchema(LookSchema):
    id = StrictText(required=True, validate=validate.Length(1, 128))


class NamedRemovalSchema(RemovalSchema):
    id = StrictText(required=True, validate=validate.Length(1, 128))


class RegistrationSchema(Schema):
    """A registration as the OpenAPI document tells it; `model_documents` checks it."""

    inputs = fields.List(fields.Dict(), required=True, metadata={"description": "name, type and validation of each"})
    outputs = fields.String(required=True, metadata={"example": "list[Path]"})
    name = fields.String(metadata={"description": "unique per owner; the id where it is not given"})
    visibility = fields.String(validate=validate.OneOf(["private", "public"]), load_default="private")
    generation = fields.Dict(metadata={"description": "how the model does generation tasks"})


MODELS, LOOK, REMOVAL = ModelsSchema(), LookSchema(), RemovalSchema()
NAMED_LOOK, NAMED_REMOVAL = NamedLookSchema(), NamedRemovalSchema()


def taken(payload: Any, *names: str) -> tuple[dict[str, Any], list[str | None]]:
    """An event's document, and the texts that stand beside its members: what a request has in its address and headers.

    Raises RunnerInvalidJson for what is no object, InvalidPayload for what is no text.
    """
    if not isinstance(payload, dict):
        raise RunnerInvalidJson()
    texts = [payload.get(name) for name in names]
    wrong = {name: ["must be a string"] for name, text in zip(names, texts, strict=True) if not _is_text(text)}
    if wrong:
        raise InvalidPayload(fields=wrong)
    return {name: value for name, value in payload.items() if name not in names}, texts


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)
