"""Stored bytes that are no longer those of their digest: remembered, never served, healed by storing them again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import bindparam, delete, select, text

from grid_node.blobs.checked import damaged
from grid_node.blobs.store import CHUNK, Blob, Blobs, BlobWriter, Referenced
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import ModelCorrupt
from grid_node.hosting.tables import DamagedBlob
from grid_node.statements import prepared

log = logging.getLogger(__name__)

damages: Any = DamagedBlob.__table__
_FIND = prepared(select(damages.c.sha256).where(damages.c.sha256 == bindparam("digest")))
_ADD = prepared(text("INSERT INTO damaged_blobs (sha256, found_at) VALUES (:sha256, :found_at) ON CONFLICT DO NOTHING"))
_DROP = delete(damages).where(damages.c.sha256 == bindparam("digest"))


class Damages:
    """Which blobs are known to be damaged, for every process of the grid. `found` is called for each new one."""

    def __init__(self, store: Store, clock: Clock, found: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._found = found

    def is_known(self, sha256: str) -> bool:
        return self._store.read(lambda tx: tx.execute(_FIND, {"digest": sha256}).one_or_none() is not None)

    def check(self, sha256: str) -> None:
        """Raises ModelCorrupt."""
        if self.is_known(sha256):
            raise damaged()

    def record(self, sha256: str) -> None:
        def unit(tx: Transaction) -> bool:
            row = {"sha256": sha256, "found_at": self._clock.now()}
            return bool(tx.execute(_ADD, row).rowcount == 1)

        if self._store.write(unit):
            log.error("the stored bytes of %s are damaged: serve the same model again to heal it", sha256)
            self._found()

    def heal(self, sha256: str) -> None:
        """The bytes are right again."""
        if self.is_known(sha256):
            self._store.write(lambda tx: tx.execute(_DROP, {"digest": sha256}))
            log.warning("the stored bytes of %s are whole again", sha256)


class GuardedBlobs:
    """A store of blobs that gives out no byte of what is known to be damaged, and remembers what it finds to be.

    Reading raises ModelCorrupt beside what the store raises; storing the same bytes again heals.
    """

    def __init__(self, blobs: Blobs, damages: Damages) -> None:
        self._blobs = blobs
        self._damages = damages

    # --- in

    def writer(self, max_bytes: int) -> "_GuardedWriter":
        return _GuardedWriter(self._blobs.writer(max_bytes), self._damages)

    def put(self, content: bytes) -> Blob:
        return self._stored(self._blobs.put(content))

    def adopt(self, file: Path, blob: Blob) -> Blob:
        return self._stored(self._blobs.adopt(file, blob))

    def _stored(self, blob: Blob) -> Blob:
        self._damages.heal(blob.sha256)
        return blob

    # --- out

    def open(self, sha256: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._damages.check(sha256)
        return self._blobs.open(sha256, offset, length)

    def open_checked(self, sha256: str, piece: int = CHUNK) -> Iterator[bytes]:
        self._damages.check(sha256)
        with self._recording(sha256):
            return _Watched(self._blobs.open_checked(sha256, piece), partial(self._recording, sha256))

    def read_checked(self, sha256: str, max_bytes: int) -> bytes:
        self._damages.check(sha256)
        with self._recording(sha256):
            return self._blobs.read_checked(sha256, max_bytes)

    def path(self, sha256: str) -> Path:
        self._damages.check(sha256)
        return self._blobs.path(sha256)

    def size(self, sha256: str) -> int:
        self._damages.check(sha256)
        return self._blobs.size(sha256)

    @contextmanager
    def _recording(self, sha256: str) -> Iterator[None]:
        try:
            yield
        except ModelCorrupt:
            self._damages.record(sha256)
            raise

    # --- away

    def delete(self, sha256: str) -> None:
        self._blobs.delete(sha256)

    def bury(self, sha256: str, wanted: Callable[[], bool]) -> bool:
        return self._blobs.bury(sha256, wanted)

    def confirm(self, sha256: str) -> bool:
        return self._blobs.confirm(sha256)

    def sweep(self, referenced: Referenced, older_than: float) -> int:
        return self._blobs.sweep(referenced, older_than)


class _GuardedWriter:
    """What it commits is whole again."""

    def __init__(self, writer: BlobWriter, damages: Damages) -> None:
        self._writer = writer
        self._damages = damages

    @property
    def size(self) -> int:
        return self._writer.size

    def write(self, chunk: bytes) -> None:
        self._writer.write(chunk)

    def commit(self) -> Blob:
        blob = self._writer.commit()
        self._damages.heal(blob.sha256)
        return blob

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class _Watched(Iterator[bytes]):
    """Pieces on their way out."""

    def __init__(self, pieces: Iterator[bytes], recording: Callable[[], AbstractContextManager[None]]) -> None:
        self._pieces = pieces
        self._recording = recording

    def __next__(self) -> bytes:
        with self._recording():
            return next(self._pieces)

    def close(self) -> None:
        getattr(self._pieces, "close", lambda: None)()
