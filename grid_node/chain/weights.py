"""Weights as clients put them: a job that is on disk before the answer, and that a later one replaces."""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import orjson
from sqlalchemy import bindparam, delete, insert, or_, select, text, update

from grid_node.chain.epochs import Epoch
from grid_node.chain.identities import Identity
from grid_node.chain.ports import Block
from grid_node.chain.pylon import PylonSettings, block_seconds
from grid_node.chain.weights_tables import (
    CLIENT,
    COMPLETED,
    IS_UNFINISHED,
    SCHEDULED,
    SUPERSEDED,
    UNFINISHED,
    as_text,
    jobs,
    status_body,
    without,
)
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import ChainError, ChainInvalid, ChainNotFound
from grid_node.settings import Settings
from grid_node.statements import prepared

log = logging.getLogger(__name__)

SCHEDULED_TEXT = "weights update scheduled"
WAKE_SECONDS = 10.0
"""Longest wait for the chain's process to hear of new weights; it looks by itself, too."""
LOOKUP_SHARE = 0.9
"""Of the time for an answer: the rest is for storing."""
KEPT_SECONDS = 30 * 86400.0
"""How long a finished job is kept that is not its identity's newest."""

_LOCK_IDENTITY = text("SELECT pg_advisory_xact_lock(hashtext('chain weights ' || :identity))")
_OF = jobs.c.identity == bindparam("of")
_NEWEST = prepared(select(jobs).where(_OF).order_by(jobs.c.number.desc()).limit(1))
_SUPERSEDE = prepared(
    update(jobs)
    .where(_OF, IS_UNFINISHED)
    .values(status=SUPERSEDED, updated_at=bindparam("now"), next_attempt_at=bindparam("now"))
)
"""What was sent of it already is looked for at once."""
_FORGET = prepared(
    delete(jobs).where(_OF, ~IS_UNFINISHED, jobs.c.in_flight.is_(False), jobs.c.created_at < bindparam("before"))
)
_TAKEN = prepared(
    select(jobs.c.number)
    .where(_OF, jobs.c.netuid == bindparam("subnet"))
    .where(
        or_(
            jobs.c.epoch_start == bindparam("epoch"),
            (jobs.c.source == CLIENT) & (jobs.c.put_block >= bindparam("epoch")),
            (jobs.c.source == CLIENT) & IS_UNFINISHED,
        )
    )
    .limit(1)
)


class EpochTaken(Exception):
    """Automatic weights are not wanted: this epoch has some already, or a client's."""


class Reads(Protocol):
    """Of the chain's reads, what weights need."""

    @property
    def head(self) -> Block | None: ...

    @property
    def genesis(self) -> str | None: ...

    def hotkeys(self, netuid: int, timeout: float) -> frozenset[str]: ...


class Link(Protocol):
    """The way to the chain's process."""

    def ask(self, op: str, args: Mapping[str, Any], timeout: float) -> Any: ...


class _Request(NamedTuple):
    """What is put, checked."""

    identity: Identity
    weights: dict[str, float]
    dropped: list[str]
    digest: str
    entries: int
    source: str
    epoch: Epoch | None


def in_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action, name="grid-chain-wake", daemon=True).start()


class Weights:
    """Takes weights in and tells what became of them. `spawn` does something beside the answer."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        pylon: PylonSettings,
        reads: Reads,
        link: Link,
        spawn: Callable[[Callable[[], None]], None] = in_thread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._pylon = pylon
        self._reads = reads
        self._link = link
        self._spawn = spawn
        self._is_waking = False
        self._block_seconds = block_seconds(settings, pylon)

    def put(
        self,
        identity: Identity,
        weights: Mapping[str, float],
        timeout: float,
        *,
        source: str = CLIENT,
        epoch: Epoch | None = None,
    ) -> dict[str, Any]:
        """Store the weights as the identity's newest job, and return Pylon's answer with `job_id` and `dropped`.

        What is unfinished of older jobs is superseded. The newest job put again, while it is unfinished or in the
        epoch in which it was completed, is the same job. A job of source `auto` names its epoch.
        Raises ChainInvalid, ChainNotFound (no such subnet), EpochTaken (source `auto` only) and, when the database is
        away, StoreUnavailable.
        """
        request = self._checked(identity, weights, timeout, source, epoch)
        head = self._reads.head
        number, chain = None if head is None else head.number, self._reads.genesis
        row = self._store.write(lambda tx: self._put(tx, request, number, chain))
        self._wake()
        return {
            "detail": SCHEDULED_TEXT,
            "count": row["count"],
            "job_id": row["id"],
            "dropped": orjson.loads(row["dropped"]),
        }

    def status(self, identity: Identity) -> dict[str, Any]:
        """WeightsStatus of the identity's newest job. Raises ChainNotFound."""
        row = self._store.read(lambda tx: tx.execute(_NEWEST, {"of": identity.name}).one_or_none())
        if row is None:
            raise ChainNotFound(f"No weights job for identity '{identity.name}'.")
        return status_body(row, self._pylon.weights_retry_attempts)

    def is_taken(self, identity: Identity, epoch: Epoch) -> bool:
        """Whether automatic weights have no place in this epoch: it has some, or a client's."""
        return self._store.read(lambda tx: _is_taken(tx, identity, epoch))

    def _checked(
        self, identity: Identity, weights: Mapping[str, float], timeout: float, source: str, epoch: Epoch | None
    ) -> _Request:
        whole = _valid(weights)
        known = self._known(identity.netuid, timeout)
        dropped = [] if known is None else without(whole, known)
        if len(dropped) == len(whole):
            raise _invalid(f"Value error, None of the hotkeys is registered on subnet {identity.netuid}")
        gone = set(dropped)
        kept = {hotkey: weight for hotkey, weight in whole.items() if hotkey not in gone}
        digest = sha256(as_text([identity.netuid, whole]).encode()).hexdigest()
        return _Request(identity, kept, dropped, digest, len(whole), source, epoch)

    def _known(self, netuid: int, timeout: float) -> frozenset[str] | None:
        """Hotkeys of the subnet; None: nobody can say now, the attempt will judge. Raises ChainNotFound."""
        try:
            return self._reads.hotkeys(netuid, min(timeout, self._settings.chain_put_lookup_seconds) * LOOKUP_SHARE)
        except ChainNotFound:
            raise
        except ChainError as error:
            log.info("weights are taken without a look at subnet %d: %s", netuid, error)
            return None

    # --- in one transaction -------------------------------------------------------------------------------------

    def _put(self, tx: Transaction, request: _Request, head: int | None, chain: str | None) -> dict[str, Any]:
        now, name = self._clock.now(), request.identity.name
        if tx.is_postgresql:
            tx.execute(_LOCK_IDENTITY, {"identity": name})
        if request.epoch is not None and _is_taken(tx, request.identity, request.epoch):
            raise EpochTaken
        newest = tx.execute(_NEWEST, {"of": name}).one_or_none()
        is_repeat = newest is not None and newest.digest == request.digest and request.epoch is None
        is_elsewhere = newest is not None and None not in (chain, newest.chain) and newest.chain != chain
        if is_repeat and not is_elsewhere and self._still_counts(newest, now):
            return {"id": newest.id, "count": newest.count, "dropped": newest.dropped}
        tx.execute(_SUPERSEDE, {"of": name, "now": now})
        tx.execute(_FORGET, {"of": name, "before": now - KEPT_SECONDS})
        row = {**self._row(request, now), "put_block": head, "chain": chain}
        tx.execute(insert(jobs), row)
        return row

    def _row(self, request: _Request, now: float) -> dict[str, Any]:
        start, end = request.epoch or (None, None)
        return {
            "id": self._clock.new_id(),
            "identity": request.identity.name,
            "netuid": request.identity.netuid,
            "source": request.source,
            "status": SCHEDULED,
            "weights": as_text(request.weights),
            "digest": request.digest,
            "count": request.entries,
            "dropped": as_text(request.dropped),
            "attempts": 0,
            "created_at": now,
            "updated_at": now,
            "next_attempt_at": now,
            "epoch_start": start,
            "epoch_end": end,
            "in_flight": False,
            "landed": False,
        }

    def _still_counts(self, newest: Any, now: float) -> bool:
        if newest.status in UNFINISHED:
            return True
        if newest.status != COMPLETED or newest.epoch_end is None:
            return False
        return bool(self._block_now(newest, now) < newest.epoch_end)

    def _block_now(self, newest: Any, now: float) -> float:
        """About the number of the chain's head, also while nobody hears of it."""
        head = self._reads.head
        number, since = newest.block_number, newest.updated_at
        if head is not None:
            number, since = head.number, head.timestamp + self._settings.chain_latest_stale_seconds
        return float(number + max(0.0, now - since) / self._block_seconds)

    # --- after it -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self._spawn(self._tell)

    def _tell(self) -> None:
        self._is_waking = False
        try:
            self._link.ask("weights", {}, WAKE_SECONDS)
        except ChainError as error:
            log.info("the chain's process was not told of new weights, and finds them by itself: %s", error)


def _is_taken(tx: Transaction, identity: Identity, epoch: Epoch) -> bool:
    asked = {"of": identity.name, "subnet": identity.netuid, "epoch": epoch.start}
    return tx.execute(_TAKEN, asked).one_or_none() is not None


def _valid(weights: Mapping[str, float]) -> dict[str, float]:
    """Raises ChainInvalid. The faces' schemas say more about values that are no numbers at all.

    A key that UTF-8 cannot say is no hotkey; it is kept as the nearest text that can be stored and told.
    """
    if not weights:
        raise _invalid("Value error, No weights provided")
    wrong = [
        {"message": problem, "key": f"weights.{key}"} for key, value in weights.items() if (problem := _problem(value))
    ]
    if wrong:
        raise ChainInvalid(extra=wrong)
    return {_sayable(hotkey): float(weight) + 0.0 for hotkey, weight in weights.items()}  # -0.0 becomes 0.0


def _sayable(hotkey: str) -> str:
    return hotkey if hotkey.isascii() else hotkey.encode("utf-8", "replace").decode()


def _problem(weight: float) -> str | None:
    if not math.isfinite(weight):
        return "Input should be a finite number"
    return "Input should be greater than or equal to 0" if weight < 0 else None


def _invalid(message: str) -> ChainInvalid:
    return ChainInvalid(extra=[{"message": message, "key": "weights"}])
