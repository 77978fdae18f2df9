"""What a client asks for when it runs a model: the members of the request, checked."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate

from grid_node.errors import InvalidPayload
from grid_node.fields import StrictBool, StrictText, load
from grid_node.runners.prediction import HOOK_EVENTS
from grid_node.runners.references import Reference, parse_version
from grid_node.runners.replays import checked_key

BESIDE_INPUT = 16 * 1024
"""Bytes that a request may have beside the largest input."""
_DURATION = re.compile(r"(?P<count>[0-9]{1,7})(?P<unit>[smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class NewRun:
    """`input` is as it came. `cancel_after` in seconds from acceptance; `named` tells whether the model stands in the
    address, so that one that is not there is not found, or only in the version."""

    reference: Reference
    input: Any
    named: bool = False
    webhook: str | None = None
    webhook_events: tuple[str, ...] = ()
    cancel_after: float | None = None
    idempotency_key: str | None = None

    def asked(self) -> dict[str, Any]:
        """What must be the same when the request is sent again; numbers of any size stand in the input's text."""
        asked = asdict(self)
        del asked["idempotency_key"]
        return {**asked, "reference": list(self.reference), "input": json.dumps(self.input, sort_keys=True)}


class NewRunSchema(Schema):
    """Body of `POST /v1/predictions`. Other members are not looked at."""

    class Meta:
        unknown = EXCLUDE

    version = StrictText(load_default=None, validate=validate.Length(min=1, max=256))
    input = fields.Raw(load_default=None, allow_none=True)
    webhook = StrictText(load_default=None, allow_none=True)
    webhook_completed = StrictText(load_default=None, allow_none=True)
    webhook_events_filter = fields.List(
        StrictText(validate=validate.OneOf(HOOK_EVENTS)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=len(HOOK_EVENTS)),
    )
    stream = StrictBool(load_default=None, allow_none=True)


_SCHEMA = NewRunSchema()


def new_run(
    body: Any,
    *,
    model: tuple[str, str] | None = None,
    cancel_after: str | None = None,
    idempotency_key: str | None = None,
) -> NewRun:
    """`model`: account and name in the address; else the body names a version. The other two are the headers of those
    names. Raises InvalidPayload, UnknownVersion."""
    given = load(_SCHEMA, body)
    hook, events = _hook(given)
    return NewRun(
        reference=Reference(*model, None) if model else _version(given),
        named=model is not None,
        input={} if given["input"] is None else given["input"],
        webhook=hook,
        webhook_events=events,
        cancel_after=None if cancel_after is None else duration(cancel_after),
        idempotency_key=checked_key(idempotency_key),
    )


def duration(text: str) -> float:
    """Seconds of `30s`, `5m`, `1h`. Raises InvalidPayload."""
    match = _DURATION.fullmatch(text.strip())
    seconds = int(match["count"]) * _UNIT_S[match["unit"]] if match else 0
    if not seconds:
        raise InvalidPayload(fields={"Cancel-After": ["Must be a duration like 30s, 5m or 1h."]})
    return float(seconds)


def _version(given: Mapping[str, Any]) -> Reference:
    if given["version"] is None:
        raise InvalidPayload(fields={"version": ["Missing data for required field."]})
    return parse_version(given["version"])


def _hook(given: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Where updates go and which; `webhook_completed` is the old way to ask for the last one."""
    if given["webhook"]:
        asked = given["webhook_events_filter"] or ()
        return given["webhook"], tuple(event for event in HOOK_EVENTS if event in asked)
    if given["webhook_completed"]:
        return given["webhook_completed"], ("completed",)
    return None, ()
