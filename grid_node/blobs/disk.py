"""Durable file operations, each one plain call, so that it can run off the hub."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from grid_node.blobs.store import CHUNK
from grid_node.errors import StoreFull, StoreUnavailable

if TYPE_CHECKING:
    from hashlib import _Hash

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk is StoreFull, a failing one StoreUnavailable; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(retry_after=60) from error
        raise StoreUnavailable(retry_after=5) from error


def append(file: FileIO, data: bytes | bytearray, *digests: "_Hash") -> None:
    """Write all of `data`, however the system cuts it, and add it to the digests."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    for digest in digests:
        digest.update(data)


def start_writing(file: FileIO, start: int, size: int) -> None:
    """Have the system begin to write these bytes out, without a wait: `sync` then finds little left, and commits,
    which share the disk and its journal, do not wait for a whole file. They would, for 400 ms."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_DONTNEED)


def sync(file: FileIO) -> None:
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, root: Path) -> None:
    """`folder` below `root`, with every new name on the way durable."""
    if folder.is_dir():
        return
    if folder != root:
        make_folder(folder.parent, root)
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)


def move_into(source: Path, target: Path, root: Path) -> None:
    """Rename, durably. Raises OSError with EXDEV when the two are on different file systems."""
    make_folder(target.parent, root)
    os.utime(source)
    os.replace(source, target)
    sync_folder(target.parent)


def link(source: Path, target: Path) -> None:
    """A second name for `source`; on a file system without such names, its only one."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.replace(source, target)


def remove(path: Path) -> None:
    """Freeing a large file takes the system milliseconds: not for the hub. One that is gone is no error."""
    path.unlink(missing_ok=True)


def read_at(file: FileIO, size: int, *digests: "_Hash") -> bytes:
    """The next piece of `file`, added to the digests; nothing at the end."""
    piece = file.read(size) or b""
    for digest in digests:
        digest.update(piece)
    return piece


def hash_file(file: FileIO, digest: "_Hash", size: int = CHUNK) -> int:
    """Adds the next piece of `file` to `digest`; returns its length, 0 at the end."""
    return len(read_at(file, size, digest))


def new_sha256() -> "_Hash":
    return hashlib.sha256()
