"""What every store of blobs promises, on each kind."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.store import CHUNK, Blob, Blobs
from grid_node.errors import AssetTooLarge, NotFound
from tests.stores import call

CONTENT = bytes(range(256)) * 4096 + b"tail"
UNKNOWN = "0" * 64


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(blobs: Blobs, digest: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(blobs.open(digest, offset, length))


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=["local", "memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {
        "local": str(tmp_path / "blobs"),
        "memory": f"memory://blobs-{uuid.uuid4().hex}",
        "file": f"file://{tmp_path / 'bucket'}",
    }[request.param]


@pytest.fixture
def blobs(url: str, tmp_path: Path) -> Blobs:
    return make_blobs(url, tmp_path / "cache", call)


@pytest.fixture
def cold(blobs: Blobs, url: str, tmp_path: Path) -> Iterator[Blobs]:
    """The same store seen by a machine that has no local copy of anything."""
    return make_blobs(url, tmp_path / "other-cache", call)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "one byte", "several chunks"])
def test_what_is_put_comes_back_unchanged_under_its_sha256(blobs: Blobs, cold: Blobs, content: bytes) -> None:
    blob = blobs.put(content)
    assert blob == Blob(sha256(content), len(content))
    for reader in (blobs, cold):
        assert read(reader, blob.sha256) == content
        assert reader.size(blob.sha256) == len(content)
        assert reader.path(blob.sha256).read_bytes() == content


def test_a_writer_joins_pieces_of_any_size(blobs: Blobs) -> None:
    with blobs.writer(len(CONTENT)) as writer:
        for start in range(0, len(CONTENT), 7001):
            writer.write(CONTENT[start : start + 7001])
        assert writer.size == len(CONTENT)
        blob = writer.commit()
    assert blob == Blob(sha256(CONTENT), len(CONTENT))
    assert read(blobs, blob.sha256) == CONTENT


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 1), (1, 2), (CHUNK - 1, 2), (CHUNK, None), (5, CHUNK * 2), (len(CONTENT), 9), (10**9, None)],
)
def test_a_part_is_read_by_offset_and_length(blobs: Blobs, cold: Blobs, offset: int, length: int | None) -> None:
    digest = blobs.put(CONTENT).sha256
    end = None if length is None else offset + length
    for reader in (blobs, cold):
        assert read(reader, digest, offset, length) == CONTENT[offset:end]


def test_no_piece_is_larger_than_a_chunk(blobs: Blobs, cold: Blobs) -> None:
    digest = blobs.put(CONTENT).sha256
    for reader in (blobs, cold):
        assert max(len(piece) for piece in reader.open(digest)) <= CHUNK


def test_bytes_above_the_maximum_are_refused_before_they_are_written(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.writer(10) as writer:
        writer.write(b"0123456789")
        with pytest.raises(AssetTooLarge) as refused:
            writer.write(b"!")
        assert writer.size == 10
    assert refused.value.body()["limit"] == 10
    assert files_below(tmp_path) == []


def test_a_writer_that_fails_or_is_not_committed_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    def fail() -> None:
        with blobs.writer(100) as writer:
            writer.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with blobs.writer(100) as writer:
        writer.write(b"half")
    assert files_below(tmp_path) == []
    with pytest.raises(NotFound):
        blobs.size(sha256(b"half"))


@pytest.mark.parametrize("digest", [UNKNOWN, "", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_an_unknown_or_malformed_digest_is_not_found(blobs: Blobs, digest: str) -> None:
    for read_it in (blobs.open, blobs.size, blobs.path):
        with pytest.raises(NotFound):
            read_it(digest)


def test_the_same_bytes_are_stored_once(blobs: Blobs, tmp_path: Path) -> None:
    assert blobs.put(b"twice") == blobs.put(b"twice")
    assert read(blobs, sha256(b"twice")) == b"twice"


def test_a_deleted_blob_is_not_found_and_deleting_it_again_is_no_error(blobs: Blobs) -> None:
    digest = blobs.put(b"gone").sha256
    blobs.delete(digest)
    blobs.delete(digest)
    with pytest.raises(NotFound):
        blobs.open(digest)


def test_adopting_a_file_makes_it_a_blob_and_takes_it_away(blobs: Blobs, cold: Blobs, tmp_path: Path) -> None:
    file = tmp_path / "partial"
    file.write_bytes(CONTENT)
    blob = Blob(sha256(CONTENT), len(CONTENT))
    assert blobs.adopt(file, blob) == blob
    assert not file.exists()
    assert read(cold, blob.sha256) == CONTENT


def test_a_sweep_deletes_old_blobs_that_no_row_names(blobs: Blobs) -> None:
    kept, doomed = blobs.put(b"kept").sha256, blobs.put(b"doomed").sha256
    asked: list[str] = []

    def referenced(digests: list[str]) -> set[str]:
        asked.extend(digests)
        return {kept} & set(digests)

    assert blobs.sweep(referenced, older_than=time.time() + 60) == 1
    assert sorted(asked) == sorted([kept, doomed])
    assert read(blobs, kept) == b"kept"
    with pytest.raises(NotFound):
        blobs.size(doomed)


@pytest.mark.parametrize("url", ["local", "file"], indirect=True)
def test_storing_a_blob_again_renews_its_age(blobs: Blobs, tmp_path: Path) -> None:
    """Also when the file that brings it is old."""
    old = time.time() - 3600
    put, adopted = blobs.put(b"put").sha256, blobs.put(b"adopted").sha256
    for path in files_below(tmp_path):
        os.utime(path, (old, old))
    blobs.put(b"put")
    file = tmp_path / "partial"
    file.write_bytes(b"adopted")
    os.utime(file, (old, old))
    blobs.adopt(file, Blob(adopted, 7))
    assert blobs.sweep(lambda _: set(), older_than=time.time() - 60) == 0
    assert [blobs.size(digest) for digest in (put, adopted)] == [3, 7]


def test_a_sweep_leaves_young_blobs_alone(blobs: Blobs) -> None:
    young = blobs.put(b"young").sha256
    assert blobs.sweep(lambda _: set(), older_than=time.time() - 60) == 0
    assert read(blobs, young) == b"young"


def test_a_sweep_clears_abandoned_writes(tmp_path: Path) -> None:
    blobs = make_blobs(str(tmp_path), tmp_path, call)
    with blobs.writer(10) as writer:
        writer.write(b"cut")
        left = files_below(tmp_path)[0]
        os.link(left, left.with_suffix(".crashed"))
    blobs.sweep(lambda _: set(), older_than=time.time() + 60)
    assert files_below(tmp_path) == []


def test_a_blob_stored_again_during_a_sweep_survives(tmp_path: Path) -> None:
    """The row of the second upload is not committed yet when the sweep asks for references."""
    blobs = make_blobs(str(tmp_path), tmp_path, call)
    digest = blobs.put(b"again").sha256
    bound = time.time() + 1
    later = bound + 60

    def referenced(_: list[str]) -> set[str]:
        blobs.put(b"again")
        os.utime(blobs.path(digest), (later, later))
        return set()

    assert blobs.sweep(referenced, older_than=bound) == 0
    assert read(blobs, digest) == b"again"
    assert len(files_below(tmp_path)) == 1


def test_a_reader_keeps_its_bytes_when_the_blob_is_deleted(tmp_path: Path) -> None:
    blobs = make_blobs(str(tmp_path), tmp_path, call)
    digest = blobs.put(CONTENT).sha256
    pieces = blobs.open(digest)
    first = next(pieces)
    blobs.delete(digest)
    assert first + b"".join(pieces) == CONTENT
