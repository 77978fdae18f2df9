"""JSON in which one member of the object may be a text of megabytes.

A JSON reader takes such a text in one call: for 8 MiB of escapes that is a second in which nobody else is served.
Here it is read apart, a slice at a time, and others run in between.
"""

import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

from grid_node.errors import InvalidPayload
from grid_node.http.payloads import parse_json

SLICE = 256 * 1024
"""Bytes of JSON that are read at once: some milliseconds."""
LONG = 64 * 1024
"""Bytes of a text above which it is long."""
RESTING = 512
"""Short texts skipped between two moments in which others may run."""

_UNITS = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])*+')
"""What a JSON text is made of (RFC 8259, section 7); a match never ends within an escape."""


@dataclass(frozen=True)
class _LongText:
    """A text between two quotes of the body: its place, and what it says."""

    start: int
    end: int
    text: str


def parse_with_text(body: bytes, member: str, rest_max: int) -> Any:
    """The body as `parse_json` has it, where only `member` of the object may be a long text.

    Raises InvalidPayload, also for more than `rest_max` bytes besides that text.
    """
    if len(body) <= SLICE:
        return parse_json(body)
    found = _find_long(body, 0)
    if found is None:
        return parse_json(_within(body, rest_max))
    if _find_long(body, found.end + 1) is not None:
        raise refused(f"may have one long text, {member}")
    token = uuid.uuid4().hex
    payload = parse_json(_within(body[: found.start] + token.encode() + body[found.end :], rest_max))
    if not isinstance(payload, dict) or payload.get(member) != token:
        raise refused(f"may have one long text, {member}")
    return {**payload, member: found.text}


def _within(rest: bytes, rest_max: int) -> bytes:
    if len(rest) > rest_max:
        raise refused("is too long")
    return rest


def _find_long(body: bytes, at: int) -> _LongText | None:
    """The first long text from `at` on, which is outside of any text."""
    passed = 0
    while (quote := body.find(b'"', at)) >= 0:
        end = _end_of_units(body, quote + 1, LONG)
        if body[end : end + 1] != b'"':
            return _read(body, quote + 1)
        at = end + 1
        passed += 1
        if passed % RESTING == 0:
            time.sleep(0)
    return None


def _read(body: bytes, start: int) -> _LongText:
    at, pieces = start, [""]
    while body[at : at + 1] != b'"':
        end = _whole_characters(body, at, _end_of_units(body, at, SLICE))
        if end == at:
            raise refused("is not JSON")
        _append(pieces, _decoded(body[at:end]))
        at = end
        time.sleep(0)
    return _LongText(start, at, "".join(pieces))


def _end_of_units(body: bytes, start: int, most: int) -> int:
    match = _UNITS.match(body, start, start + most)
    return start if match is None else match.end()


def _whole_characters(body: bytes, start: int, end: int) -> int:
    """`end`, or up to three bytes before it, so that no character of UTF-8 is cut in two."""
    for place in range(end, max(start, end - 4), -1):
        if body[place : place + 1] and body[place] & 0xC0 != 0x80:
            return place
    return end


def _append(pieces: list[str], text: str) -> None:
    """The two escapes of a character above U+FFFF may have come in two slices."""
    if "\ud800" <= pieces[-1][-1:] <= "\udbff" and "\udc00" <= text[:1] <= "\udfff":
        pair = pieces[-1][-1] + text[0]
        pieces[-1] = pieces[-1][:-1]
        text = pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le") + text[1:]
    pieces.append(text)


def _decoded(piece: bytes) -> str:
    try:
        text: str = json.loads('"' + piece.decode() + '"')
    except ValueError:
        raise refused("is not JSON") from None
    return text


def end_of_text(body: bytes, start: int) -> int:
    """Offset of the quote that ends a text whose first character is at `start`. Raises InvalidPayload."""
    at = start
    while (end := _end_of_units(body, at, SLICE)) > at:
        at = end
        time.sleep(0)
    if body[at : at + 1] != b'"':
        raise refused("is not JSON")
    return at


def refused(problem: str) -> InvalidPayload:
    return InvalidPayload(fields={"_schema": [f"the body {problem}"]})
