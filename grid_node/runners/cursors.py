"""Places in lists, as opaque text that its list alone takes back."""

import base64
import binascii
import hashlib
from typing import Any

import orjson

from grid_node.errors import BadCursor

CURSOR_MAX = 512
_CHECK = 6
"""Bytes of checksum: a cursor that was cut, mixed up or made up is none."""

Place = list[str | int | float]


def cursor_of(kind: str, *place: str | int | float) -> str:
    """The place in lists of this kind; safe in a URL without quoting."""
    body = orjson.dumps(place)
    return base64.urlsafe_b64encode(_sum(kind, body) + body).rstrip(b"=").decode()


def place_of(kind: str, cursor: str, *shape: type) -> list[Any]:
    """What `cursor_of` was given, if it has these types. Raises BadCursor."""
    if not 0 < len(cursor) <= CURSOR_MAX:
        raise BadCursor()
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = orjson.loads(raw[_CHECK:])
    except (binascii.Error, ValueError):
        raise BadCursor() from None
    if raw[:_CHECK] != _sum(kind, raw[_CHECK:]) or not isinstance(place, list):
        raise BadCursor()
    if [type(one) for one in place] != list(shape) or not all(map(_is_comparable, place)):
        raise BadCursor()
    return place


def _is_comparable(one: Any) -> bool:
    """Whether a database can compare with it. The sum is no secret: anybody can make up a cursor."""
    return abs(one) < 2**63 if isinstance(one, int) else not isinstance(one, str) or "\0" not in one


def _sum(kind: str, body: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + b"\0" + body).digest()[:_CHECK]
