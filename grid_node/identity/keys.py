"""The text of API keys: what one looks like, how one is made, and what is kept of it. No storage here."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable
from hashlib import sha256

from grid_node.clock import parse_rfc3339
from grid_node.identity.refusal import Refused

SCOPES = ("client", "worker", "runner", "models:code", "models:admin", "admin")
MAX_REQUESTS = 1_000_000
MAX_PERIOD = 2_678_400
"""31 days, in seconds."""

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GIVEN = re.compile(r"[!-~]{16,200}")
_GENERATED = re.compile(r"(gk([0-9A-Za-z]{8})_[0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_WHOLE = re.compile(r"[0-9]{1,10}")

RandomBytes = Callable[[int], bytes]
"""`secrets.token_bytes`, or something repeatable in a test."""


def generate(random: RandomBytes) -> str:
    """A new key: `gk<8 base62 id>_<43 base62, 256 bits><6 base62 CRC-32 of all before>`."""
    body = f"gk{_random_id(random, 8)}_{_base62(int.from_bytes(random(32), 'big'), 43)}"
    return body + _checksum(body)


def digest(key: str) -> str:
    """Lower hex sha256 of the key: the only trace of it that is kept."""
    return sha256(key.encode("ascii")).hexdigest()


def is_key(key: object) -> bool:
    """Whether this can be a key at all: 16 to 200 printable ASCII characters without space."""
    return isinstance(key, str) and _GIVEN.fullmatch(key) is not None


def check_key(key: str) -> str:
    """The key itself. Raises Refused."""
    if not is_key(key):
        raise Refused("API key must be 16 to 200 printable ASCII characters without space")
    return key


def own_id(key: str) -> str | None:
    """The public id inside a key that this software generated; None for every other key."""
    match = _GENERATED.fullmatch(key)
    return match[2] if match and _checksum(match[1]) == match[3] else None


def random_id(random: RandomBytes) -> str:
    """A public id for a key that carries none."""
    return "x" + _random_id(random, 7)


def check_name(name: str) -> str:
    """1 to 64 characters, none of them `|`, a control character or a line separator. Raises Refused."""
    unprintable = any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in name)
    if not 1 <= len(name) <= 64 or "|" in name or unprintable or name.isspace():
        raise Refused("name must be 1 to 64 characters without | and control characters")
    return name


def check_max_requests(text: str | int) -> int:
    return whole(text, "max_requests", 0, MAX_REQUESTS)


def check_period(text: str | int) -> int:
    return whole(text, "period", 1, MAX_PERIOD)


def check_max_concurrent(text: str | int) -> int:
    return whole(text, "max_concurrent", 0, MAX_REQUESTS)


def whole(value: str | int, name: str, least: int, most: int) -> int:
    """The value as int, if it is one in plain ASCII digits and within bounds. Raises Refused."""
    text = str(value)
    if isinstance(value, bool) or not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise Refused(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in their fixed order, `client` if there are none. Raises Refused."""
    asked = set(scopes) or {"client"}
    if not asked <= set(SCOPES):
        raise Refused("scope must be one of " + ", ".join(SCOPES))
    return tuple(scope for scope in SCOPES if scope in asked)


def check_time(text: str, name: str) -> float:
    """An RFC 3339 time with an offset, as seconds since 1970. Raises Refused."""
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise Refused(f"{name} must be a time like 2027-01-31T12:00:00Z") from None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), 6)


def _random_id(random: RandomBytes, length: int) -> str:
    # 16 bytes for at most 8 characters: the bias of the remainder is below 2^-80
    return _base62(int.from_bytes(random(16), "big") % 62**length, length)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
