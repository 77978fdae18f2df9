"""A file on its way in: counted, looked at and kept off a disk that is nearly full."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from grid_node.blobs.store import Blob, BlobWriter
from grid_node.errors import AssetTooLarge, FileTooLarge, StorageFull, StoreFull
from grid_node.runners.sniffing import HEAD, sniffed_type

LOOK_EVERY = 16 * 1024 * 1024
"""Bytes after which the free space is looked at again."""


class DiskFloor:
    """Keeps `floor` bytes free where `folder` is."""

    def __init__(self, folder: Path, floor: int) -> None:
        self._folder = folder
        self._floor = floor

    def check(self, size: int = 0) -> None:
        """Raises StorageFull when `size` bytes more would leave less."""
        system = os.statvfs(self._folder)
        if system.f_bavail * system.f_frsize - size < self._floor:
            raise StorageFull()


class Incoming:
    """Bytes for a blob. Raises FileTooLarge, StorageFull."""

    def __init__(self, writer: BlobWriter, max_bytes: int, floor: DiskFloor) -> None:
        self._writer = writer
        self._max_bytes = max_bytes
        self._floor = floor
        self._look_at = LOOK_EVERY
        self._head = b""

    @property
    def sniffed(self) -> str | None:
        """Its type by its first bytes."""
        return sniffed_type(self._head)

    def write(self, piece: bytes) -> None:
        if len(self._head) < HEAD:
            self._head += piece[: HEAD - len(self._head)]
        with storage_errors(self._max_bytes):
            self._writer.write(piece)
        if self._writer.size >= self._look_at:
            self._look_at += LOOK_EVERY
            self._floor.check()

    def commit(self) -> Blob:
        """Durable when this returns."""
        with storage_errors(self._max_bytes):
            return self._writer.commit()


@contextlib.contextmanager
def storage_errors(max_bytes: int) -> Iterator[None]:
    """What a store of blobs says, in the words of this API."""
    try:
        yield
    except AssetTooLarge:
        raise FileTooLarge(limit=max_bytes) from None
    except StoreFull as error:
        raise StorageFull(**error.data) from error
