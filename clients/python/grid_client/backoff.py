"""Exponential backoff with full jitter (Marc Brooker, "Exponential Backoff and Jitter", 2015)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from grid_client.errors import GridError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Uniform = Callable[[float, float], float]
"""Draws a number between two limits; `random.uniform` unless a test wants to know it beforehand."""


class Backoff:
    """Waits between tries in seconds: uniform(0, min(cap, base * 2**n)), at least what the node asked for."""

    def __init__(self, base: float = 0.5, cap: float = 30.0, uniform: Uniform = random.uniform) -> None:
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._tries = 0

    def next(self, at_least: float | None = None) -> float:
        ceiling = min(self._cap, self._base * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return max(at_least or 0.0, self._uniform(0.0, ceiling))

    def reset(self) -> None:
        self._tries = 0


def is_retryable(error: GridError) -> bool:
    return error.retryable


def retry(
    attempt: Callable[[], Answer],
    deadline: float,
    *,
    backoff: Backoff | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    retryable: Callable[[GridError], bool] = is_retryable,
) -> Answer:
    """Repeats `attempt` while its failures are retryable and the next try would begin before `deadline`."""
    waits = backoff or Backoff()
    while True:
        try:
            return attempt()
        except GridError as error:
            pause = waits.next(error.retry_after)
            if not retryable(error) or clock() + pause >= deadline:
                raise
            log.info("%s; next try in %.1f s", error, pause)
        sleep(pause)
