"""Files inside of texts: `data:` URLs (RFC 2397), decoded in pieces."""

import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

_HEAD = re.compile(r"data:([^,;]{0,200}(?:;[^,;]{0,200}){0,8}?)(;\s*base64)?,", re.IGNORECASE)
_HEAD_MAX = 4096
_PIECE = 256 * 1024
"""Characters that are decoded at a time; a multiple of 4."""
PLAIN = "text/plain"
INLINE_DATA = 64 * 1024
"""Characters of a data: URL up to which it goes to a worker as it is: none gets megabytes of base64."""


def is_data_url(text: str) -> bool:
    """By its beginning; `decoded` says whether it is a good one."""
    return text[:5].lower() == "data:"


def with_stored(value: Any, store: Callable[[str], str]) -> Any:
    """An input with its long data: URLs replaced by what `store` makes of each; lists item by item."""
    if isinstance(value, list):
        return [with_stored(one, store) for one in value]
    is_long = isinstance(value, str) and len(value) > INLINE_DATA and is_data_url(value)
    return store(value) if is_long else value


def decoded(url: str) -> tuple[str, Iterator[bytes]]:
    """Media type and bytes. Raises ValueError for what is no data: URL; the pieces do so for what is not base64."""
    head = _HEAD.match(url[:_HEAD_MAX])
    if head is None:
        raise ValueError("not a data: URL")
    pieces = _from_base64(url[head.end() :]) if head[2] else _from_text(url, head.end())
    return head[1].strip() or PLAIN, pieces


def _from_base64(text: str) -> Iterator[bytes]:
    if "%" in text:
        text = unquote(text)
    text = "".join(text.split()).rstrip("=")
    text += "=" * (-len(text) % 4)
    for start in range(0, len(text), _PIECE):
        yield binascii.a2b_base64(text[start : start + _PIECE], strict_mode=True)


def _from_text(url: str, start: int) -> Iterator[bytes]:
    while start < len(url):
        end = min(start + _PIECE, len(url))
        escape = url.rfind("%", end - 2, end) if end < len(url) else -1
        end = end if escape < 0 else escape  # an escape is not cut in two
        yield unquote_to_bytes(url[start:end])
        start = end
