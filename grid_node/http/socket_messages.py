"""The messages of the raw WebSocket: what its frames mean, what is sent, and with which code it ends."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from grid_node.errors import (
    Forbidden,
    GridError,
    IdempotencyConflict,
    InvalidKey,
    InvalidPayload,
    MessageTooLarge,
    MissingKey,
    PromptTooLong,
    SeqAhead,
    TaskNotFound,
)
from grid_node.generation.tasks import StoredFile
from grid_node.wire import strict_json

FRAME_MAX = 64 * 1024
"""Bytes of a frame of the client."""
TRANSPORT_MAX = 256 * 1024
"""Bytes of a message above which the transport itself ends the connection (1009)."""
SLICE = 192 * 1024
"""Bytes of an asset that are encoded at a time; a multiple of 3, so that the pieces make one base64 text."""

PLAIN_STATUSES = frozenset({"started", "first_results", "best_results"})
"""What a client that did not ask for more understands; its parser raises for any other status."""


class Closing(Exception):
    """The conversation ends with this close code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


DONE = (1000, "")
INVALID_KEY = (4003, "Invalid API Key")
BAD_MESSAGE = (4400, "Bad Message")
NOT_FOUND = (4404, "Task not found")
FAILED = (4404, "Generation failed")
CANCELLED = (4404, "Generation cancelled")
TIMEOUT = (4408, "Timeout")
PROMPT_TOO_LONG = (4413, "Prompt Too Long")
TOO_LARGE = (4413, "Message Too Large")
TOO_MANY = (4429, "Too Many Requests")
OUR_FAULT = (4500, "Internal Server Error")
UNAVAILABLE = (4503, "Service Unavailable")

_CLOSES: dict[type[GridError], tuple[int, str]] = {
    InvalidKey: INVALID_KEY,
    MissingKey: INVALID_KEY,
    Forbidden: INVALID_KEY,
    InvalidPayload: BAD_MESSAGE,
    IdempotencyConflict: BAD_MESSAGE,
    SeqAhead: BAD_MESSAGE,
    TaskNotFound: NOT_FOUND,
    PromptTooLong: PROMPT_TOO_LONG,
    MessageTooLarge: TOO_LARGE,
}
_CLOSES_BY_STATUS = {429: TOO_MANY, 503: UNAVAILABLE, 507: UNAVAILABLE}


def close_of(error: GridError) -> tuple[int, str]:
    """Close code and reason of a refusal."""
    return _CLOSES.get(type(error)) or _CLOSES_BY_STATUS.get(error.status, OUR_FAULT)


def close_of_end(status: str, error: dict[str, Any] | None) -> tuple[int, str]:
    """Close code and reason after the terminal update of a task."""
    if status == "best_results":
        return DONE
    code = (error or {}).get("code")
    if code == "key_removed":
        return INVALID_KEY
    if status == "cancelled":
        return CANCELLED
    return OUR_FAULT if code == "scoring_unavailable" else FAILED


# --- what the client says -------------------------------------------------------------------------------------


def frame_of(message: str | bytes) -> dict[str, Any]:
    """The object in a text frame. Raises MessageTooLarge, InvalidPayload."""
    if isinstance(message, bytes):
        raise InvalidPayload(fields={"_schema": ["must be a text frame"]})
    if len(message) > FRAME_MAX or len(message.encode()) > FRAME_MAX:
        raise MessageTooLarge(limit=FRAME_MAX)
    try:
        frame = strict_json.loads(message)
    except strict_json.InvalidJSON as error:
        raise InvalidPayload(fields={"_schema": [str(error)]}) from None
    if not isinstance(frame, dict):
        raise InvalidPayload(fields={"_schema": ["must be an object"]})
    return frame


def key_of(frame: dict[str, Any]) -> str:
    """The API key in the first frame. Raises InvalidPayload."""
    key = frame.get("api_key")
    if not isinstance(key, str):
        raise InvalidPayload(fields={"api_key": ["must be text"]})
    return key


# --- what the node says ---------------------------------------------------------------------------------------


def refusal_text(error: GridError) -> str:
    return _dumps({"status": "failed", "results": None, "statistics": None, "error": _house(error.body())})


def update_of(body: dict[str, Any]) -> dict[str, Any]:
    """An update without results as its frame has it."""
    update = {
        "status": body["status"],
        "results": None,
        "statistics": body.get("statistics"),
        "task_id": body["task_id"],
        "seq": body["seq"],
    }
    if "error" in body:
        update["error"] = _house({"success": False, **body["error"]})
    return update


def results_of(body: dict[str, Any], file: StoredFile | None) -> dict[str, Any]:
    """The results of an update, less the asset; they describe the form that is sent."""
    results = {name: body["results"][name] for name in ("hotkey", "score", "n", "format", "size", "sha256", "url")}
    if file is not None:
        form = file.name.rpartition(".")[2]
        url = results["url"] if form == results["format"] else f"{results['url']}?format={form}"
        results.update(format=form, size=file.size, sha256=file.sha256, url=url)
    return results


def text_of(update: dict[str, Any]) -> str:
    return _dumps(update)


def fragments_of(update: dict[str, Any], results: dict[str, Any], pieces: Iterator[bytes]) -> Iterator[bytes]:
    """One JSON object in pieces: the asset is encoded as it is read and is never whole in memory."""
    rest = {name: value for name, value in update.items() if name != "results"}
    yield b'{"results":{"assets":"'
    for part in _sliced(pieces):
        yield base64.b64encode(part)
    yield f'",{_dumps(results)[1:]},{_dumps(rest)[1:]}'.encode()


def _sliced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of SLICE, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= SLICE:
            yield bytes(held[:SLICE])
            del held[:SLICE]
    if held:
        yield bytes(held)


def _house(body: dict[str, Any]) -> dict[str, Any]:
    return {"retry_after": None, **body}


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
