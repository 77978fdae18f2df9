"""API keys: who holds one, what it allows, and every change of them.

Each operation reads the key's row, so a change works at once in every process; a counter that every change bumps
(`epoch`) tells open connections to look again with `in_force`.
"""

import hmac
import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import bindparam, delete, insert, or_, select, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import Forbidden, InvalidKey, MissingKey, TooManyBadKeys
from grid_node.identity import keys
from grid_node.identity.bad_keys import BadKeys
from grid_node.identity.epoch import bump_epoch, read_epoch
from grid_node.identity.keys import RandomBytes
from grid_node.identity.refusal import Refused
from grid_node.identity.tables import ApiKey, Charge
from grid_node.settings import Settings
from grid_node.statements import prepared

T = TypeVar("T")

rows = ApiKey.__table__
charges = Charge.__table__

TOUCH = 60.0
"""Least seconds between two writes of `last_used_at`."""

_BY_HASH = prepared(select(rows).where(rows.c.hash == bindparam("hash")))
_BY_ID = prepared(select(rows).where(rows.c.id == bindparam("id")))
_HELD = prepared(select(rows).where(rows.c.id == bindparam("id")).with_for_update())
_TOUCH = prepared(
    update(rows)
    .where(
        rows.c.id == bindparam("key_id"),
        or_(rows.c.last_used_at.is_(None), rows.c.last_used_at <= bindparam("stale")),
    )
    .values(last_used_at=bindparam("used"))
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks with an API key, and what the key allowed when its row was read."""

    key_id: str
    name: str
    scopes: frozenset[str]
    max_requests: int
    period: int
    """Seconds."""
    max_concurrent: int
    """Unfinished tasks at a time; 0: no limit."""
    expires_at: float | None = None
    last_used_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as the operator sees it. `state` is active, disabled or expired."""

    id: str
    name: str
    max_requests: int
    period: int
    max_concurrent: int
    scopes: tuple[str, ...]
    state: str
    created_at: float
    last_used_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What the operator wants a key to be; numbers may still be text. `check` says whether it can be."""

    key: str = field(repr=False)
    name: str
    max_requests: int | str
    period: int | str
    scopes: Collection[str] = ()
    max_concurrent: int | str = 0
    expires_at: float | None = None

    def check(self) -> dict[str, Any]:
        """The columns of the row, less id and time. Raises Refused."""
        return {
            "hash": keys.digest(keys.check_key(self.key)),
            "name": keys.check_name(self.name),
            "scopes": ",".join(keys.check_scopes(self.scopes)),
            "max_requests": keys.check_max_requests(self.max_requests),
            "period": keys.check_period(self.period),
            "max_concurrent": keys.check_max_concurrent(self.max_concurrent),
            "expires_at": self.expires_at,
        }


class KeyService:
    """Every operation on keys. What an operator asks for and cannot have raises Refused and changes nothing."""

    def __init__(
        self, store: Store, clock: Clock, settings: Settings, random: RandomBytes = secrets.token_bytes
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._bad_keys = BadKeys(settings.public_api_bad_keys)
        self._uses: dict[str, float] = {}
        self._lock = threading.Lock()

    # --- asking ----------------------------------------------------------------------------------------------

    def authenticate(self, key: object, address: str, scope: str | None = None) -> Caller:
        """The holder of `key`, who asks from `address` (the peer's, or the one that a trusted proxy named).

        Raises MissingKey, InvalidKey (unknown, removed, expired, disabled), Forbidden (not the scope), and
        TooManyBadKeys in place of InvalidKey when the address sent too many; a good key is never held up by that.
        """
        if key is None or key == "":
            raise MissingKey()
        now = self._clock.now()
        row = self._row_of(key)
        if row is None or not _in_force(row, now):
            wait = self._bad_keys.count(address, now)
            raise InvalidKey() if wait is None else TooManyBadKeys(retry_after=wait)
        caller = _admitted(row, scope)
        with self._lock:
            self._uses[caller.key_id] = now
        return caller

    def require(self, tx: Transaction, key_id: str, scope: str | None, now: float, *, hold: bool = False) -> Caller:
        """The same holder again, read within the transaction that acts for it. Raises InvalidKey, Forbidden.

        `hold`: nobody else changes the key or counts against it until the transaction ends.
        """
        row = tx.execute(_HELD if hold else _BY_ID, {"id": key_id}).one_or_none()
        if row is None or not _in_force(row, now):
            raise InvalidKey()
        return _admitted(row, scope)

    def touch(self, tx: Transaction, caller: Caller, now: float) -> None:
        """Note the use of a key in a transaction that writes anyway; at most one write a minute."""
        if caller.last_used_at is None or caller.last_used_at <= now - TOUCH:
            tx.execute(_TOUCH, {"key_id": caller.key_id, "used": now, "stale": now - TOUCH})

    def flush_uses(self) -> None:
        """Write the uses that `authenticate` saw; called now and then by the node, never by a request."""
        with self._lock:
            uses, self._uses = self._uses, {}
        if uses:
            self._store.write(partial(self._touch_all, uses=uses))

    def _touch_all(self, tx: Transaction, uses: dict[str, float]) -> None:
        for key_id, used in sorted(uses.items()):
            tx.execute(_TOUCH, {"key_id": key_id, "used": used, "stale": used - TOUCH})

    def epoch(self) -> int:
        """A number that grows with every change of keys, allow-list or blacklist, in whichever process."""
        return self._store.read(read_epoch)

    def in_force(self, key_ids: Collection[str]) -> set[str]:
        """Which of these keys still open the door; expiry included, which no epoch announces."""
        now = self._clock.now()
        wanted = select(rows).where(rows.c.id.in_(list(key_ids)))
        found = self._store.read(lambda tx: tx.execute(wanted).all())
        return {row.id for row in found if _in_force(row, now)}

    def _row_of(self, key: object) -> Any:
        """The row of the key, whatever its state; None for text that is no key at all."""
        if not isinstance(key, str) or not keys.is_key(key):
            return None
        digest = keys.digest(key)
        row = self._store.read(lambda tx: tx.execute(_BY_HASH, {"hash": digest}).one_or_none())
        return row if row is not None and hmac.compare_digest(row.hash, digest) else None

    # --- changing --------------------------------------------------------------------------------------------

    def generate(self) -> str:
        """A new key that is not stored."""
        return keys.generate(self._random)

    def add(self, new: NewKey) -> KeyInfo:
        return self._change(partial(self._add, new=new, values=new.check()))

    def add_all(self, new: Iterable[NewKey]) -> list[KeyInfo]:
        """All of them or none; keys that are there already are passed over. A refusal names the row, from 1."""
        checked = [(one, _of_row(number, one.check)) for number, one in enumerate(new, 1)]
        return self._change(partial(self._add_all, checked=checked))

    def remove(self, key_or_id: str) -> KeyInfo:
        return self._change(partial(self._remove, key_or_id=key_or_id))

    def all_keys(self) -> list[KeyInfo]:
        """All keys, oldest first."""
        now = self._clock.now()
        every = select(rows).order_by(rows.c.created_at, rows.c.id)
        return self._store.read(lambda tx: [_info(row, now) for row in tx.execute(every)])

    def limit(self, key_or_id: str, max_requests: int | str, period: int | str) -> KeyInfo:
        values = {
            "max_requests": keys.check_max_requests(max_requests),
            "period": keys.check_period(period),
        }
        return self._change(partial(self._limit, key_or_id=key_or_id, values=values))

    def disable(self, key_or_id: str) -> KeyInfo:
        return self._change(partial(self._disable, key_or_id=key_or_id))

    def enable(self, key_or_id: str) -> KeyInfo:
        return self._change(partial(self._enable, key_or_id=key_or_id))

    def _change(self, unit: Callable[[Transaction], T]) -> T:
        return self._store.write(partial(self._bumped, unit=unit))

    def _bumped(self, tx: Transaction, unit: Callable[[Transaction], T]) -> T:
        bump_epoch(tx)
        return unit(tx)

    def _add(self, tx: Transaction, new: NewKey, values: dict[str, Any]) -> KeyInfo:
        there = tx.execute(_BY_HASH, {"hash": values["hash"]}).one_or_none()
        if there is not None:
            raise Refused(f"API key already exists: {there.id}")
        now = self._clock.now()
        if new.expires_at is not None and new.expires_at <= now:
            raise Refused("expires is in the past")
        self._check_name_is_free(tx, values["name"], now)
        key_id = self._free_id(tx, keys.own_id(new.key))
        tx.execute(insert(rows), {"id": key_id, "created_at": now, **values})
        return _info(tx.execute(_BY_ID, {"id": key_id}).one(), now)

    def _add_all(self, tx: Transaction, checked: list[tuple[NewKey, dict[str, Any]]]) -> list[KeyInfo]:
        added = []
        for number, (new, values) in enumerate(checked, 1):
            if tx.execute(_BY_HASH, {"hash": values["hash"]}).one_or_none() is None:
                added.append(_of_row(number, partial(self._add, tx, new, values)))
        if not added:
            raise Refused("nothing to add: every API key already exists" if checked else "no API keys found")
        return added

    def _remove(self, tx: Transaction, key_or_id: str) -> KeyInfo:
        row = _found(tx, key_or_id)
        tx.execute(delete(rows).where(rows.c.id == row.id))
        tx.execute(delete(charges).where(charges.c.key_id == row.id))
        return _info(row, self._clock.now())

    def _limit(self, tx: Transaction, key_or_id: str, values: dict[str, int]) -> KeyInfo:
        row = _found(tx, key_or_id)
        if all(getattr(row, name) == value for name, value in values.items()):
            raise Refused("API key already has this limit")
        return self._set(tx, row, values)

    def _disable(self, tx: Transaction, key_or_id: str) -> KeyInfo:
        row = _found(tx, key_or_id)
        if row.disabled_at is not None:
            raise Refused("API key is already disabled")
        return self._set(tx, row, {"disabled_at": self._clock.now()})

    def _enable(self, tx: Transaction, key_or_id: str) -> KeyInfo:
        row = _found(tx, key_or_id)
        if row.disabled_at is None:
            raise Refused("API key is already enabled")
        self._check_name_is_free(tx, row.name, self._clock.now())
        return self._set(tx, row, {"disabled_at": None})

    def _set(self, tx: Transaction, row: Any, values: dict[str, Any]) -> KeyInfo:
        tx.execute(update(rows).where(rows.c.id == row.id).values(**values))
        return _info(tx.execute(_BY_ID, {"id": row.id}).one(), self._clock.now())

    def _check_name_is_free(self, tx: Transaction, name: str, now: float) -> None:
        for row in tx.execute(select(rows).where(rows.c.name == name)):
            if _in_force(row, now):
                raise Refused(f"name is already used by API key {row.id}")

    def _free_id(self, tx: Transaction, wanted: str | None) -> str:
        while wanted is None or tx.execute(_BY_ID, {"id": wanted}).one_or_none() is not None:
            wanted = keys.random_id(self._random)
        return wanted


def _of_row(number: int, step: Callable[[], T]) -> T:
    try:
        return step()
    except Refused as refusal:
        raise Refused(f"row {number}: {refusal}") from None


def _found(tx: Transaction, key_or_id: str) -> Any:
    """The row of a key, named by its id or by itself. Raises Refused."""
    row = None
    if keys.is_key(key_or_id):
        row = tx.execute(_BY_HASH, {"hash": keys.digest(key_or_id)}).one_or_none()
    elif key_or_id.isascii() and key_or_id.isalnum():
        row = tx.execute(_BY_ID, {"id": key_or_id}).one_or_none()
    if row is None:
        raise Refused("API key not found")
    return row


def _in_force(row: Any, now: float) -> bool:
    return row.disabled_at is None and (row.expires_at is None or row.expires_at > now)


def _admitted(row: Any, scope: str | None) -> Caller:
    scopes = frozenset(row.scopes.split(","))
    if scope is not None and scope not in scopes:
        raise Forbidden()
    return Caller(
        key_id=row.id,
        name=row.name,
        scopes=scopes,
        max_requests=row.max_requests,
        period=row.period,
        max_concurrent=row.max_concurrent,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _info(row: Any, now: float) -> KeyInfo:
    state = "active" if _in_force(row, now) else "disabled" if row.disabled_at is not None else "expired"
    return KeyInfo(
        id=row.id,
        name=row.name,
        max_requests=row.max_requests,
        period=row.period,
        max_concurrent=row.max_concurrent,
        scopes=tuple(row.scopes.split(",")),
        state=state,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )
