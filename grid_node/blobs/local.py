"""Blobs in a local folder: `ab/cd/<sha256>`, and `tmp/` for what is not whole yet."""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from grid_node.blobs import disk
from grid_node.blobs.store import CHUNK, Blob, Offload, Referenced, address
from grid_node.errors import AssetTooLarge, NotFound

SWEEP_BATCH = 500
"""Digests that one question to the database carries."""


class LocalBlobs:
    """The default store. Writes are durable: fsync of the file, rename, fsync of the folder."""

    def __init__(self, root: Path, offload: Offload) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._offload = offload
        disk.make_folder(self._tmp, root)

    def writer(self, max_bytes: int) -> "LocalBlobWriter":
        return LocalBlobWriter(self._temporary(), max_bytes, self._offload, self._move)

    def put(self, content: bytes) -> Blob:
        with self.writer(len(content)) as writer:
            writer.write(content)
            return writer.commit()

    def adopt(self, file: Path, blob: Blob) -> Blob:
        with disk.disk_errors():
            try:
                self._offload(self._move, file, blob.sha256)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(file, blob)
        return blob

    def open(self, sha256: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self.path(sha256)
        with disk.disk_errors(), self._missing_is_not_found():
            file = FileIO(path)
        file.seek(offset)
        return self._pieces(file, length)

    def size(self, sha256: str) -> int:
        with disk.disk_errors(), self._missing_is_not_found():
            return (self._root / address(sha256)).stat().st_size

    def path(self, sha256: str) -> Path:
        self.size(sha256)
        return self._root / address(sha256)

    def delete(self, sha256: str) -> None:
        self._offload(disk.remove, self._root / address(sha256))

    def sweep(self, referenced: Referenced, older_than: float) -> int:
        deleted = 0
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            old = self._offload(_older_files, folder, older_than)
            for start in range(0, len(old), SWEEP_BATCH):
                batch = old[start : start + SWEEP_BATCH]
                kept = referenced([path.name for path in batch])
                doomed = [path for path in batch if path.name not in kept]
                deleted += sum(self._offload(self._bury, path, older_than) for path in doomed)
        self._offload(_clear, self._tmp, older_than)
        return deleted

    def _temporary(self) -> Path:
        return self._tmp / uuid.uuid4().hex

    def _move(self, source: Path, sha256: str) -> None:
        disk.move_into(source, self._root / address(sha256), self._root)

    def _copy(self, file: Path, blob: Blob) -> None:
        """The way into the store from another file system."""
        with self.writer(blob.size) as writer:
            for piece in self._pieces(FileIO(file), None):
                writer.write(piece)
            writer.commit()
        self._offload(disk.remove, file)

    def _pieces(self, file: FileIO, length: int | None) -> Iterator[bytes]:
        return _Pieces(file, length, self._offload)

    def _bury(self, path: Path, older_than: float) -> bool:
        """Delete a blob unless it was stored again: first out of the way, then the look at its age.

        The bytes are those of its name, so putting it back over a newer copy loses nothing.
        """
        grave = self._temporary()
        try:
            os.replace(path, grave)
        except FileNotFoundError:
            return False
        if grave.stat().st_mtime >= older_than:
            os.replace(grave, path)
            return False
        grave.unlink(missing_ok=True)
        return True

    @staticmethod
    @contextlib.contextmanager
    def _missing_is_not_found() -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound from error


class LocalBlobWriter:
    """A temporary file with its running sha256; pieces of at least CHUNK bytes go to the disk off the hub."""

    def __init__(self, file: Path, max_bytes: int, offload: Offload, move: Callable[[Path, str], None]) -> None:
        self._size = 0
        self._path = file
        self._max_bytes = max_bytes
        self._offload = offload
        self._move = move
        self._buffer = bytearray()
        self._digest = disk.new_sha256()
        self._committed = False
        with disk.disk_errors():
            self._file = FileIO(file, "xb")

    @property
    def size(self) -> int:
        return self._size

    def write(self, chunk: bytes) -> None:
        if self._size + len(chunk) > self._max_bytes:
            raise AssetTooLarge(limit=self._max_bytes)
        self._size += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= CHUNK:
            self._flush()

    def commit(self) -> Blob:
        self._flush()
        with disk.disk_errors():
            self._offload(self._publish, self._digest.hexdigest())
        self._committed = True
        return Blob(self._digest.hexdigest(), self._size)

    def _publish(self, sha256: str) -> None:
        disk.sync(self._file)
        self._move(self._path, sha256)

    def _flush(self) -> None:
        """In slices, so that one large `write` is no long stop and no long wait for others in the pool."""
        pending, self._buffer = self._buffer, bytearray()
        with disk.disk_errors():
            for start in range(0, len(pending), 4 * CHUNK):
                piece = bytes(memoryview(pending)[start : start + 4 * CHUNK])
                self._offload(disk.append, self._file, piece, self._digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._committed:
            self._offload(disk.remove, self._path)


class _Pieces(Iterator[bytes]):
    """An open file as pieces of at most CHUNK bytes; closes it at the end, on `close`, or when forgotten."""

    def __init__(self, file: FileIO, length: int | None, offload: Offload) -> None:
        self._file = file
        self._left = length
        self._offload = offload

    def __next__(self) -> bytes:
        want = CHUNK if self._left is None else min(CHUNK, self._left)
        piece = b""
        if want > 0 and not self._file.closed:
            with disk.disk_errors():
                piece = self._offload(disk.read_at, self._file, want)
        if not piece:
            self.close()
            raise StopIteration
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


def _older_files(folder: Path, older_than: float) -> list[Path]:
    return [path for path in folder.glob("*/*") if _is_older(path, older_than)]


def _is_older(path: Path, older_than: float) -> bool:
    try:
        return path.stat().st_mtime < older_than
    except FileNotFoundError:
        return False


def _clear(folder: Path, older_than: float) -> None:
    for path in folder.iterdir():
        if _is_older(path, older_than):
            path.unlink(missing_ok=True)
