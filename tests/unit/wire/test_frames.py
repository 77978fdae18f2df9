"""Frames in, messages out; what breaks RFC 6455 or a limit ends with the close code that it names."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.wire.frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    FrameError,
    FrameReader,
    close_payload,
    frame_header,
    parse_close,
    unmask,
    xor_mask,
)

MASK = b"\x11\x22\x33\x44"
LIMIT = 1024


def client_frame(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    header = bytearray(frame_header(opcode, len(payload), final))
    header[0] |= reserved
    header[1] |= 0x80
    return bytes(header) + MASK + xor_mask(payload, MASK)


def feed(*chunks: bytes, limit: int = LIMIT) -> list[object]:
    reader = FrameReader(limit)
    return [item for chunk in chunks for item in reader.feed(chunk)]


def code_of(*chunks: bytes) -> int:
    error = feed(*chunks)[-1]
    assert isinstance(error, FrameError)
    return error.code


def test_one_chunk_may_hold_several_messages():
    chunk = client_frame(TEXT, b"one") + client_frame(BINARY, b"two") + client_frame(TEXT, b"")
    assert feed(chunk) == ["one", b"two", ""]


def test_a_message_may_come_byte_by_byte():
    frame = client_frame(TEXT, "grüße".encode() * 30)
    assert feed(*[frame[i : i + 1] for i in range(len(frame))]) == ["grüße" * 30]


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=8), st.data())
def test_messages_survive_any_cut_of_the_stream(messages, data):
    stream = b"".join(
        client_frame(TEXT, m.encode()) if isinstance(m, str) else client_frame(BINARY, m) for m in messages
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert feed(*chunks, limit=4096) == messages


def test_fragments_join_and_control_frames_may_stand_between_them():
    chunk = client_frame(TEXT, b"a", final=False) + client_frame(PING, b"!") + client_frame(0, b"b")
    assert feed(chunk) == [(PING, b"!"), "ab"]


def test_a_character_may_be_split_over_fragments():
    euro = "€".encode()
    assert feed(client_frame(TEXT, euro[:1], final=False) + client_frame(0, euro[1:])) == ["€"]


@pytest.mark.parametrize(
    ("name", "chunk", "code"),
    [
        ("not masked", frame_header(TEXT, 3) + b"abc", 1002),
        ("RSV1, as a compressed frame has it", client_frame(TEXT, b"x", reserved=0x40), 1002),
        ("RSV3", client_frame(TEXT, b"x", reserved=0x10), 1002),
        ("opcode 3", client_frame(3, b"x"), 1002),
        ("opcode 11", client_frame(11, b""), 1002),
        ("ping of 126 bytes", client_frame(PING, b"x" * 126), 1002),
        ("fragmented ping", client_frame(PING, b"x", final=False), 1002),
        ("continuation of nothing", client_frame(0, b"x"), 1002),
        ("new message inside another", client_frame(TEXT, b"a", final=False) + client_frame(TEXT, b"b"), 1002),
        ("broken UTF-8", client_frame(TEXT, b"\xff\xfe"), 1007),
        ("surrogate in UTF-8", client_frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("too large", client_frame(BINARY, b"x" * (LIMIT + 1)), 1009),
    ],
)
def test_a_broken_frame_names_its_close_code(name, chunk, code):
    assert code_of(chunk) == code, name


def test_the_header_alone_is_enough_to_refuse_a_large_frame():
    assert code_of(bytes((0x82, 0xFF)) + struct.pack("!Q", 1 << 62)) == 1009


def test_the_sum_of_fragments_is_limited():
    half = b"x" * (LIMIT // 2)
    fragments = [client_frame(BINARY, half, final=False), client_frame(0, half, final=False), client_frame(0, b"x")]
    assert code_of(*fragments) == 1009


def test_a_million_tiny_fragments_hold_no_more_than_their_bytes():
    reader = FrameReader(1 << 20)
    reader.feed(client_frame(BINARY, b"", final=False))
    tiny = client_frame(0, b"x", final=False) * 1000
    tracemalloc.start()
    for _ in range(100):
        reader.feed(tiny)
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000


def test_what_came_before_a_broken_frame_is_not_lost():
    items = feed(client_frame(TEXT, b"first") + client_frame(3))
    assert items[0] == "first"
    assert isinstance(items[1], FrameError)


def test_a_message_of_exactly_the_limit_passes():
    assert feed(client_frame(BINARY, b"x" * LIMIT)) == [b"x" * LIMIT]


@given(st.binary(max_size=5000))
def test_garbage_never_raises(data):
    assert isinstance(feed(data), list)


@given(st.binary(max_size=1000), st.binary(min_size=4, max_size=4))
def test_the_portable_unmasking_equals_the_fast_one(data, mask):
    assert xor_mask(data, mask) == unmask(data, mask)


def test_a_close_reason_is_cut_to_123_bytes_at_a_character():
    payload = close_payload(4400, "ß" * 100)
    assert len(payload) <= 125
    assert parse_close(payload) == (4400, "ß" * 61)


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_close_code_that_nobody_may_send_is_a_protocol_error(code):
    with pytest.raises(FrameError) as error:
        parse_close(struct.pack("!H", code))
    assert error.value.code == 1002


def test_a_close_frame_is_handed_over_as_a_control_frame():
    assert feed(client_frame(CLOSE, close_payload(1000, "bye"))) == [(CLOSE, close_payload(1000, "bye"))]
