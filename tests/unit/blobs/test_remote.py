"""An object store on bad days."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from grid_node.blobs.remote import RemoteBlobs
from grid_node.errors import StoreUnavailable
from tests.stores import call


class LossyStore(MemoryFileSystem):
    """A store that keeps half of what it is given and says nothing."""

    protocol = "lossy"
    store: dict[str, object] = {}  # noqa: RUF012 - the parent's own, kept apart from it
    pseudo_dirs = [""]  # noqa: RUF012

    def put_file(self, lpath: str, rpath: str, **_: object) -> None:
        content = Path(lpath).read_bytes()
        self.pipe_file(rpath, content[: len(content) // 2])


class AwayStore(LossyStore):
    """A store that cannot be reached."""

    protocol = "away"
    error: type[OSError] = ConnectionError

    def size(self, path: str) -> int:
        raise self.error


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    fsspec.register_implementation("lossy", LossyStore, clobber=True)
    fsspec.register_implementation("away", AwayStore, clobber=True)
    yield
    LossyStore.store.clear()


def test_a_put_that_lost_bytes_is_no_blob(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        RemoteBlobs("lossy://bucket", tmp_path, call).put(b"0123456789")


def test_a_store_that_is_away_is_told_with_a_time_to_try_again(tmp_path: Path) -> None:
    blobs = RemoteBlobs("away://bucket", tmp_path, call)
    for ask in (lambda: blobs.size("0" * 64), lambda: blobs.open("0" * 64), lambda: blobs.put(b"x")):
        with pytest.raises(StoreUnavailable) as away:
            ask()
        assert away.value.retry_after == 5


def test_a_damaged_copy_is_never_handed_out_as_a_file(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    digest = RemoteBlobs(f"file://{bucket}", tmp_path / "a", call).put(b"0123456789").sha256
    (bucket / digest[:2] / digest[2:4] / digest).write_bytes(b"9876543210")
    with pytest.raises(StoreUnavailable):
        RemoteBlobs(f"file://{bucket}", tmp_path / "b", call).path(digest)
