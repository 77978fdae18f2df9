"""Uploads: created, continued where they stopped, checked, handed to what they are for.

Order that makes a crash harmless: row, then partial file; digest into the row, then file into the blob store;
blob, then target, then the outcome. Whatever is found half way is carried on from there.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grid_node.blobs.holds import Holds
from grid_node.blobs.store import Blob, Blobs, Offload
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import (
    BodyIncomplete,
    GridError,
    OffsetMismatch,
    UploadBusy,
    UploadExpired,
    UploadNotFound,
)
from grid_node.uploads import rows
from grid_node.uploads.finishing import SERVER_FAULT, Finishing
from grid_node.uploads.intake import Intake
from grid_node.uploads.partials import Partial, Partials
from grid_node.uploads.rows import UploadRow
from grid_node.uploads.tables import CHECKING, RECEIVING, STORED
from grid_node.uploads.target import Completion, UploadTarget
from grid_node.uploads.tus import Checksum, parse_metadata

log = logging.getLogger(__name__)

REMEMBERED = 86400.0
"""Seconds for which an expired upload answers 410 before it is unknown."""

LOOK = 1.0
"""Seconds for which a look at an upload waits for a check that it found undone."""

Body = Callable[[int], Iterator[bytes]]
"""Opens the body of a PATCH for at most so many bytes; raises UploadTooLarge for more, BodyIncomplete for less."""


def fresh_id() -> str:
    """128 random bits: where uploads are anonymous, the id is what protects them."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Progress:
    """Where an upload stands after a request; `headers` are the target's when this one completed it."""

    row: UploadRow
    offset: int
    headers: Mapping[str, str]

    @property
    def state(self) -> str:
        """An upload whose bytes are all there is `checking`, though its digest may not be known yet."""
        is_whole = self.row.state == RECEIVING and self.offset == self.row.length
        return CHECKING if is_whole else self.row.state


class UploadService:
    """`folder` holds the partial files, on the file system of the blobs so that finishing is a rename.

    Between processes uploads are exclusive by file lock and shared by database and folder. `holds` spares what an
    upload still needs; what a target refuses is discarded at once.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        folder: Path,
        offload: Offload,
        *,
        holds: Holds | None = None,
        new_id: Callable[[], str] = fresh_id,
    ) -> None:
        self._store = store
        self._clock = clock
        self._partials = Partials(folder, offload)
        self._new_id = new_id
        self._intake = Intake(store)
        self._holds = holds or Holds(store, blobs, clock)
        self._holds.consult(self.referenced)
        self._finishing = Finishing(store, blobs, self._holds, clock, self._intake)

    # --- what a client of tus asks for

    def create(self, owner: str, target: UploadTarget, length: int, metadata: str) -> UploadRow:
        """`metadata` is the header. Raises what the target's check raises, RateLimited, QuotaExceeded,
        InvalidPayload."""
        target.check(owner, parse_metadata(metadata), length)
        now = self._clock.now()
        upload_id = self._new_id()
        values = {"id": upload_id, "kind": target.kind, "owner": owner, "length": length}
        values |= {"upload_metadata": metadata, "expires_at": now + target.ttl}
        room = target.room(owner)
        self._store.write(partial(rows.create, values=values, open_max=target.open_max, room=room, now=now))
        return self._row(owner, target, upload_id)

    def find(self, owner: str, target: UploadTarget, upload_id: str) -> Progress:
        """Raises UploadNotFound (also for another's upload) and UploadExpired. Finishes what a crash left."""
        row = self._row(owner, target, upload_id)
        if self._is_whole(row):
            with contextlib.suppress(UploadBusy):
                self._settle(row, target, None if target.patience is None else min(LOOK, target.patience))
        return self._standing(owner, target, upload_id)

    def append(
        self,
        owner: str,
        target: UploadTarget,
        upload_id: str,
        offset: int,
        body: Body,
        checksum: Checksum | None = None,
    ) -> Progress:
        """Add the body at `offset`; the last byte finishes the upload.

        Raises OffsetMismatch, UploadBusy, ChecksumMismatch, UploadTooLarge, BodyIncomplete, StoreFull. Without a
        checksum the bytes that came before an error stay; with one, none of the piece does. A check that takes longer
        than the target's patience goes on after this returns.
        """
        self._row(owner, target, upload_id)
        with contextlib.ExitStack() as held:
            row, file = held.enter_context(self._held(owner, target, upload_id))
            current = file.length if row.state == RECEIVING else row.length
            if offset != current:
                raise OffsetMismatch(offset=current)
            if row.state == RECEIVING:
                self._intake.receive(row, file, body(row.length - offset), checksum)
            done = Completion()
            if self._is_whole(row):
                done = self._finishing.finish_within(held, row, target, file, target.patience)
        return replace(self._standing(owner, target, upload_id), headers=done.headers)

    def terminate(self, owner: str, target: UploadTarget, upload_id: str) -> None:
        self._row(owner, target, upload_id)
        with self._partials.exclusive(upload_id) as file:
            row = self._row(owner, target, upload_id)
            self._store.write(partial(rows.remove, upload_id=upload_id))
            file.remove()
        self._intake.forget(upload_id)
        if row.state == CHECKING and row.sha256 is not None:
            self._holds.discard(Blob(row.sha256, row.length))

    # --- what the node asks for

    def take(self, tx: Transaction, owner: str, upload_id: str, expect: Mapping[str, str] | None = None) -> Blob:
        """The blob of a stored upload, for a row of the same transaction; again as often as it is asked.

        `expect` names metadata that the upload must carry. Raises UploadNotFound, UploadExpired, and
        BodyIncomplete while bytes are missing.
        """
        row = rows.find(tx, upload_id)
        now = self._clock.now()
        if row is None or row.owner != owner or not self._carries(row, expect or {}):
            raise UploadNotFound
        if row.expires_at <= now:
            raise UploadExpired
        if row.state != STORED or row.sha256 is None:
            raise BodyIncomplete("The upload is not complete", state=row.state, length=row.length)
        rows.take(tx, upload_id, now)
        return Blob(row.sha256, row.length)

    def referenced(self, digests: list[str]) -> set[str]:
        """For the sweep of the blobs."""
        return self._store.read(partial(rows.referenced, digests=digests, now=self._clock.now()))

    def recover(self, target: UploadTarget) -> None:
        """Finish what was whole when a node died, or when a fault of ours came between; one after the other, in the
        background where the target's checks take long."""
        found = self._store.read(partial(rows.unfinished, kind=target.kind, now=self._clock.now()))
        whole = [row for row in found if self._is_whole(row)]
        if target.patience is None:
            self._settle_all(whole, target)
        elif whole:
            threading.Thread(target=self._settle_all, args=(whole, target), name="grid-uploads", daemon=True).start()

    def expire(self) -> int:
        """Drop the partial files of uploads that are past their time or gone; returns how many."""
        now = self._clock.now()
        names = self._partials.names()
        live = self._store.read(partial(rows.receiving, upload_ids=names, now=now))
        dropped = [name for name in names if name not in live and self._partials.remove(name)]
        for name in dropped:
            self._intake.forget(name)
        self._store.write(partial(rows.forget, before=now - REMEMBERED))
        return len(dropped)

    # --- finishing

    def _settle_all(self, whole: list[UploadRow], target: UploadTarget) -> None:
        for row in whole:
            try:
                self._settle(row, target, None)
            except GridError as error:
                log.warning("upload %s cannot be finished now: %s", row.id, error.code)
            except Exception:  # the others are not to wait for this one
                log.exception("upload %s cannot be finished", row.id)

    def _settle(self, row: UploadRow, target: UploadTarget, wait: float | None) -> None:
        """Finish a whole upload outside of a PATCH; a refusal of the target is in the row."""
        with contextlib.ExitStack() as held:
            current, file = held.enter_context(self._held(row.owner, target, row.id))
            if self._is_whole(current):
                try:
                    self._finishing.finish_within(held, current, target, file, wait)
                except GridError as error:
                    if error.status >= SERVER_FAULT:
                        raise

    # --- looking

    @contextlib.contextmanager
    def _held(self, owner: str, target: UploadTarget, upload_id: str) -> Iterator[tuple[UploadRow, Partial]]:
        """The row and its file, held against every other writer, unverified bytes cut off."""
        with self._partials.exclusive(upload_id) as file:
            try:
                row = self._row(owner, target, upload_id)
                yield self._cut(row, file), file
            finally:
                if file.length == 0:
                    file.remove()

    def _cut(self, row: UploadRow, file: Partial) -> UploadRow:
        if row.unverified_from is None:
            return row
        file.truncate(row.unverified_from)
        self._store.write(partial(rows.mark_unverified, upload_id=row.id, offset=None))
        return replace(row, unverified_from=None)

    def _standing(self, owner: str, target: UploadTarget, upload_id: str) -> Progress:
        row = self._row(owner, target, upload_id)
        return Progress(row, self._offset(row), {})

    def _row(self, owner: str, target: UploadTarget, upload_id: str) -> UploadRow:
        row = self._store.read(partial(rows.find, upload_id=upload_id))
        if row is None or row.owner != owner or row.kind != target.kind:
            raise UploadNotFound
        if row.expires_at <= self._clock.now():
            raise UploadExpired
        return row

    def _offset(self, row: UploadRow) -> int:
        if row.state != RECEIVING:
            return row.length
        length = self._partials.length(row.id)
        return length if row.unverified_from is None else min(length, row.unverified_from)

    def _is_whole(self, row: UploadRow) -> bool:
        return row.is_open and self._offset(row) == row.length

    @staticmethod
    def _carries(row: UploadRow, expect: Mapping[str, str]) -> bool:
        metadata = parse_metadata(row.upload_metadata)
        return all(metadata.get(name) == value for name, value in expect.items())
