"""JSON whose member may be a text or arrays of numbers of many megabytes.

What is long is cut out of the body, so that the rest is small and is read strictly; of an array only its place is
found here, its numbers are read when it is known what they should be.
"""

import time
import uuid
from typing import Any

from grid_node.hosting.long_arrays import ArrayText
from grid_node.http.long_text import LONG, RESTING, SLICE, end_of_text, parse_with_text, refused

ARRAY = 4 * 1024
"""Bytes between two texts above which an array there is cut out."""


def parse_with_arrays(body: bytes, member: str, rest_max: int) -> Any:
    """The body as `parse_json` has it, where `member` may be a long text, a long array, or an object of such arrays;
    these arrays are ArrayText.

    Raises InvalidPayload, also for more than `rest_max` bytes besides.
    """
    if len(body) <= SLICE:
        return parse_with_text(body, member, rest_max)
    rest, arrays = _cut(body, rest_max)
    payload = parse_with_text(rest, member, rest_max)
    if not arrays:
        return payload
    value = payload.get(member) if isinstance(payload, dict) else None
    places = value if isinstance(value, dict) else {member: value}
    found = {name: arrays.get(token) for name, token in places.items() if isinstance(token, str)}
    filled = {name: array for name, array in found.items() if array is not None}
    if len(filled) != len(arrays):
        raise refused(f"may have long arrays of numbers in {member} alone")
    return {**payload, member: {**places, **filled} if isinstance(value, dict) else filled[member]}


def _cut(body: bytes, rest_max: int) -> tuple[bytes, dict[str, ArrayText]]:
    """The body with a text of its own in place of each long array, and these arrays by that text."""
    pieces: list[bytes] = []
    arrays: dict[str, ArrayText] = {}
    at, short, texts = 0, 0, 0
    while at < len(body):
        quote = body.find(b'"', at)
        quote = len(body) if quote < 0 else quote
        start, stop = _array(body, at, quote) if quote - at > ARRAY else (quote, quote)
        if start < stop:
            token = uuid.uuid4().hex
            arrays[token] = ArrayText(body[start:stop])
            pieces += (body[at:start], b'"%b"' % token.encode(), body[stop:quote])
        else:
            pieces.append(body[at:quote])
        end = end_of_text(body, quote + 1) + 1 if quote < len(body) else quote
        pieces.append(body[quote:end])
        short += (start - at) + (quote - stop) + (end - quote if end - quote <= LONG else 0)
        if short > rest_max:
            raise refused("is too long")
        at, texts = end, texts + 1
        if texts % RESTING == 0:
            time.sleep(0)
    return b"".join(pieces), arrays


def _array(body: bytes, start: int, end: int) -> tuple[int, int]:
    """From the first bracket to the last one before any brace; empty if there is no array of plain elements."""
    first = body.find(b"[", start, end)
    if first < 0:
        return end, end
    for brace in (b"{", b"}"):
        found = body.find(brace, first, end)
        end = end if found < 0 else found
    last = body.rfind(b"]", first, end) + 1
    return (first, last) if last - first > ARRAY else (last, last)
