"""What a worker says of a prediction: the JSON that Cog posts to a webhook, read without trusting any of it.

Cog's python line sends `id input output logs status error metrics created_at started_at completed_at`, coglet only
`id output logs status error metrics`. Whatever else a worker says is kept under its name in `extra`.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from grid_node.errors import InvalidWebhook, RunnerInvalidJson
from grid_node.runners.ids import PREDICTION_ID
from grid_node.runners.prediction import CANCELED, ENDED, FAILED, PROCESSING, STARTING, SUCCEEDED
from grid_node.wire import strict_json

STATUSES = frozenset({STARTING, PROCESSING, SUCCEEDED, FAILED, CANCELED})
STATUS_MAX, TIME_MAX, ERROR_MAX = 32, 64, 65536
"""Characters that are kept."""
TIMES = ("created_at", "started_at", "completed_at")
_KNOWN = frozenset({"id", "input", "output", "logs", "status", "error", "metrics", *TIMES})
_SECRET = frozenset({"webhook", "webhook_events_filter"})
"""Never kept: an address to report to holds its token."""
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]|[^\s"{}\[\]:,]++', re.DOTALL)
_BREATH = 4096
"""Tokens after which others may run."""
_INT64 = range(-(2**63), 2**64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed report. None and empty mean: it says nothing of this."""

    id: str
    said: str | None = None
    """Its word for the status, shortened; for the log."""
    status: str | None = None
    """The same where it is one of STATUSES."""
    input: dict[str, Any] | None = None
    output: Any = None
    logs: str | None = None
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> bool:
        return self.status in ENDED


def read_report(raw: bytes) -> Report:
    """Raises RunnerInvalidJson, InvalidWebhook (with `fields`)."""
    document = _document(raw)
    if not isinstance(document, dict):
        raise InvalidWebhook(fields={"_schema": ["Not an object."]})
    said = document.get("status")
    return Report(
        id=checked_id(document.get("id")),
        said=kept_text(said)[:STATUS_MAX] if isinstance(said, str) else None,
        status=said if isinstance(said, str) and said in STATUSES else None,
        input=_object(document.get("input")) or None,
        output=document.get("output"),
        logs=_logs(document.get("logs")),
        error=_error(document.get("error")),
        metrics=_object(document.get("metrics")),
        times={name: document[name] for name in TIMES if _is_time(document.get(name))},
        extra={name: value for name, value in document.items() if name not in _KNOWN and name not in _SECRET},
    )


def checked_id(given: Any) -> str:
    """The id of a prediction as text; whole numbers are taken too. Raises InvalidWebhook."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if given is None:
        raise InvalidWebhook(fields={"id": ["Missing data for required field."]})
    if not isinstance(given, str) or not PREDICTION_ID.fullmatch(given) or _UNKEEPABLE.search(given):
        raise InvalidWebhook(fields={"id": ["Not a valid id."]})
    return given


def id_of(raw: bytes) -> str:
    """The `id` of a body that is too large to be parsed here: it is walked over, and others run meanwhile.

    Raises InvalidWebhook.
    """
    tokens = _tokens(raw)
    depth, before = 0, b""
    for token in tokens:
        if token == b":" and depth == 1 and before == b'"id"':
            return checked_id(_scalar(next(tokens, b"")))
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token, 0)
        before = token
    return checked_id(None)


def _tokens(raw: bytes) -> Iterator[bytes]:
    """Brackets, colons, commas, and texts and words of up to a KiB; of longer ones only that they are there."""
    for count, match in enumerate(_TOKEN.finditer(raw)):
        if count % _BREATH == 0:
            time.sleep(0)
        yield match[0] if match.end() - match.start() <= 1024 else b""


def _scalar(token: bytes) -> Any:
    try:
        return strict_json.loads(token)
    except strict_json.InvalidJSON:
        raise InvalidWebhook(fields={"id": ["Not a valid id."]}) from None


def kept_text(text: str) -> str:
    """Without what no database takes: NUL and lone surrogates."""
    return _UNKEEPABLE.sub("", text) if _UNKEEPABLE.search(text) else text


def mapped_texts(value: Any, change: Callable[[str], Any]) -> Any:
    """The same JSON with every text that is a value (no key) replaced by what `change` makes of it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [mapped_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {name: mapped_texts(item, change) for name, item in value.items()}
    return value


def texts_in(value: Any) -> Iterator[str]:
    """Every text in the JSON that is a value, in order. One loop: a report may hold 80,000 of them."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            pending.extend(reversed(one))
        elif isinstance(one, dict):
            pending.extend(reversed(one.values()))


def _document(raw: bytes) -> Any:
    try:
        document = _strict(raw)
    except strict_json.InvalidJSON:
        raise RunnerInvalidJson() from None
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:
        document = _narrowed(document)
    return document


def _strict(raw: bytes) -> Any:
    """A model may print half a character; its report counts, without it."""
    try:
        return strict_json.loads(raw)
    except strict_json.InvalidJSON:
        text = raw.decode("utf-8", "ignore")
        cleaned = _ESCAPE.sub(lambda match: "" if match["lone"] else match[0], text)
        if cleaned == text or text.encode() != raw:
            raise
        return strict_json.loads(cleaned)


def _narrowed(value: Any) -> Any:
    """Whole numbers beyond 64 bit become text: our own JSON has none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value in _INT64 else str(value)
    if isinstance(value, list):
        return [_narrowed(item) for item in value]
    if isinstance(value, dict):
        return {name: _narrowed(item) for name, item in value.items()}
    return value


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _logs(value: Any) -> str | None:
    return kept_text(value) if isinstance(value, str) else None


def _error(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return kept_text(value if isinstance(value, str) else json.dumps(value))[:ERROR_MAX]


def _is_time(value: Any) -> bool:
    """Whether a worker's time can be told on as it is."""
    if not isinstance(value, str) or len(value) > TIME_MAX:
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
