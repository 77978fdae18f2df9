"""Which hotkeys may come in: the port to whoever knows, and the allow-list that answers while no chain does."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from sqlalchemy import bindparam, delete, insert, select

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import Blacklisted, ChainUnavailable, NotRegistered, StoreUnavailable
from grid_node.identity.epoch import bump_epoch
from grid_node.identity.hotkeys import encode_hotkey
from grid_node.identity.refusal import Refused
from grid_node.identity.tables import AllowedMiner, BlacklistedMiner
from grid_node.statements import prepared

allowed = AllowedMiner.__table__
blacklisted = BlacklistedMiner.__table__

RETRY_UNREGISTERED = 3600
"""Seconds after which an unregistered hotkey may ask again."""

_ALLOWED = prepared(select(allowed.c.public_key).where(allowed.c.public_key == bindparam("key")))
_BLACKLISTED = prepared(select(blacklisted).where(blacklisted.c.public_key == bindparam("key")))


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a hotkey now."""

    registered: bool
    blacklisted: bool
    strong: bool | None
    """None: not known here, so the worker's own scores decide."""
    uid: int | None


class Metagraph(Protocol):
    """Knows the registered hotkeys."""

    def standing(self, public_key: bytes) -> Standing:
        """The standing of a hotkey now. Raises ChainUnavailable when that cannot be said."""


def admit(metagraph: Metagraph, public_key: bytes) -> Standing:
    """The standing of a hotkey that may come in. Raises NotRegistered, Blacklisted, ChainUnavailable."""
    standing = metagraph.standing(public_key)
    if not standing.registered:
        raise NotRegistered(retry_after=RETRY_UNREGISTERED)
    if standing.blacklisted:
        raise Blacklisted()
    return standing


@dataclass(frozen=True, slots=True)
class BlacklistEntry:
    hotkey: str
    reason: str
    until: float | None


class AllowList:
    """The Metagraph of a private grid: registered is who is on the list. Every change bumps the key epoch."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def standing(self, public_key: bytes) -> Standing:
        try:
            return self._store.read(partial(self._standing, key=public_key.hex()))
        except StoreUnavailable as error:
            raise ChainUnavailable(retry_after=error.retry_after) from error

    def _standing(self, tx: Transaction, key: str) -> Standing:
        registered = tx.execute(_ALLOWED, {"key": key}).one_or_none() is not None
        entry = tx.execute(_BLACKLISTED, {"key": key}).one_or_none()
        refused = entry is not None and _lasts(entry, self._clock.now())
        return Standing(registered=registered, blacklisted=refused, strong=None, uid=None)

    def allow(self, public_key: bytes) -> None:
        """Raises Refused when it is on the list."""
        self._store.write(partial(self._allow, key=public_key.hex()))

    def _allow(self, tx: Transaction, key: str) -> None:
        bump_epoch(tx)
        if tx.execute(_ALLOWED, {"key": key}).one_or_none() is not None:
            raise Refused("hotkey is already allowed")
        tx.execute(insert(allowed), {"public_key": key, "added_at": self._clock.now()})

    def disallow(self, public_key: bytes) -> None:
        """Raises Refused when it is not on the list."""
        self._store.write(partial(self._disallow, key=public_key.hex()))

    def _disallow(self, tx: Transaction, key: str) -> None:
        bump_epoch(tx)
        if not tx.execute(delete(allowed).where(allowed.c.public_key == key)).rowcount:
            raise Refused("hotkey is not allowed")

    def allowed(self) -> list[str]:
        """SS58 of all on the list, oldest first."""
        every = select(allowed.c.public_key).order_by(allowed.c.added_at, allowed.c.public_key)
        keys = self._store.read(lambda tx: tx.execute(every).scalars().all())
        return [encode_hotkey(bytes.fromhex(key)) for key in keys]

    def blacklist(self, public_key: bytes, reason: str = "", until: float | None = None) -> None:
        """Refuse this hotkey, allowed or not. Raises Refused when it is refused already, or no sense is in it."""
        if len(reason) > 200 or not (reason.isprintable() and "|" not in reason):
            raise Refused("reason must be at most 200 characters without | and control characters")
        if until is not None and until <= self._clock.now():
            raise Refused("until is in the past")
        self._store.write(partial(self._blacklist, key=public_key.hex(), reason=reason, until=until))

    def _blacklist(self, tx: Transaction, key: str, reason: str, until: float | None) -> None:
        bump_epoch(tx)
        now = self._clock.now()
        entry = tx.execute(_BLACKLISTED, {"key": key}).one_or_none()
        if entry is not None and _lasts(entry, now):
            raise Refused("hotkey is already blacklisted")
        tx.execute(delete(blacklisted).where(blacklisted.c.public_key == key))
        values = {"public_key": key, "reason": reason, "until": until, "added_at": now}
        tx.execute(insert(blacklisted), values)

    def pardon(self, public_key: bytes) -> None:
        """Raises Refused when it is not blacklisted."""
        self._store.write(partial(self._pardon, key=public_key.hex()))

    def _pardon(self, tx: Transaction, key: str) -> None:
        bump_epoch(tx)
        if not tx.execute(delete(blacklisted).where(blacklisted.c.public_key == key)).rowcount:
            raise Refused("hotkey is not blacklisted")

    def blacklisted(self) -> list[BlacklistEntry]:
        """All entries in force, oldest first."""
        now = self._clock.now()
        every = select(blacklisted).order_by(blacklisted.c.added_at, blacklisted.c.public_key)
        rows = self._store.read(lambda tx: tx.execute(every).all())
        return [
            BlacklistEntry(encode_hotkey(bytes.fromhex(row.public_key)), row.reason, row.until)
            for row in rows
            if _lasts(row, now)
        ]


def _lasts(entry: Any, now: float) -> bool:
    return entry.until is None or entry.until > now


class LastKnown:
    """A Metagraph that falls back on what another one said last, while that is not too old."""

    KEPT = 8192

    def __init__(self, metagraph: Metagraph, clock: Clock, max_age: float) -> None:
        self._metagraph = metagraph
        self._clock = clock
        self._max_age = max_age
        self._known: OrderedDict[bytes, tuple[float, Standing]] = OrderedDict()

    def standing(self, public_key: bytes) -> Standing:
        now = self._clock.now()
        try:
            standing = self._metagraph.standing(public_key)
        except ChainUnavailable:
            at, known = self._known.get(public_key, (-math.inf, None))
            if known is None or now - at > self._max_age:
                raise
            return known
        self._known.pop(public_key, None)
        self._known[public_key] = (now, standing)
        if len(self._known) > self.KEPT:
            self._known.popitem(last=False)
        return standing
