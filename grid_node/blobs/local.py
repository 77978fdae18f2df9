"""Blobs in a local folder: `ab/cd/<sha256>`, and `tmp/` for what is not whole yet."""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from grid_node.blobs import disk
from grid_node.blobs.checked import Checked
from grid_node.blobs.store import CHUNK, Blob, Offload, Referenced, address
from grid_node.errors import AssetTooLarge, NotFound

if TYPE_CHECKING:
    from hashlib import _Hash

HELD = 1024
"""Pieces that a writer holds together; very small ones take more memory than their bytes."""
START_WRITING = 4 * 1024 * 1024
"""Bytes that a writer leaves to the system before it has them written out."""
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
        file = self._file(sha256)
        file.seek(offset)
        return _Pieces(file, length, self._offload)

    def open_checked(self, sha256: str, piece: int = CHUNK) -> Iterator[bytes]:
        file, digest = self._file(sha256), disk.new_sha256()
        size = os.fstat(file.fileno()).st_size
        return Checked(_Pieces(file, None, self._offload, digest, piece=piece), digest, size, sha256)

    def read_checked(self, sha256: str, max_bytes: int) -> bytes:
        if self.size(sha256) > max_bytes:
            raise AssetTooLarge(limit=max_bytes)
        return b"".join(self.open_checked(sha256))

    def size(self, sha256: str) -> int:
        with disk.disk_errors(), self._missing_is_not_found():
            return self.path(sha256).stat().st_size

    def path(self, sha256: str) -> Path:
        """One that is being buried at this moment is put back: who asks for it wants it."""
        path = self._root / address(sha256)
        with disk.disk_errors():
            if not path.exists() and not self._confirm(sha256):
                raise NotFound
        return path

    def delete(self, sha256: str) -> None:
        self._offload(disk.remove, self._root / address(sha256))

    def bury(self, sha256: str, wanted: Callable[[], bool]) -> bool:
        path, grave = self._root / address(sha256), self._tmp / f"{sha256}.{uuid.uuid4().hex}"
        is_wanted = True
        with disk.disk_errors():
            try:
                self._offload(os.replace, path, grave)
            except FileNotFoundError:
                return False
            try:
                is_wanted = wanted()
            finally:
                if is_wanted:
                    self._offload(_put_back, grave, path)
                else:
                    self._offload(disk.remove, grave)
        return not is_wanted

    def confirm(self, sha256: str) -> bool:
        return bool(self._offload(self._confirm, sha256))

    def sweep(self, referenced: Referenced, older_than: float) -> int:
        deleted = 0
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            old = self._offload(_older_files, folder, older_than)
            for start in range(0, len(old), SWEEP_BATCH):
                batch = old[start : start + SWEEP_BATCH]
                kept = referenced([path.name for path in batch])
                doomed = [path for path in batch if path.name not in kept]
                deleted += sum(self._offload(self._sweep_away, path, older_than) for path in doomed)
        self._raise(referenced)
        self._offload(_clear, self._tmp, older_than)
        return deleted

    def _file(self, sha256: str) -> FileIO:
        """Opened for reading. Raises NotFound."""
        with disk.disk_errors(), self._missing_is_not_found():
            return FileIO(self.path(sha256))

    def _temporary(self) -> Path:
        return self._tmp / uuid.uuid4().hex

    def _move(self, source: Path, sha256: str) -> None:
        disk.move_into(source, self._root / address(sha256), self._root)

    def _copy(self, file: Path, blob: Blob) -> None:
        """The way into the store from another file system."""
        with self.writer(blob.size) as writer:
            for piece in _Pieces(FileIO(file), None, self._offload):
                writer.write(piece)
            writer.commit()
        self._offload(disk.remove, file)

    def _confirm(self, sha256: str) -> bool:
        path = self._root / address(sha256)
        graves = [] if path.exists() else list(self._tmp.glob(f"{sha256}.*"))
        for grave in graves:
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                os.link(grave, path)
        return path.exists()

    def _raise(self, referenced: Referenced) -> None:
        """Put back what a process was burying when it died, if somebody wants it."""
        graves = [(name.name.partition(".")[0], name) for name in self._tmp.glob(f"{'[0-9a-f]' * 64}.*")]
        wanted = referenced([sha256 for sha256, _ in graves]) if graves else set()
        for sha256, grave in graves:
            if sha256 in wanted:
                self._offload(_put_back, grave, self._root / address(sha256))

    def _sweep_away(self, path: Path, older_than: float) -> bool:
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
        self._held: list[bytes] = []
        self._held_size = 0
        self._started = 0
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
        self._held.append(chunk)
        self._held_size += len(chunk)
        if self._held_size >= CHUNK or len(self._held) >= HELD:
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
        pending = b"".join(self._held)
        self._held, self._held_size = [], 0
        with disk.disk_errors():
            for start in range(0, len(pending), 4 * CHUNK):
                piece = pending[start : start + 4 * CHUNK]
                self._offload(disk.append, self._file, piece, self._digest)
            if self._size - self._started >= START_WRITING:
                self._offload(disk.start_writing, self._file, self._started, self._size - self._started)
                self._started = self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._committed:
            self._offload(disk.remove, self._path)


class _Pieces(Iterator[bytes]):
    """An open file as pieces of at most `piece` bytes; closes it at the end, on `close`, or when forgotten.

    Each piece is added to the digests in the same call that reads it.
    """

    def __init__(
        self, file: FileIO, length: int | None, offload: Offload, *digests: "_Hash", piece: int = CHUNK
    ) -> None:
        self._file = file
        self._piece = piece
        self._left = length
        self._offload = offload
        self._digests = digests

    def __next__(self) -> bytes:
        want = self._piece if self._left is None else min(self._piece, self._left)
        piece = b""
        if want > 0 and not self._file.closed:
            with disk.disk_errors():
                piece = self._offload(disk.read_at, self._file, want, *self._digests)
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


def _put_back(grave: Path, path: Path) -> None:
    """The two may be names of one file by now, which a rename would leave alone; the grave may be gone."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(grave, path)
    grave.unlink(missing_ok=True)


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
