"""How far a transfer is, as one line of text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 30
EVERY = 0.1
"""Seconds between two drawings."""
MB = 1e6


class ProgressBar:
    """Draws itself over and over on one line; give it as `progress`. Silent where nobody looks (no terminal)."""

    def __init__(
        self,
        label: str,
        stream: TextIO | None = None,
        *,
        always: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._drawn = always or self._stream.isatty()
        self._clock = clock
        self._begun = clock()
        self._next = 0.0
        self._ended = False

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if not self._drawn or self._ended or (now < self._next and done < total):
            return
        self._next = now + EVERY
        self._ended = done >= total
        speed = done / MB / max(now - self._begun, 1e-6)
        self._stream.write(f"\r{self._label} {bar(done, total)} {done / MB:.1f}/{total / MB:.1f} MB {speed:.1f} MB/s")
        self._stream.write("\n" if self._ended else "")
        self._stream.flush()


def bar(done: int, total: int) -> str:
    share = done / total if total else 1.0
    full = int(WIDTH * share)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {100 * share:3.0f} %"
