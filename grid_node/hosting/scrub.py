"""The scrub: every stored model is read from time to time and compared with its digest, before somebody needs it.

Each data folder scrubs for itself, one process of it at a time. The place it came to is a small file there, so that a
restart goes on with the round.
"""

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select, union

from grid_node.blobs.store import CHUNK, Blobs
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import ModelCorrupt, NotFound, StoreUnavailable
from grid_node.hosting.integrity import Damages
from grid_node.hosting.tables import ModelVersion

log = logging.getLogger(__name__)

versions: Any = ModelVersion.__table__

SLICE = 16
"""Blobs of one tick."""
PACE = 64 * 1024 * 1024
"""Bytes a second, at most: the disk is there for others too."""


class Scrub:
    """`blobs` is the store itself, not the one that refuses what is known to be damaged. `wait` sleeps for seconds."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        damages: Damages,
        clock: Clock,
        file: Path,
        interval: float,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._damages = damages
        self._clock = clock
        self._file = file
        self._interval = interval
        self._wait = wait

    def tick(self) -> int:
        """The next few blobs of the round, if one is on or due; returns how many were read."""
        with self._place() as place:
            if place is None or not self._begin(place):
                return 0
            digests = self._store.read(partial(_behind, after=place["after"]))
            for sha256 in digests:
                self._try(sha256)
            place["after"] = digests[-1] if len(digests) == SLICE else None
            return len(digests)

    def _try(self, sha256: str) -> None:
        """What cannot be read now is read in the next round; the others do not wait for it."""
        try:
            self.look_at(sha256)
        except StoreUnavailable:
            log.warning("the stored bytes of %s cannot be read now", sha256)

    def look_at(self, sha256: str) -> bool:
        """Whether the bytes are those of the digest; remembers if not, and forgets an older damage if so."""
        if self._is_whole(sha256) or self._is_whole(sha256):  # twice: it may have been stored again meanwhile
            self._damages.heal(sha256)
            return True
        self._damages.record(sha256)
        return False

    def _is_whole(self, sha256: str) -> bool:
        try:
            for piece in self._blobs.open_checked(sha256):
                if len(piece) == CHUNK:
                    self._wait(CHUNK / PACE)
        except (ModelCorrupt, NotFound):
            return False
        return True

    def _begin(self, place: dict[str, Any]) -> bool:
        """`after` is the last digest that was read in this round, null when it is over."""
        if place["after"] is not None:
            return True
        now = self._clock.now()
        if now < place["since"] + self._interval:
            return False
        place.update(since=now, after="")
        return True

    @contextlib.contextmanager
    def _place(self) -> Iterator[dict[str, Any] | None]:
        """Where the round stands, written back at the end; None while another process has it."""
        with self._file.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            place = _read(file)
            yield place
            file.seek(0)
            file.truncate()
            json.dump(place, file)


def _read(file: IO[str]) -> dict[str, Any]:
    """A file that is new, or was cut by a crash, begins a round."""
    file.seek(0)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        place = json.load(file)
        return {"since": float(place["since"]), "after": place["after"]}
    return {"since": 0.0, "after": None}


def _behind(tx: Transaction, after: str) -> list[str]:
    """The next digests that models name."""
    named = union(*(select(column.label("sha256")).where(column > after) for column in _COLUMNS)).subquery()
    return list(tx.execute(select(named.c.sha256).order_by(named.c.sha256).limit(SLICE)).scalars())


_COLUMNS = (versions.c.sha256, versions.c.derived_sha256)
