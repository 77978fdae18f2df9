"""A local folder on bad days: full disk, failing disk, another file system, work off the hub."""

import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grid_node.blobs import disk
from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.store import Blob
from grid_node.errors import NotFound, StoreFull, StoreUnavailable
from tests.stores import call

BIG = b"0" * 300_000


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The system refuses further bytes with EFBIG, as a full disk does with ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_store_full_and_leaves_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, call)
    with files_no_larger_than(100_000), pytest.raises(StoreFull) as full:
        blobs.put(BIG)
    assert full.value.retry_after == 60
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert blobs.put(BIG).size == len(BIG)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EIO, StoreUnavailable),
        (errno.EROFS, StoreUnavailable),
        (errno.ENOENT, FileNotFoundError),
    ],
)
def test_errors_of_the_disk_become_the_houses_own(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected), disk.disk_errors():
        raise OSError(number, os.strerror(number))


def test_a_file_on_another_file_system_is_copied_in(tmp_path: Path) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    file = shared_memory / f"grid-test-{os.getpid()}"
    blobs = LocalBlobs(tmp_path, call)
    try:
        file.write_bytes(BIG)
        blob = Blob(sha256=blobs.put(BIG).sha256, size=len(BIG))
        blobs.delete(blob.sha256)
        blobs.adopt(file, blob)
        assert not file.exists()
    finally:
        file.unlink(missing_ok=True)
    assert b"".join(blobs.open(blob.sha256)) == BIG


def test_every_large_write_and_read_leaves_the_calling_thread(tmp_path: Path) -> None:
    """fsync, hashing, rename and reads are handed to `offload`; the caller only joins bytes."""
    handed: list[str] = []

    def offload(function, *args):
        handed.append(function.__name__)
        result: list[object] = []
        thread = threading.Thread(target=lambda: result.append(function(*args)))
        thread.start()
        thread.join()
        return result[0]

    blobs = LocalBlobs(tmp_path, offload)
    digest = blobs.put(BIG).sha256
    assert handed == ["append", "_publish"]
    assert b"".join(blobs.open(digest)) == BIG
    assert handed[2:] == ["read_at"] * 3


def test_a_closed_reader_gives_nothing_more(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, call)
    pieces = blobs.open(blobs.put(BIG).sha256)
    next(pieces)
    pieces.close()
    assert list(pieces) == []


def test_blobs_lie_at_their_content_address(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, call)
    digest = blobs.put(b"placed").sha256
    assert blobs.path(digest) == tmp_path / digest[:2] / digest[2:4] / digest


def test_a_folder_inside_the_store_is_no_blob(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, call)
    for name in ("tmp", ".", ".."):
        with pytest.raises(NotFound):
            blobs.open(name)
