"""Open files that wait for one use, in this process and for minutes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from grid_node.clock import Clock
from grid_node.errors import NotFound, QueueFull

KEPT = 300.0
"""Seconds after which nobody comes any more."""
KEPT_MAX = 128


class SingleUse:
    """What waits, by name. Values have their files in `file` and `share`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def put(self, named: dict[str, Any]) -> None:
        """Raises QueueFull when too much waits."""
        now = self._clock.now()
        with self._lock:
            for name in [name for name, (until, _) in self._kept.items() if until <= now]:
                _close(self._kept.pop(name)[1])
            if len(self._kept) + len(named) > KEPT_MAX:
                raise QueueFull(retry_after=int(KEPT))
            self._kept.update({name: (now + KEPT, value) for name, value in named.items()})

    def take(self, name: str, is_for: Callable[[Any], bool]) -> Any:
        """The value, once. Raises NotFound, and keeps it, if it is for somebody else."""
        with self._lock:
            until, value = self._kept.get(name, (0.0, None))
            if value is None or until <= self._clock.now() or not is_for(value):
                raise NotFound("There is nothing of this name, or it was used")
            del self._kept[name]
        return value


def _close(value: Any) -> None:
    for name in ("file", "share"):
        with suppress(AttributeError, OSError):
            getattr(value, name).close()
