"""Wire messages of generation: one schema for the event and the route."""

import unicodedata
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from grid_node.errors import PromptTooLong
from grid_node.fields import CONTROL, SHA256, StrictBool, StrictFloat, StrictInt, no_control_characters

SEQ = validate.Range(0, 2**63 - 1)
"""What a sequence number can be in every database."""


class Prompt(fields.String):
    """Text in NFC without surrounding space or control characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text = unicodedata.normalize("NFC", super()._deserialize(value, attr, data, **kwargs)).strip()
        if not text:
            raise ValidationError("must not be empty")
        if CONTROL.search(text):
            raise ValidationError("must not contain control characters")
        return text


class GenerateSchema(Schema):
    """A request for a task."""

    class Meta:
        unknown = RAISE

    prompt = Prompt(required=True)
    kind = fields.String(load_default="text_to_3d")
    send_first_results = StrictBool(load_default=False)
    copies = StrictInt(load_default=None, validate=validate.Range(1, 8))
    deadline_s = StrictFloat(load_default=None, validate=validate.Range(10, 3600))
    seed = StrictInt(load_default=None, validate=validate.Range(0, 2**32 - 1))
    idempotency_key = fields.String(load_default=None, validate=[validate.Length(1, 128), no_control_characters])


class FrameSchema(GenerateSchema):
    """The request on the raw WebSocket: more members, unknown ones ignored."""

    class Meta:
        unknown = EXCLUDE

    asset_format = fields.String(load_default="ply", validate=validate.OneOf(["ply", "spz"]))
    extended = StrictBool(load_default=False)


class TaskIdSchema(Schema):
    class Meta:
        unknown = RAISE

    task_id = fields.String(required=True)


class StatusSchema(TaskIdSchema):
    after_seq = StrictInt(load_default=None, validate=SEQ)
    wait_s = StrictFloat(load_default=0.0, validate=validate.Range(0, 25))


class ResumeSchema(TaskIdSchema):
    after_seq = StrictInt(load_default=0, validate=SEQ)


class ListSchema(Schema):
    class Meta:
        unknown = RAISE

    status = fields.String(
        load_default=None,
        validate=validate.OneOf(["queued", "started", "first_results", "best_results", "failed", "cancelled"]),
    )
    limit = StrictInt(load_default=50, validate=validate.Range(1, 200))
    after = fields.String(load_default=None)


_WORD = validate.Length(1, 64)


class PullSchema(Schema):
    """A worker's request for work."""

    class Meta:
        unknown = RAISE

    kinds = fields.List(fields.String(validate=_WORD), load_default=None, validate=validate.Length(1, 16))
    formats = fields.List(fields.String(validate=_WORD), load_default=None, validate=validate.Length(1, 16))
    wait_s = StrictFloat(load_default=0.0, validate=validate.Range(0, 25))
    holding = fields.List(fields.String(validate=_WORD), load_default=list, validate=validate.Length(max=16))


class WorkerNameSchema(Schema):
    """What a worker says of itself when it authenticates."""

    class Meta:
        unknown = RAISE

    name = fields.String(load_default=None, validate=validate.Regexp(r"^[A-Za-z0-9_.-]{1,32}$"))
    kinds = fields.List(fields.String(validate=_WORD), load_default=None, validate=validate.Length(1, 16))
    formats = fields.List(fields.String(validate=_WORD), load_default=None, validate=validate.Length(1, 16))
    max_parallel = StrictInt(load_default=1, validate=validate.Range(1, 8))
    client = fields.String(load_default=None, validate=validate.Length(max=64))


class LeaseIdSchema(Schema):
    class Meta:
        unknown = RAISE

    lease_id = fields.String(required=True, validate=_WORD)


class SkipSchema(LeaseIdSchema):
    reason = fields.String(load_default=None, validate=validate.Length(max=200))


class SubmitSchema(LeaseIdSchema):
    """A result: its bytes in `asset` (binary, or base64 text over HTTP), or stored before under `upload_id`."""

    task_id = fields.String(load_default=None)
    format = fields.String(required=True, validate=_WORD)
    sha256 = fields.String(required=True, validate=SHA256)
    asset = fields.Raw(load_default=None)
    upload_id = fields.String(load_default=None, validate=_WORD)
    signature = fields.String(load_default=None, validate=validate.Length(max=200))
    wait_s = StrictFloat(load_default=0.0, validate=validate.Range(0, 25))


class FeedbackSchema(Schema):
    class Meta:
        unknown = RAISE

    after_seq = StrictInt(load_default=0, validate=SEQ)
    wait_s = StrictFloat(load_default=0.0, validate=validate.Range(0, 25))


class EmptySchema(Schema):
    class Meta:
        unknown = RAISE


def check_prompt_length(prompt: Any, limit: int) -> None:
    """Raises PromptTooLong, which has a status of its own, before the schema looks at anything."""
    if isinstance(prompt, str) and len(unicodedata.normalize("NFC", prompt[: 4 * limit]).strip()) > limit:
        raise PromptTooLong(limit=limit)
