"""RFC 8785 (JCS): the one byte form of a JSON value, which signatures and digests cover."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import orjson
import rfc8785

_LARGEST = 2**53 - 1
_LEAVES = frozenset({str, bool, type(None)})


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes. Raises ValueError for what JSON cannot say exactly: NaN, integers beyond 2**53 - 1."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if _is_plain(value) else rfc8785.dumps(value)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise ValueError("the value has no canonical form") from error


def digest(value: Any) -> str:
    """Lower hex sha256 of the canonical bytes. Raises ValueError."""
    return sha256(canonical(value)).hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether orjson writes the same bytes, ten times faster: no floats, and keys whose order needs no UTF-16."""
    kind = type(value)
    if kind is dict:
        return _has_plain_keys(value) and _are_plain(value.values())
    if kind is list:
        return _are_plain(value)
    if kind is int:
        return -_LARGEST <= value <= _LARGEST
    return kind in _LEAVES


def _are_plain(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110 - no generator: this runs for each message
        if type(value) not in _LEAVES and not _is_plain(value):
            return False
    return True


def _has_plain_keys(members: dict[Any, Any]) -> bool:
    try:
        return "".join(members).isascii()
    except TypeError:
        return False
