"""Where time comes into a long-lived client, so that its tests move a clock instead of sleeping."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970-01-01 UTC, as the machine believes."""
        ...

    def steady(self) -> float:
        """Seconds since some moment; never set back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def steady(self) -> float:
        return time.monotonic()


def utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def rfc3339(at: float) -> str:
    """`at` in UTC with milliseconds and `Z`."""
    return utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(moment: object) -> float | None:
    """An RFC 3339 text with an offset as seconds since 1970; None for everything else."""
    if not isinstance(moment, str):
        return None
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return None if read.tzinfo is None else read.timestamp()
