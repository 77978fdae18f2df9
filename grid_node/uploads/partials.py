"""Partial files: what has come in of each upload. Their length is the offset, also after a crash."""

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from grid_node.blobs import disk
from grid_node.blobs.store import CHUNK, Blob, Blobs, Offload
from grid_node.errors import UploadBusy, UploadNotFound

if TYPE_CHECKING:
    from hashlib import _Hash

_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


class Partial:
    """One partial file, held exclusively."""

    def __init__(self, file: FileIO, path: Path, offload: Offload) -> None:
        self._file = file
        self._path = path
        self._offload = offload
        self.length = os.fstat(file.fileno()).st_size
        self._is_new = self.length == 0

    def append(self, data: bytes, *digests: "_Hash") -> None:
        """Raises StoreFull; the file then has the length it had before."""
        try:
            with disk.disk_errors():
                self._offload(disk.append, self._file, data, *digests)
        except BaseException:
            self.truncate(self.length)
            raise
        self.length += len(data)

    def truncate(self, length: int) -> None:
        if length < os.fstat(self._file.fileno()).st_size:
            with disk.disk_errors():
                self._offload(self._file.truncate, length)
        self.length = min(self.length, length)
        self._file.seek(self.length)

    def sync(self) -> None:
        """What was appended survives a loss of power when this returns."""
        with disk.disk_errors():
            self._offload(disk.sync, self._file)
            if self._is_new:
                self._offload(disk.sync_folder, self._path.parent)

    def hash_into(self, digest: "_Hash") -> None:
        """Adds the whole file to `digest`, off the hub, a slice at a time."""
        with disk.disk_errors(), FileIO(self._path) as file:
            while self._offload(disk.hash_file, file, digest, 4 * CHUNK):
                pass

    def remove(self) -> None:
        self._offload(disk.remove, self._second)
        self._offload(disk.remove, self._path)

    def become(self, blob: Blob, blobs: Blobs) -> None:
        """The bytes go to the blob store under a second name; the first stays until `remove`, and with it the lock."""
        with disk.disk_errors():
            self._offload(disk.link, self._path, self._second)
        try:
            blobs.adopt(self._second, blob)
        finally:
            self._offload(disk.remove, self._second)

    @property
    def _second(self) -> Path:
        return self._path.with_name(f"{self._path.name}.whole")


class Partials:
    """A folder of partial files.

    The lock is the file's own (flock): it holds between processes, and the system drops it when a process dies.
    """

    def __init__(self, folder: Path, offload: Offload) -> None:
        self._folder = folder
        self._offload = offload
        disk.make_folder(folder, folder.parent)

    def length(self, upload_id: str) -> int:
        """0 when there is no file."""
        try:
            return self._path(upload_id).stat().st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def exclusive(self, upload_id: str) -> Iterator[Partial]:
        """The file for one writer, positioned at its end; made anew if it is gone. Raises UploadBusy."""
        path = self._path(upload_id)
        with disk.disk_errors():
            opened = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        with opened as file:
            self._lock(file, path)
            file.seek(0, os.SEEK_END)
            yield Partial(file, path, self._offload)

    def remove(self, upload_id: str) -> bool:
        """False when somebody still writes to it."""
        try:
            with self.exclusive(upload_id) as partial:
                partial.remove()
        except UploadBusy:
            return False
        return True

    def names(self) -> list[str]:
        """Ids that have a file; what else lies in the folder is not ours."""
        return sorted(entry.name for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name))

    @staticmethod
    def _lock(file: FileIO, path: Path) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError) as error:
            raise UploadBusy(retry_after=1) from error
        if not same:
            raise UploadBusy(retry_after=1)

    def _path(self, upload_id: str) -> Path:
        if not _NAME.fullmatch(upload_id):
            raise UploadNotFound
        return self._folder / upload_id
