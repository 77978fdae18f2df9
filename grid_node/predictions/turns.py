"""Long loops that let others run: under eventlet nobody else does while one of them computes."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

TURN = 0.005
"""Seconds of work after which others get their turn."""


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """The same items; between two of them others may run, after each TURN of work."""
    turn_ends = time.perf_counter() + TURN
    for item in items:
        yield item
        if time.perf_counter() > turn_ends:
            time.sleep(0)
            turn_ends = time.perf_counter() + TURN
