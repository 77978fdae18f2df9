"""How many requests a key may make: an exact sliding-window log.

In any interval of `period` seconds at most `max_requests` requests are accepted. Every accepted request is a
charge with an ordinal and a time, and times never fall as ordinals rise; so the charges within the window are a run
of ordinals, their number is a difference, and nothing is ever counted row by row.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import bindparam, delete, insert, select, update

from grid_node.database import Transaction
from grid_node.errors import InvalidKey, RateLimited
from grid_node.identity.service import Caller
from grid_node.identity.tables import ApiKey, Charge
from grid_node.statements import prepared

keys = ApiKey.__table__
charges = Charge.__table__

_COLUMNS = (keys.c.charges, keys.c.charged_at, keys.c.max_requests, keys.c.period)
_STATE = prepared(select(*_COLUMNS).where(keys.c.id == bindparam("key_id")))
_LOCKED = prepared(select(*_COLUMNS).where(keys.c.id == bindparam("key_id")).with_for_update())
_COUNT_UP = prepared(
    update(keys)
    .where(keys.c.id == bindparam("key_id"))
    .values(charges=bindparam("ordinal"), charged_at=bindparam("at"))
)
_OLDEST = prepared(
    select(charges.c.ordinal, charges.c.at)
    .where(charges.c.key_id == bindparam("key_id"), charges.c.at > bindparam("edge"))
    .order_by(charges.c.key_id, charges.c.at, charges.c.ordinal)
    .limit(1)
)
_AT = select(charges.c.at).where(charges.c.key_id == bindparam("key_id"), charges.c.ordinal == bindparam("ordinal"))
_CHARGE = prepared(insert(charges))

FUTURE = 1.0
"""Seconds by which an entry may lie ahead without the clock having been set back: what a unit of work waited in its
queue, or what two machines differ by."""

_CHARGED_KEYS = select(keys.c.id, keys.c.period, keys.c.charged_at).where(keys.c.charges > 0)
_CLAMP_CHARGES = (
    update(charges)
    .where(charges.c.key_id == bindparam("key"), charges.c.at > bindparam("now"))
    .values(at=bindparam("now"))
)
_CLAMP_KEY = update(keys).where(keys.c.id == bindparam("key")).values(charged_at=bindparam("now"))
_PURGEABLE = (
    select(charges.c.ordinal)
    .where(charges.c.key_id == bindparam("key_id"), charges.c.at <= bindparam("edge"))
    .order_by(charges.c.key_id, charges.c.at, charges.c.ordinal)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Window:
    """What is left to a key. Seconds are whole and rounded up."""

    limit: int
    remaining: int
    reset_s: int | None
    """Until the next request leaves the window; with nothing remaining, until a request is accepted again.
    0 when the window is empty; None when the key may never create (limit 0)."""
    period: int

    def check(self) -> None:
        """Raises RateLimited when nothing remains."""
        if self.remaining <= 0:
            raise RateLimited(retry_after=self.reset_s)


def headers(window: Window) -> dict[str, str]:
    """The two header fields of draft-ietf-httpapi-ratelimit-headers for this window."""
    reset = window.period if window.reset_s is None else window.reset_s
    return {
        "RateLimit-Policy": f'"key";q={window.limit};w={window.period}',
        "RateLimit": f'"key";r={window.remaining};t={reset}',
    }


class Limiter(Protocol):
    """Counts the accepted requests of a key.

    In any interval of the key's period at most `max_requests` charges succeed, across processes and restarts. A
    charge in a unit of work that fails afterwards either costs nothing (database) or has been the last step of the
    unit (Redis): call `charge` after everything that may refuse. An entry that lies in the future, because the
    clock was set back, counts as made now. The limit in force is the one in the key's row, read in the transaction.
    """

    def charge(self, tx: Transaction, caller: Caller, now: float) -> Window:
        """One more accepted request; a refused one changes nothing. Raises RateLimited(retry_after)."""

    def window(self, tx: Transaction, caller: Caller, now: float) -> Window:
        """What is left, charging nothing."""

    def purge(self, tx: Transaction, now: float) -> int:
        """Forget some of what no window can contain any more; returns how much. Call again while it is not 0.

        Also brings entries of the future to now, so that a clock set back locks a key for one period at most.
        """


class DatabaseLimiter:
    """The log in the node's database. On PostgreSQL the key's row is locked until the transaction ends."""

    PURGE = 5000
    """Most rows that one `purge` deletes, so that no unit is long."""

    def charge(self, tx: Transaction, caller: Caller, now: float) -> Window:
        row = tx.execute(_LOCKED, {"key_id": caller.key_id}).one_or_none()
        if row is None:
            raise InvalidKey()
        before = _window(tx, caller.key_id, row, now)
        before.check()
        # no earlier than the charge before it: requests reach the database out of order by milliseconds, and
        # processes differ by as much
        entry = {"key_id": caller.key_id, "ordinal": row.charges + 1, "at": max(now, row.charged_at)}
        tx.execute(_COUNT_UP, entry)
        tx.execute(_CHARGE, entry)
        return Window(before.limit, before.remaining - 1, before.reset_s or row.period, row.period)

    def window(self, tx: Transaction, caller: Caller, now: float) -> Window:
        row = tx.execute(_STATE, {"key_id": caller.key_id}).one_or_none()
        if row is None:
            raise InvalidKey()
        return _window(tx, caller.key_id, row, now)

    def purge(self, tx: Transaction, now: float) -> int:
        purged = 0
        for row in tx.execute(_CHARGED_KEYS).all():
            if row.charged_at > now + FUTURE:
                tx.execute(_CLAMP_CHARGES, {"key": row.id, "now": now})
                tx.execute(_CLAMP_KEY, {"key": row.id, "now": now})
            purged += self._purge_key(tx, row.id, now - row.period, self.PURGE - purged)
        return purged

    def _purge_key(self, tx: Transaction, key_id: str, edge: float, most: int) -> int:
        found = tx.execute(_PURGEABLE, {"key_id": key_id, "edge": edge, "most": most}).scalars().all()
        if found:
            tx.execute(delete(charges).where(charges.c.key_id == key_id, charges.c.ordinal <= found[-1]))
        return len(found)


def _window(tx: Transaction, key_id: str, row: Any, now: float) -> Window:
    """The window that ends now, of the key with this row."""
    limit, period, newest = row.max_requests, row.period, row.charges
    if limit == 0:
        return Window(0, 0, None, period)
    oldest = tx.execute(_OLDEST, {"key_id": key_id, "edge": now - period}).one_or_none()
    if oldest is None:
        return Window(limit, limit, 0, period)
    remaining = max(0, limit - (newest - oldest.ordinal + 1))
    at = oldest.at
    if not remaining:
        # not the oldest one where the limit was lowered: the one whose leaving makes room
        at = tx.execute(_AT, {"key_id": key_id, "ordinal": newest - limit + 1}).scalar_one()
    return Window(limit, remaining, math.ceil(min(at, now) + period - now), period)
