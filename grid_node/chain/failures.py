"""How often an address failed to authenticate lately. Memory of this process, bounded."""

import ipaddress
import math
import threading
from collections import OrderedDict
from functools import lru_cache

from grid_node.clock import Clock

WINDOW = 60.0
"""Seconds that are counted together, from the first failure on."""
ADDRESSES = 10_000
"""Addresses remembered at most; the one that was silent longest is forgotten first."""


class Failures:
    """Counts failures per address. An IPv6 address stands for its /64 network."""

    def __init__(self, limit: int, clock: Clock, addresses: int = ADDRESSES) -> None:
        self._limit = limit
        self._clock = clock
        self._addresses = addresses
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str) -> int | None:
        """Whole seconds until the address may fail again; None: it may now."""
        if not self._seen:
            return None
        now = self._clock.steady()
        with self._lock:
            since, count = self._seen.get(network(address), (-math.inf, 0))
        left = since + WINDOW - now
        return max(1, math.ceil(left)) if count >= self._limit and left > 0 else None

    def note(self, address: str) -> None:
        """One more failure."""
        now, sender = self._clock.steady(), network(address)
        with self._lock:
            since, count = self._seen.pop(sender, (now, 0))
            self._seen[sender] = (since, count + 1) if now < since + WINDOW else (now, 1)
            if len(self._seen) > self._addresses:
                self._seen.popitem(last=False)


@lru_cache(maxsize=4096)
def network(address: str) -> str:
    """What stands for an address where one sender is counted: IPv4 itself, the /64 network of IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), 64), strict=False))
