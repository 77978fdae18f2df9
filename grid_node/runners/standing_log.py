"""What operators read of workers: who came, who went, who is ready. A line for a change, however often it changes."""

import logging
import threading
from typing import NamedTuple

from grid_node.clock import Clock
from grid_node.runners.health import OFFLINE, UNKNOWN

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two lines about one runner; that it has gone, and its first word once it is here, do not wait."""


class _Said(NamedTuple):
    status: str
    at: float


_NOTHING = _Said(OFFLINE, float("-inf"))


class StandingLog:
    """Of the runners that this process reaches. What it left out, the runner's next word tells."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], _Said] = {}
        self._lock = threading.Lock()

    def note(self, model_id: str, instance: str, status: str) -> None:
        """The runner stands so now."""
        now = self._clock.steady()
        with self._lock:
            before = self._said.get((model_id, instance), _NOTHING)
            waits = status != OFFLINE and before.status != UNKNOWN and now - before.at < EVERY
            if status == before.status or waits:
                return
            if status == OFFLINE:
                self._forget(now)
            self._said[model_id, instance] = _Said(status, now)
        log.info("runner %s of model %s: %s -> %s", instance, model_id, before.status, status)

    def _forget(self, now: float) -> None:
        """Those that went before: owners choose the names of runners, so there is no end of them."""
        for lane, said in list(self._said.items()):
            if said.status == OFFLINE and now - said.at >= EVERY:
                del self._said[lane]
