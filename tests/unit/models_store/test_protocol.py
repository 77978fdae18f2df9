"""Frames survive any cut of the stream; what is too large or not described ends the talk."""

import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_store.protocol import (
    ALIGNMENT,
    BUFFER,
    HEAD,
    META_MAX,
    FrameReader,
    Kind,
    ProtocolError,
    frame,
    send,
    shapes,
    tensors_of,
)
from models_store.tensors import Tensor

DATA_MAX = 4 * BUFFER


def stream(content: bytes, pieces: list[int]) -> FrameReader:
    """A reader to which `content` comes in pieces of these sizes, then as it likes."""
    sizes, place = iter(pieces), 0

    def receive(buffer: memoryview) -> int:
        nonlocal place
        count = min(next(sizes, len(buffer)), len(buffer), len(content) - place)
        buffer[:count] = content[place : place + count]
        place += count
        return count

    return FrameReader(receive, DATA_MAX)


def read_all(reader: FrameReader) -> list[tuple[int, int, object, bytes]]:
    found = []
    while frames := reader.read():
        found += [(one.kind, one.id, one.json(), bytes(one.data)) for one in frames]
    return found


FRAMES = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 9)), st.binary()),
    max_size=8,
)


@given(FRAMES, st.lists(st.integers(1, 50)))
def test_frames_come_whole_however_the_stream_is_cut(
    sent: list[tuple[Kind, int, list[int], bytes]], pieces: list[int]
) -> None:
    content = b"".join(bytes(part) for one in sent for part in frame(one[0], one[1], one[2], [one[3]]))
    assert read_all(stream(content, pieces)) == sent


@pytest.mark.parametrize("size", [BUFFER - 200, BUFFER, BUFFER + 1, DATA_MAX])
def test_a_frame_above_the_buffer_comes_whole_between_small_ones(size: int) -> None:
    large = os.urandom(size)
    content = b"".join(
        bytes(part)
        for data in (b"a", large, b"b")
        for part in frame(Kind.RESULT, 1, [], [data[: len(data) // 2], data[len(data) // 2 :]])
    )
    assert [one[3] for one in read_all(stream(content, [100] * 5))] == [b"a", large, b"b"]


def test_a_stream_that_ends_inside_a_frame_is_at_its_end() -> None:
    for data in (b"12345678", bytes(2 * BUFFER)):
        content = b"".join(bytes(part) for part in frame(Kind.INFER, 1, [1], [data]))
        assert stream(content[:-1], []).read() == []


@pytest.mark.parametrize(("meta", "data"), [(META_MAX + 1, 0), (2**32 - 1, 0), (0, DATA_MAX + 1), (0, 2**64 - 1)])
def test_what_is_announced_too_large_is_refused_before_it_is_taken(meta: int, data: int) -> None:
    with pytest.raises(ProtocolError):
        stream(HEAD.pack(Kind.RESULT, meta, data, 1) + bytes(100), []).read()


def test_data_begins_where_tensors_can_be_read_in_place() -> None:
    for meta in ([], [1], [12, 345], None):
        first, *_ = frame(Kind.INFER, 1, meta, [b"x"])
        assert len(first) % ALIGNMENT == 0


def test_a_meta_part_that_is_no_json_is_refused() -> None:
    (one,) = stream(HEAD.pack(Kind.GONE, 3, 0, 1) + b"{x}", []).read()
    with pytest.raises(ProtocolError):
        one.json()


def test_tensors_are_described_by_their_shapes() -> None:
    tensors = [
        Tensor("a", "FP32", (2, 1), b"12345678"),
        Tensor("b", "BOOL", (), b"\1"),
        Tensor("c", "INT64", (0,), b""),
    ]
    data = memoryview(b"".join(bytes(one.data) for one in tensors))
    assert tensors_of(["a", "b", "c"], shapes(tensors), data) == tensors


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        [["FP32", [1]], ["FP32", [1]]],
        [["BYTES", [8]]],
        [["FP32", [3]]],
        [["FP32", [-1, -2]]],
        [["FP32", ["2"]]],
        [["FP32", [2.0]]],
        [["FP32", [[2]]]],
        [["FP32"]],
        ["FP32"],
        [[["FP32"], [2]]],
        [["FP32", None]],
        [["FP32", [10**30]]],
    ],
)
def test_tensors_that_do_not_fill_their_frame_are_refused(said: object) -> None:
    with pytest.raises(ProtocolError):
        tensors_of(["a"], said, memoryview(bytes(8)))  # type: ignore[arg-type]


def test_a_descriptor_goes_with_its_frame_and_large_frames_wait_for_the_reader() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, writer = os.pipe()
    data = os.urandom(DATA_MAX)
    descriptors: list[int] = []
    waits = threading.Event()

    def receive(buffer: memoryview) -> int:
        waits.wait(10)
        count, ancillary, _, _ = theirs.recvmsg_into([buffer], socket.CMSG_SPACE(4))
        descriptors.extend(int.from_bytes(one[2], "little") for one in ancillary)
        return count

    got: list[bytes] = []
    thread = threading.Thread(
        target=lambda: got.extend(bytes(one.data) for one in FrameReader(receive, DATA_MAX).read())
    )
    thread.start()
    send(ours, frame(Kind.LOAD, 1, {}, [data]), reader, wait=waits.set)
    thread.join(10)
    assert got == [data]
    (received,) = descriptors
    os.write(writer, b"!")
    assert os.read(received, 1) == b"!"
    for one in (reader, writer, received):
        os.close(one)
    ours.close()
    theirs.close()
