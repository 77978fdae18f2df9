"""What the chain's process measures, kept until the web process takes it: the one registry of metrics is there."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NONE = "N/A"
"""A label without a value, as Pylon writes it."""
KEPT = 20_000
"""Samples that wait at most; the oldest go first when nobody takes them."""


class Samples:
    """Collected by any thread, taken by one. Each sample is a list that JSON can carry; durations are in seconds."""

    def __init__(self, steady: Callable[[], float] = time.monotonic, kept: int = KEPT) -> None:
        self._steady = steady
        self._kept: deque[list[Any]] = deque(maxlen=kept)
        self._lock = threading.Lock()

    @contextmanager
    def operation(
        self, operation: str, uri: str, netuid: int | None = None, hotkey: str | None = None
    ) -> Iterator[None]:
        """Time one operation of the chain; whatever it raises makes it an error, and goes on."""
        begun, status = self._steady(), "error"
        try:
            yield
            status = "success"
        finally:
            self._add("operation", operation, status, uri, _label(netuid), _label(hotkey), self._steady() - begun)

    def fallback(self, reason: str, operation: str, hotkey: str | None = None) -> None:
        """The archive was asked; `reason` is `stale_block` or `unknown_block`."""
        self._add("fallback", reason, operation, _label(hotkey))

    def job(self, status: str, netuid: int, hotkey: str | None, seconds: float) -> None:
        """A weights job came to its end."""
        self._add("job", status, netuid, _label(hotkey), seconds)

    def attempt(self, status: str, netuid: int, hotkey: str | None, seconds: float) -> None:
        """One attempt of a weights job came to its end."""
        self._add("attempt", status, netuid, _label(hotkey), seconds)

    def drain(self, most: int = KEPT) -> list[list[Any]]:
        """What came since the last call, oldest first; the rest of more than `most` the next time."""
        with self._lock:
            return [self._kept.popleft() for _ in range(min(most, len(self._kept)))]

    def _add(self, *sample: Any) -> None:
        with self._lock:
            self._kept.append(list(sample))


def _label(value: Any) -> Any:
    return NONE if value is None else value
