"""How long a runner is left alone that has full hands: 0.2 s, doubling to 5 s, until something frees it."""

import threading
from typing import NamedTuple

from grid_node.clock import Clock

FIRST, LONGEST = 0.2, 5.0
"""Seconds."""

Lane = tuple[str, str]
"""A model and one of its runners."""


class _Pause(NamedTuple):
    until: float
    length: float
    in_hands: int


class Backoffs:
    """The pauses of this process's runners, on the steady clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pauses: dict[Lane, _Pause] = {}
        self._lock = threading.Lock()

    def busy(self, lane: Lane, in_hands: int) -> None:
        """It takes no more. `in_hands`: predictions that it has; once they are fewer, it may take one."""
        with self._lock:
            before = self._pauses.get(lane)
            length = FIRST if before is None else min(before.length * 2, LONGEST)
            self._pauses[lane] = _Pause(self._clock.steady() + length, length, in_hands)

    def free(self, lane: Lane) -> bool:
        """It may be asked now, and begins at the shortest pause again. Whether it had one."""
        with self._lock:
            return self._pauses.pop(lane, None) is not None

    def rests(self, lane: Lane) -> bool:
        pause = self._pauses.get(lane)
        return pause is not None and pause.until > self._clock.steady()

    def resting(self) -> dict[Lane, int]:
        """What those that rest have in their hands."""
        now = self._clock.steady()
        with self._lock:
            return {lane: pause.in_hands for lane, pause in self._pauses.items() if pause.until > now}

    def next_end(self) -> float:
        """Seconds until the first of them may be asked again; a long time if none rests."""
        now = self._clock.steady()
        with self._lock:
            return min((pause.until - now for pause in self._pauses.values() if pause.until > now), default=LONGEST)

    def forget(self) -> None:
        """Drop what ended long ago: runners come and go."""
        edge = self._clock.steady() - LONGEST
        with self._lock:
            self._pauses = {lane: pause for lane, pause in self._pauses.items() if pause.until > edge}
