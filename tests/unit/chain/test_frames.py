"""Frames between the web process and the chain's process."""

import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.frames import FRAME_MAX, HEAD, MARK, META_MAX, Beat, FrameError, Kind, packed, receive
from grid_node.chain.ports import Block

JSON = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=20), st.none()))


def heard(stream: bytes, piece: int = 7):
    """Every frame of a stream that arrives in pieces, and then ends."""
    ours, theirs = socket.socketpair()
    with ours:

        def send():
            with theirs:
                for start in range(0, len(stream), piece):
                    try:
                        theirs.sendall(stream[start : start + piece])
                    except OSError:
                        return

        sender = threading.Thread(target=send)
        sender.start()
        frames = []
        try:
            while (frame := receive(ours)) is not None:
                frames.append(frame)
        finally:
            ours.close()
            sender.join()
        return frames


@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**64 - 1), JSON, st.binary(max_size=200)), max_size=5))
def test_what_was_packed_is_received(told):
    stream = b"".join(b"".join(packed(*one)) for one in told)

    frames = heard(stream, 11)

    assert [(frame.kind, frame.id, frame.meta, frame.body) for frame in frames] == told


@given(st.binary(max_size=200))
def test_garbage_is_an_end_or_an_error_and_nothing_else(stream):
    try:
        assert heard(stream) == []
    except FrameError:
        pass


@given(st.integers(1, 60))
def test_half_a_frame_is_the_end(size):
    whole = b"".join(packed(Kind.ANSWER, 1, {"state": "a"}, b"b" * 30))

    assert heard(whole[: min(size, len(whole) - 1)]) == []


@pytest.mark.parametrize(("meta", "body"), [(META_MAX + 1, 0), (2, FRAME_MAX), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_a_claimed_size_above_the_caps_ends_the_connection(meta, body):
    with pytest.raises(FrameError, match="too large"):
        heard(HEAD.pack(MARK, Kind.ANSWER, meta, body, 1), 100)


@pytest.mark.parametrize("text", [b"[]", b"nul", b"\xff\xff", b'"a"', b""])
def test_a_meta_part_that_is_no_object_ends_the_connection(text):
    with pytest.raises(FrameError):
        heard(HEAD.pack(MARK, Kind.BEAT, len(text), 0, 1) + text)


@pytest.mark.parametrize("head", [struct.pack("<IIIIQ", 1, 1, 0, 0, 0), struct.pack("<IIIIQ", MARK, 99, 2, 0, 0)])
def test_an_unknown_mark_or_kind_ends_the_connection(head):
    with pytest.raises(FrameError, match="no frame"):
        heard(head)


def test_what_is_too_large_is_not_packed():
    with pytest.raises(FrameError):
        packed(Kind.ANSWER, 1, {}, bytes(FRAME_MAX))
    with pytest.raises(FrameError):
        packed(Kind.ANSWER, 1, {"state": "a" * META_MAX})


def test_a_claim_makes_no_room_for_what_never_comes():
    import tracemalloc

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(HEAD.pack(MARK, Kind.ANSWER, 2, FRAME_MAX - 100, 1) + b"{}")
        theirs.shutdown(socket.SHUT_WR)
        tracemalloc.start()
        try:
            assert receive(ours) is None
            assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
        finally:
            tracemalloc.stop()


def test_a_beat_survives_the_way():
    beat = Beat(Block(7, "0x" + "ab" * 32, 1_800_000_000), 5, 0.5, None, {"sn1": "5F"})

    assert Beat.of(beat.body()) == beat
    assert Beat.of(Beat(None, 0, 3.0, "connection refused", {}).body()).error == "connection refused"


@pytest.mark.parametrize("body", [{}, {"block": 3}, {"block": {"number": 1}}, {"block": None, "finalized": "x"}])
def test_a_broken_beat_is_refused(body):
    with pytest.raises(FrameError):
        Beat.of(body)
