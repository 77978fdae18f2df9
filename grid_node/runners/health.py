"""What a worker says of itself: the body of Cog's `GET /health-check`, and how much of it is kept."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

UNKNOWN, STARTING, READY, BUSY = "UNKNOWN", "STARTING", "READY", "BUSY"
SETUP_FAILED, DEFUNCT, UNHEALTHY, OFFLINE = "SETUP_FAILED", "DEFUNCT", "UNHEALTHY", "OFFLINE"
WORDS = (READY, BUSY, STARTING, UNKNOWN, UNHEALTHY, SETUP_FAILED, DEFUNCT, OFFLINE)
"""Best first. The last one is the node's own."""
TAKING = frozenset({READY, BUSY})
"""Workers that may be asked: one that is BUSY says itself whether it has room."""
KEPT_BYTES = 16384
"""Of a body; of a larger one only what the node reads is kept."""
_READ = ("status", "version", "concurrency")


class Health(NamedTuple):
    """`text` is the body as JSON; `in_use` how many predictions the worker says it has, None where it does not."""

    status: str
    text: str
    cog_version: str | None
    in_use: int | None


def health_of(body: Any) -> Health:
    """Any body: what is no known word is UNKNOWN."""
    said: Mapping[str, Any] = body if isinstance(body, dict) else {}
    status = said.get("status")
    return Health(
        status if isinstance(status, str) and status in WORDS else UNKNOWN,
        _text(said),
        _cog_version(said.get("version")),
        _in_use(said.get("concurrency")),
    )


NO_ANSWER = Health(OFFLINE, "{}", None, None)


def best(statuses: Iterable[str]) -> str:
    """The most hopeful of them; OFFLINE if there is none."""
    return min(statuses, key=_rank, default=OFFLINE)


def _rank(status: str) -> int:
    return WORDS.index(status) if status in WORDS else len(WORDS)


def _text(said: Mapping[str, Any]) -> str:
    """Without what PostgreSQL's text cannot hold, and without what JSON cannot: such a body is not kept."""
    for body in (said, {name: said[name] for name in _READ if name in said}):
        try:
            text = orjson.dumps(body).decode()
        except (TypeError, ValueError, RecursionError):
            return "{}"
        if len(text) <= KEPT_BYTES:
            return text
    return "{}"


def _cog_version(version: Any) -> str | None:
    found = (version.get("cog") or version.get("coglet")) if isinstance(version, dict) else None
    return found if isinstance(found, str) and found.isascii() and found.isprintable() and len(found) <= 32 else None


def _in_use(concurrency: Any) -> int | None:
    current = concurrency.get("current") if isinstance(concurrency, dict) else None
    return current if type(current) is int and 0 <= current < 10_000 else None
