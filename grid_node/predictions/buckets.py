"""How many new predictions a miner may send: a token bucket each, in the memory of the one process that takes them."""

from collections import OrderedDict

KEPT = 16384
"""Buckets kept; the one that was used longest ago goes first, and comes back full."""


class Buckets:
    """`rate` tokens a second for everybody, at most `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float) -> float | None:
        """Take a token; None if there was one, else the seconds until there is."""
        tokens, at = self._filled.pop(name, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate)
        wait = None if tokens >= 1.0 else (1.0 - tokens) / self._rate
        self._filled[name] = (tokens - 1.0 if wait is None else tokens, now)
        if len(self._filled) > KEPT:
            self._filled.popitem(last=False)
        return wait
