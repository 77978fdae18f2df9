"""The node as it comes, and in its web process a greenlet that ticks every 2 ms and tells how late it was at most.

Every greenlet is in the same thread: what that computed between two ticks is a gap that no busy machine makes.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from wsgi import app

TICK = 0.002


class Ticking:
    """`longest`: seconds by which a tick came late; `own`: seconds that this thread computed between two ticks."""

    def __init__(self) -> None:
        self.longest = self.own = 0.0
        self.ticks = 0
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            before, own = time.monotonic(), time.thread_time()
            time.sleep(TICK)
            self.longest = max(self.longest, time.monotonic() - before - TICK)
            self.own = max(self.own, time.thread_time() - own)
            self.ticks += 1


ticking = Ticking()


@app.get("/bench/gap")
def longest_gap() -> Any:
    """Milliseconds since the last time this was asked."""
    told = {"gap_ms": 1000 * ticking.longest, "own_ms": 1000 * ticking.own, "ticks": ticking.ticks}
    ticking.longest, ticking.own, ticking.ticks = 0.0, 0.0, 0
    return told
