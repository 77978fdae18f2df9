"""Where time and ids come in, so that no test sleeps and no test guesses."""

import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NewType, Protocol

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

Seconds = NewType("Seconds", float)
"""A duration in seconds, or a point in time in seconds since 1970-01-01 UTC."""


class Clock(Protocol):
    """The node's idea of now and of a fresh id."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def steady(self) -> float:
        """Seconds of a clock that nobody sets. Only differences mean something: for deadlines within a process."""

    def new_id(self) -> str:
        """A fresh UUID4 in its canonical text form."""


class SystemClock:
    """The machine's clock."""

    def __init__(self, ids: Callable[[], uuid.UUID] = uuid.uuid4) -> None:
        self._ids = ids

    def now(self) -> float:
        return time.time()

    def steady(self) -> float:
        return time.monotonic()

    def new_id(self) -> str:
        return str(self._ids())


class ManualClock(SystemClock):
    """A clock that moves only when told to; for tests and simulations."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        super().__init__()
        self._now = now
        self._steady = 1000.0

    def now(self) -> float:
        return self._now

    def steady(self) -> float:
        return self._steady

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._steady += seconds

    def set_by(self, seconds: float) -> None:
        """As when somebody sets the machine's clock: no time has passed."""
        self._now += seconds


def rfc3339(at: float) -> str:
    """`at` as RFC 3339 in UTC with milliseconds and `Z`."""
    seconds, rest = divmod(int(at * 1000.0 + 0.0005), 1000)
    return f"{_whole_seconds(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _whole_seconds(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def rfc3339_or_none(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def parse_rfc3339(text: str) -> float:
    """Seconds since 1970. An offset or Z is demanded; a naive time raises ValueError like any other nonsense."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except OverflowError as error:
        raise ValueError("year out of range") from error
