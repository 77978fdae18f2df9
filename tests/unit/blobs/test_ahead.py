"""Reading ahead changes neither the bytes nor what goes wrong, and leaves no thread behind."""

import os
import threading
from collections.abc import Iterator

import pytest

from grid_node.blobs import ahead
from grid_node.blobs.ahead import LANES, LARGE, ReadAhead, read_whole
from grid_node.blobs.local import LocalBlobs
from grid_node.errors import ModelCorrupt, NotFound

WAIT = 10.0
CONTENT = os.urandom(3 * LARGE + 17)


class Source(Iterator[bytes]):
    """Gives out `pieces`, then raises `broken` or ends; tells when it was closed and how far it was read."""

    def __init__(self, pieces: list[bytes], broken: Exception | None = None) -> None:
        self._pieces = iter(pieces)
        self._broken = broken
        self.read = 0
        self.closed = threading.Event()

    def __next__(self) -> bytes:
        for piece in self._pieces:
            self.read += 1
            return piece
        if self._broken is not None:
            raise self._broken
        raise StopIteration

    def close(self) -> None:
        self.closed.set()


class Done:
    def __init__(self) -> None:
        self.times = 0
        self.event = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        self.event.set()


@pytest.fixture
def done() -> Done:
    return Done()


@pytest.fixture
def blobs(tmp_path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", lambda function, *args: function(*args))


def free_lanes() -> int:
    return ahead._lanes._value


def test_the_pieces_come_in_their_order(done):
    pieces = [bytes([number]) * number for number in range(1, 50)]
    assert list(ReadAhead(Source(pieces), done)) == pieces
    assert done.event.wait(WAIT)


def test_what_breaks_the_source_reaches_the_reader_in_its_place(done):
    reader = ReadAhead(Source([b"a", b"b"], ModelCorrupt()), done)
    assert [next(reader), next(reader)] == [b"a", b"b"]
    with pytest.raises(ModelCorrupt):
        next(reader)
    with pytest.raises(StopIteration):
        next(reader)
    assert done.event.wait(WAIT)


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_a_reader_that_stops_ends_the_thread_and_the_source(done, taken):
    source = Source([b"x"] * 100)
    reader = ReadAhead(source, done)
    for _ in range(taken):
        next(reader)
    reader.close()
    assert done.event.wait(WAIT)
    assert source.closed.is_set()
    assert source.read <= taken + 3
    assert done.times == 1


def test_nothing_is_read_for_a_reader_that_never_asks(done):
    source = Source([b"x"])
    ReadAhead(source, done).close()
    assert source.closed.is_set()
    assert (source.read, done.times) == (0, 1)


def test_a_forgotten_reader_that_never_asked_is_closed(done):
    source = Source([b"x"])
    reader = ReadAhead(source, done)
    del reader
    assert source.closed.is_set()
    assert done.times == 1


def test_a_whole_blob_comes_unchanged_and_gives_its_lane_back(blobs):
    sha256 = blobs.put(CONTENT).sha256
    before = free_lanes()
    assert b"".join(read_whole(blobs, sha256)) == CONTENT
    assert ended(before)


def test_a_damaged_blob_never_comes_to_its_end(blobs):
    sha256 = blobs.put(CONTENT).sha256
    with blobs.path(sha256).open("r+b") as file:
        file.write(b"other bytes")
    received: list[bytes] = []
    with pytest.raises(ModelCorrupt):
        received.extend(read_whole(blobs, sha256))
    assert len(b"".join(received)) < len(CONTENT)


def test_who_finds_no_free_lane_reads_all_the_same(blobs):
    sha256 = blobs.put(CONTENT).sha256
    before = free_lanes()
    readers = [read_whole(blobs, sha256) for _ in range(LANES + 2)]
    assert free_lanes() == before - LANES
    for reader in readers:
        assert b"".join(reader) == CONTENT
    assert ended(before)


def test_an_unknown_blob_takes_no_lane(blobs):
    before = free_lanes()
    with pytest.raises(NotFound):
        read_whole(blobs, "0" * 64)
    assert free_lanes() == before


def ended(lanes: int) -> bool:
    """The threads give their lanes back after their last piece was taken."""
    for thread in threading.enumerate():
        if thread.name == "grid-read-ahead":
            thread.join(WAIT)
    return free_lanes() == lanes
