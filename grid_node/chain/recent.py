"""What is kept ready before anybody asks, and for how long a `recent` answer is good."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from grid_node.chain.pylon import PylonSettings
from grid_node.clock import Clock
from grid_node.errors import ChainError, ChainNotFound

log = logging.getLogger(__name__)

READ_SECONDS = 600.0
"""What was read within this time is kept ready."""
READ_MAX = 64
"""How many of those are kept ready at most, the last read ones."""

Key = tuple[str, int]
"""Kind and netuid."""


class Limits(NamedTuple):
    """Ages of a `recent` answer in blocks."""

    refresh: int
    """From here on it is looked for anew while the old one is told."""
    hard: int
    """Above this it is told no longer."""

    @classmethod
    def of(cls, pylon: PylonSettings) -> "Limits":
        soft = pylon.recent_objects_soft_limit_blocks
        return cls(max(0, soft - pylon.recent_objects_refresh_lead_blocks), pylon.recent_objects_hard_limit_blocks)


class Refresher:
    """Brings answers up to the newest block, in a thread of its own, whenever it is woken.

    `refresh` does it for one key, and does nothing where there is nothing to do. It raises ChainError.
    """

    def __init__(self, clock: Clock, always: Iterable[Key], refresh: Callable[[Key], None]) -> None:
        self._clock = clock
        self._always = tuple(dict.fromkeys(always))
        self._refresh = refresh
        self._read: dict[Key, float] = {}
        self._failed: Counter[Key] = Counter()
        """How often in succession. Who fails goes last, so that the others get their turn."""
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def read(self, key: Key) -> None:
        """Somebody reads this, so it is kept ready for a while."""
        self._read[key] = self._clock.steady()

    def wanted(self) -> list[Key]:
        """What is to be ready: first what always is, then the last read."""
        since = self._clock.steady() - READ_SECONDS
        last = sorted(self._read.copy().items(), key=lambda item: item[1], reverse=True)
        for key, at in last:
            if at < since:
                self._read.pop(key, None)
        read = [key for key, at in last if at >= since and key not in self._always]
        return [*self._always, *read[:READ_MAX]]

    def wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._loop, name="grid-chain-reads", daemon=True)
                self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def round(self) -> None:
        """Refresh everything once. When the chain does not answer, the rest waits for the next time."""
        wanted = self.wanted()
        self._failed = Counter({key: count for key, count in self._failed.items() if key in wanted})
        for key in sorted(wanted, key=lambda key: self._failed[key]):
            try:
                self._refresh(key)
            except ChainNotFound:
                self._read.pop(key, None)
            except ChainError as error:
                log.debug("%s of subnet %d are not refreshed: %s", *key, error.message)
                self._failed[key] += 1
                return
            self._failed.pop(key, None)

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.round()
            except Exception:
                log.exception("answers of the chain were not refreshed")
