"""The limiter over Redis, for several nodes that share keys: the moving window of `limits`, with our clock.

`limits` takes the time from the machine and calls a request too early that comes exactly one period after the
oldest; its two scripts are therefore replaced. Connection, prefix and key names are its own.
"""

import math

from limits.storage import RedisStorage
from redis.exceptions import RedisError

from grid_node.database import Transaction
from grid_node.errors import StoreUnavailable
from grid_node.identity.limits import FUTURE, Limiter, Window
from grid_node.identity.service import Caller

_TIMEOUT = 2.0
"""Seconds that a charge waits for Redis."""

# KEYS[1]: list of times, newest first. Where the clock was set back, entries of the future become now, here for
# good, because this script is not undone when it refuses. Returns {accepted, entries in the window, time of the
# entry that leaves next, or of the one whose leaving makes room when nothing remains}.
_SCRIPT = """
local now, limit, period, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function at(index)
    local entry = redis.call('lindex', KEYS[1], index)
    return entry and tonumber(entry)
end
local index = 0
while at(index) and at(index) > now + tonumber(ARGV[5]) do
    redis.call('lset', KEYS[1], index, ARGV[1])
    index = index + 1
end
local stamp = ARGV[1]
if at(0) and at(0) > now then stamp = redis.call('lindex', KEYS[1], 0) end
local low, high = 0, redis.call('llen', KEYS[1])
while low < high do
    local middle = math.floor((low + high) / 2)
    if at(middle) > now - period then low = middle + 1 else high = middle end
end
local accepted = 0
if low + cost <= limit and cost > 0 then
    redis.call('lpush', KEYS[1], stamp)
    redis.call('ltrim', KEYS[1], 0, limit - 1)
    redis.call('expire', KEYS[1], period)
    accepted, low = 1, low + 1
end
local edge = false
if low >= limit then edge = at(limit - 1) elseif low > 0 then edge = at(low - 1) end
return {accepted, low, edge and string.format('%.17g', edge) or ''}
"""


class _ClockedRedis(RedisStorage):
    """Redis as `limits` uses it, with the time as an argument."""

    STORAGE_SCHEME = ["grid-clocked-redis"]  # noqa: RUF012  (as the base class declares it)

    def initialize_storage(self, uri: str) -> None:
        super().initialize_storage(uri)
        self._script = self.get_connection().register_script(_SCRIPT.encode())

    def hit(self, key: str, limit: int, period: int, now: float, cost: int) -> tuple[bool, int, float | None]:
        """Whether `cost` (0 or 1) was taken, the entries in the window, and the one that the caller waits for."""
        accepted, used, edge = self._script([self.prefixed_key(key)], [repr(now), limit, period, cost, FUTURE])
        return bool(accepted), used, float(edge) if edge else None


class RedisLimiter(Limiter):
    """Charges live in Redis and are as durable as it is. The limit is that of the caller's row."""

    def __init__(self, url: str, prefix: str = "grid") -> None:
        self._redis = _ClockedRedis(url, key_prefix=prefix, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)

    def charge(self, tx: Transaction, caller: Caller, now: float) -> Window:
        accepted, window = self._hit(caller, now, 1)
        if not accepted:
            window.check()
        return window

    def window(self, tx: Transaction, caller: Caller, now: float) -> Window:
        return self._hit(caller, now, 0)[1]

    def purge(self, tx: Transaction, now: float) -> int:
        """Nothing to do: the scripts trim and Redis expires."""
        return 0

    def close(self) -> None:
        self._redis.storage.close()

    def _hit(self, caller: Caller, now: float, cost: int) -> tuple[bool, Window]:
        limit, period = caller.max_requests, caller.period
        if limit == 0:
            return False, Window(0, 0, None, period)
        key = f"LIMITS/{caller.key_id}"
        try:
            accepted, used, edge = self._redis.hit(key, limit, period, now, cost)
        except RedisError as error:
            raise StoreUnavailable(retry_after=1) from error
        reset = 0 if edge is None else math.ceil(min(edge, now) + period - now)
        return accepted, Window(limit, max(0, limit - used), reset, period)
