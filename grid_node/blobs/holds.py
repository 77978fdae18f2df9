"""Blobs in hand: kept while it is decided what becomes of them, and buried at once when nobody wants them.

A hold is a reference like every other, `hold-<epoch seconds>-<id>`, so the sweep spares what is held. The order that
makes it safe between processes: a blob is stored, then held (committed), then looked for again; who buries it moves
it out of the way first and asks for references after that. Either the second question sees the hold and the blob is
put back, or the look sees that it is gone.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial

from sqlalchemy import select

from grid_node.blobs.references import refer, references, referred, release
from grid_node.blobs.store import Blob, Blobs, Referenced
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import GridError, StoreUnavailable

log = logging.getLogger(__name__)

STALE = 6 * 3600.0
"""Seconds after which a hold is one that a node left behind when it died; no check or placement takes as long."""

_PREFIX = "hold-"
_BEHIND = _PREFIX[:-1] + chr(ord(_PREFIX[-1]) + 1)


class Hold:
    """One blob in hand."""

    def __init__(self, blob: Blob, owner: str) -> None:
        self.blob = blob
        self.owner = owner
        self.is_over = False

    def release(self, tx: Transaction) -> None:
        """Let go in the transaction that makes the lasting reference; saves a transaction of its own."""
        release(tx, [self.owner])
        tx.on_commit(self._end)

    def _end(self) -> None:
        self.is_over = True


class Holds:
    """Everybody who stores a blob that may be refused holds it before the decision."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._others: list[Referenced] = []

    def consult(self, referenced: Referenced) -> None:
        """Somebody whose needs are not in the table of references; asked before a blob is buried."""
        self._others.append(referenced)

    def needed(self, digests: list[str]) -> set[str]:
        """Those of the digests that anybody needs; what the sweep asks for."""
        return referred(self._store, digests).union(*(ask(digests) for ask in self._others))

    @contextlib.contextmanager
    def hold(self, blob: Blob) -> Iterator[Hold]:
        """Keep a blob that was just stored. When the block ends, however it ends, a blob that nothing else refers to
        is buried.

        Raises StoreUnavailable when another sender of the same bytes had them buried first: they must be sent again.
        """
        held = Hold(blob, f"{_PREFIX}{int(self._clock.now())}-{self._clock.new_id()}")
        self._store.write(partial(refer, owner=held.owner, digests=[blob.sha256]))
        try:
            if not self._blobs.confirm(blob.sha256):
                raise StoreUnavailable("These bytes were being removed; send them again", retry_after=1)
            yield held
        finally:
            if not held.is_over:
                self._let_go(held)

    def discard(self, blob: Blob) -> None:
        """Bury a blob that was refused, unless somebody else needs the same bytes."""
        wanted: Callable[[], bool] = lambda: bool(self.needed([blob.sha256]))  # noqa: E731
        if not wanted() and self._blobs.bury(blob.sha256, wanted):
            log.info("discarded %d bytes", blob.size)  # the digest of a secret would confirm a guess

    def expire(self) -> int:
        """Let go of what nodes held that died; returns how many holds that were."""
        edge = self._clock.now() - STALE
        held = self._store.read(_holders)
        stale = [(owner, sha256) for owner, sha256 in held if _since(owner) < edge]
        for owner, sha256 in stale:
            self._let_go(Hold(Blob(sha256, 0), owner))
        return len(stale)

    def _let_go(self, held: Hold) -> None:
        """What cannot be let go of now goes by its age: the outcome of the block is not this hold's business."""
        try:
            self._store.write(held.release)
            self.discard(held.blob)
        except GridError as error:
            log.warning("a blob stays on hold for now: %s", error.code)


def _holders(tx: Transaction) -> list[tuple[str, str]]:
    """Owner and digest of every hold; by range, because LIKE would look at every reference of SQLite's."""
    owner = references.c.owner.collate("C") if tx.is_postgresql else references.c.owner
    found = select(references.c.owner, references.c.sha256).where(owner >= _PREFIX, owner < _BEHIND)
    return [(row.owner, row.sha256) for row in tx.execute(found)]


def _since(owner: str) -> float:
    """Epoch seconds at which a hold began."""
    return float(owner.removeprefix(_PREFIX).split("-", 1)[0])
