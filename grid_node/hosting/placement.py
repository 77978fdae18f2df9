"""Shares at other nodes: placing them, and taking them back until it has worked.

A share is noted in `placements` before the first byte of it leaves, so nothing that a crash interrupts is forgotten:
what is still `placing` when its time is over is taken back like what was deleted. A set that could not be placed as a
whole is never tried again under the same name; a request that is repeated makes a new one.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from grid_client.errors import GridError as PeerError
from grid_client.holders import Part, checked_address
from grid_client.shares import share_id
from sqlalchemy import bindparam, delete, insert, select, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import SharePeerNotAllowed, SharePlacementFailed
from grid_node.hosting.tables import Placement
from grid_node.settings import BadSetting
from grid_node.statements import prepared

log = logging.getLogger(__name__)

PLACING, REMOVING = "placing", "removing"
REMOVAL_DAYS = 7
LATE = 3600.0
"""Seconds for which a share may still appear at a holder that gave no clear answer while it was placed."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0
CLAIMED = 300.0
"""Seconds for which a removal belongs to the process that began it."""
SLACK = 300.0
"""Seconds after its deadline at which a placement is taken for lost with its process."""
BATCH = 16

placements: Any = Placement.__table__
_DUE = prepared(
    select(placements).where(placements.c.due_at <= bindparam("now")).order_by(placements.c.due_at).limit(BATCH)
)
_THIS = placements.c.share == bindparam("name")
_CLAIM = prepared(
    update(placements)
    .where(_THIS, placements.c.due_at == bindparam("seen"))
    .values(state=REMOVING, due_at=bindparam("until"), since=bindparam("began"))
)
_LATER = prepared(update(placements).where(_THIS).values(due_at=bindparam("until")))
_DROP = prepared(delete(placements).where(_THIS))


class Holder(Protocol):
    """A peer, as `grid_client.holders.Holder` is one. Raises PeerError."""

    def place(self, part: Part, timeout: float, stop: Callable[[], bool]) -> None: ...

    def remove(self, share_id: str) -> bool:
        """False: it was not there."""

    def __enter__(self) -> "Holder": ...

    def __exit__(self, *_: object) -> None: ...


Peer = Callable[[str, str], Holder]
"""The holder at an address, seen with a key."""


@dataclass(frozen=True)
class Place:
    """Where a share goes: the worker's id, and the address of the node that it is."""

    worker: str
    address: str


def peers_of(setting: str) -> dict[str, str]:
    """Keys by address, from `https://a.example=KEY,https://b.example=KEY`. Raises BadSetting, which shows no key."""
    peers = {}
    for number, entry in enumerate(filter(None, (one.strip() for one in setting.split(","))), 1):
        address, _, key = entry.partition("=")
        try:
            peers[checked_address(address)] = key
        except ValueError as error:
            raise BadSetting(f"GRID_SHARE_PEERS, entry {number}: {error}") from None
        if not key:
            raise BadSetting(
                f"GRID_SHARE_PEERS, entry {number}: the key of this node at that peer is missing (URL=KEY)"
            )
    return peers


class Placing:
    """Puts shares at peers and takes them back. `peer` makes the connection."""

    def __init__(self, store: Store, clock: Clock, peers: Mapping[str, str], peer: Peer) -> None:
        self._store = store
        self._clock = clock
        self._peers = peers
        self._peer = peer

    def check(self, addresses: Sequence[str]) -> None:
        """Raises SharePeerNotAllowed unless the operator named them all."""
        if any(address not in self._peers for address in addresses):
            raise SharePeerNotAllowed()

    def note(self, set_id: str, places: Sequence[Place], timeout: float) -> None:
        """Remember what is about to be placed within `timeout` seconds."""
        now = self._clock.now()
        rows = [
            _row(share_id(set_id, index), place.address, PLACING, now + timeout + SLACK, now)
            for index, place in enumerate(places)
        ]
        self._store.write(lambda tx: tx.execute(insert(placements), rows))

    def place(self, parts: Sequence[Part], places: Sequence[Place], timeout: float) -> None:
        """All at once; returns when every holder has its share. Raises SharePlacementFailed, naming a worker."""
        work = _Together(timeout)
        for part, place in zip(parts, places, strict=True):
            work.begin(place.worker, partial(self._place, part, place, timeout, work.is_over))
        work.end()

    def settled(self, tx: Transaction, set_id: str, count: int) -> None:
        """The set is published: there is nothing to take back. Raises SharePlacementFailed if that has begun."""
        done = delete(placements).where(placements.c.share.in_(_names(set_id, count)), placements.c.state == PLACING)
        if tx.execute(done).rowcount != count:
            raise SharePlacementFailed()

    def take_back(self, set_id: str, count: int) -> None:
        """Remove what was placed, at once where that works, else later."""
        now = self._clock.now()
        names = _names(set_id, count)
        due = {"state": REMOVING, "due_at": now, "since": now}
        self._store.write(lambda tx: tx.execute(update(placements).where(placements.c.share.in_(names)).values(**due)))
        wanted = select(placements).where(placements.c.share.in_(names), placements.c.state == REMOVING)
        for row in self._store.read(lambda tx: tx.execute(wanted).all()):
            self._remove(row)

    def take_back_later(self, tx: Transaction, shares: Sequence[tuple[str, str]]) -> None:
        """Share ids with addresses, of a model that goes in this transaction."""
        now = self._clock.now()
        if shares:
            tx.execute(insert(placements), [_row(name, address, REMOVING, now, now) for name, address in shares])

    def tend(self) -> None:
        """Do what is due; to be called every few seconds, on a loop of its own, because holders may be slow."""
        now = self._clock.now()
        for row in self._store.read(lambda tx: tx.execute(_DUE, {"now": now}).all()):
            self._remove(row)

    def _place(self, part: Part, place: Place, timeout: float, stop: Callable[[], bool]) -> None:
        with self._peer(place.address, self._peers[place.address]) as holder:
            holder.place(part, timeout, stop)

    def _remove(self, row: Any) -> None:
        """One try, by one process."""
        now = self._clock.now()
        since = row.since if row.state == REMOVING else now
        claim = {"name": row.share, "seen": row.due_at, "until": now + CLAIMED, "began": since}
        if self._store.write(lambda tx: tx.execute(_CLAIM, claim).rowcount) != 1:
            return
        waited = now - since
        if self._is_gone(row.share, row.address, waited):
            self._store.write(lambda tx: tx.execute(_DROP, {"name": row.share}))
        else:
            due = now + min(max(waited, FIRST_PAUSE), LONGEST_PAUSE)
            self._store.write(lambda tx: tx.execute(_LATER, {"name": row.share, "until": due}))

    def _is_gone(self, share: str, address: str, waited: float) -> bool:
        """Whether nothing is left to do about the share. One that is not there may still be on its way."""
        try:
            with self._peer(address, self._peers.get(address, "")) as holder:
                return holder.remove(share) or waited >= LATE
        except PeerError as error:
            is_hopeless = waited >= REMOVAL_DAYS * 86400
            log.log(
                logging.ERROR if is_hopeless else logging.INFO, "%s stays at %s for now: %s", share, address, error.code
            )
            return is_hopeless


class _Together:
    """Calls in threads of their own, of which the first failure ends the others."""

    def __init__(self, timeout: float) -> None:
        self._until = time.monotonic() + timeout
        self._over = threading.Event()
        self._failed: list[str] = []
        self._threads: list[tuple[str, threading.Thread]] = []

    def is_over(self) -> bool:
        return self._over.is_set()

    def begin(self, worker: str, call: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._run, args=(worker, call), name=f"grid-share-{worker}", daemon=True)
        self._threads.append((worker, thread))
        thread.start()

    def end(self) -> None:
        """Wait for all. Raises SharePlacementFailed for the first that failed or is too slow."""
        for worker, thread in self._threads:
            thread.join(FIRST_PAUSE if self._failed else max(self._until - time.monotonic(), 0.0))
            if thread.is_alive():
                self._fail(worker)
        if self._failed:
            raise SharePlacementFailed(worker=self._failed[0])

    def _run(self, worker: str, call: Callable[[], None]) -> None:
        try:
            call()
        except PeerError as error:
            log.warning("placing a share at %s failed: %s", worker, error.code)
            self._fail(worker)
        except Exception:
            log.exception("placing a share at %s failed", worker)
            self._fail(worker)

    def _fail(self, worker: str) -> None:
        self._failed.append(worker)
        self._over.set()


def token_digest(token: str) -> str:
    """What a holder keeps of a share's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _names(set_id: str, count: int) -> list[str]:
    return [share_id(set_id, index) for index in range(count)]


def _row(share: str, address: str, state: str, due_at: float, since: float) -> dict[str, Any]:
    return {"share": share, "address": address, "state": state, "due_at": due_at, "since": since}
