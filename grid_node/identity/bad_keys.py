"""How many wrong keys came from an address lately. Memory of this process, bounded."""

import ipaddress
import math
import threading
from collections import OrderedDict, deque

WINDOW = 300.0
"""Seconds for which a wrong key counts."""
ADDRESSES = 10_000
"""Addresses remembered at most; the one that was silent longest is forgotten first."""


class BadKeys:
    """Counts wrong keys per address in a sliding window. An IPv6 address stands for its /64 network."""

    def __init__(self, limit: int, addresses: int = ADDRESSES) -> None:
        self._limit = limit
        self._addresses = addresses
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, address: str, now: float) -> int | None:
        """Note a wrong key. None while the address had at most `limit` before; else whole seconds to wait.

        A key that is answered with a wait is not counted, so that waiting helps.
        """
        with self._lock:
            times = self._times(network_of(address))
            if times and times[-1] > now:  # the clock was set back
                times.extend([min(times.popleft(), now) for _ in range(len(times))])
            while times and times[0] <= now - WINDOW:
                times.popleft()
            if len(times) > self._limit:
                return max(1, math.ceil(times[0] + WINDOW - now))
            times.append(now)
            return None

    def _times(self, network: str) -> deque[float]:
        times = self._seen.setdefault(network, deque())
        self._seen.move_to_end(network)
        if len(self._seen) > self._addresses:
            self._seen.popitem(last=False)
        return times


def network_of(address: str) -> str:
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
