"""One WebSocket over a real socket pair: deadlines, bounded memory, and goodbyes that arrive."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from grid_node.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame_header, xor_mask
from grid_node.wire.handshake import HandshakeError, accept_key, check_upgrade
from grid_node.wire.outbox import ConnectionClosed
from grid_node.wire.websocket import WebSocket

MASK = b"\x11\x22\x33\x44"
UPGRADE = {
    "REQUEST_METHOD": "GET",
    "HTTP_CONNECTION": "keep-alive, Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Peer:
    """The client's end: sends masked frames, reads plain ones."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(10)
        self.buffer = b""

    def send(self, opcode: int, payload: bytes = b"", final: bool = True) -> None:
        header = bytearray(frame_header(opcode, len(payload), final))
        header[1] |= 0x80
        self.sock.sendall(bytes(header) + MASK + xor_mask(payload, MASK))

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError
            self.buffer += chunk
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def frame(self) -> tuple[int, bytes]:
        """First header byte and payload of the next frame."""
        first, size = self.take(2)
        if size >= 126:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        return first, self.take(size)


@contextmanager
def connection(**options) -> Iterator[tuple[WebSocket, Peer]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield WebSocket(ours, **{"max_bytes": 1024, **options}), Peer(theirs)


def send_many(ws: WebSocket, size: int, times: int = 1000) -> None:
    for _ in range(times):
        ws.send_binary(b"x" * size, wait=False)


def read_to_the_end(peer: Peer) -> None:
    while True:
        peer.frame()


def in_background(call, *arguments) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def test_messages_come_in_order_whatever_packet_they_share():
    with connection() as (ws, peer):
        peer.send(TEXT, b"a")
        peer.send(BINARY, b"b")
        assert [ws.recv(5), ws.recv(5)] == ["a", b"b"]


def test_a_batch_begins_with_what_was_read_but_not_handed_out():
    with connection() as (ws, peer):
        for text in (b"a", b"b", b"c"):
            peer.send(TEXT, text)
        assert ws.recv(5) == "a"
        assert ws.recv_batch() == ["b", "c"]


def test_a_timeout_leaves_the_connection_usable():
    with connection() as (ws, peer):
        with pytest.raises(TimeoutError):
            ws.recv(0)
        peer.send(TEXT, b"later")
        assert ws.recv(5) == "later"


def test_a_ping_is_answered_with_its_payload():
    with connection() as (ws, peer):
        peer.send(PING, b"42")
        peer.send(TEXT, b"x")
        ws.recv(5)
        assert peer.frame() == (0x80 | PONG, b"42")


def test_silence_is_pinged_and_then_given_up():
    with connection(ping_seconds=0.01) as (ws, peer):
        with pytest.raises(ConnectionClosed) as end:
            ws.recv(60)
        assert end.value.code == 1006
        assert peer.frame() == (0x80 | PING, b"")
        with pytest.raises(EOFError):
            peer.frame()


def test_a_pong_keeps_a_silent_peer():
    with connection(ping_seconds=0.01) as (ws, peer):

        def answer_twice() -> None:
            for _ in range(2):
                peer.frame()
                peer.send(PONG)
            peer.send(TEXT, b"still here")

        in_background(answer_twice)
        assert ws.recv(60) == "still here"


def test_a_close_is_answered_and_told_to_the_reader():
    with connection() as (ws, peer):
        peer.send(CLOSE, close_payload(4000, "done"))
        with pytest.raises(ConnectionClosed) as end:
            ws.recv(5)
        assert (end.value.code, end.value.reason) == (4000, "done")
        assert peer.frame()[1][:2] == (4000).to_bytes(2, "big")


def test_a_message_in_front_of_the_close_is_delivered_first():
    with connection() as (ws, peer):
        peer.send(TEXT, b"last words")
        peer.send(CLOSE, close_payload(1000, ""))
        assert ws.recv(5) == "last words"
        with pytest.raises(ConnectionClosed):
            ws.recv(5)


def test_a_broken_frame_is_told_to_the_peer_before_the_end():
    with connection() as (ws, peer):
        peer.send(BINARY, b"x" * 1025)
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed) as end:
            ws.recv(5)
        assert end.value.code == 1009
        first, payload = peer.frame()
        assert first == 0x80 | CLOSE
        assert payload[:2] == (1009).to_bytes(2, "big")


def test_a_peer_that_is_gone_ends_the_reader_with_1006():
    with connection() as (ws, peer):
        peer.sock.close()
        with pytest.raises(ConnectionClosed) as end:
            ws.recv(5)
        assert end.value.code == 1006
        with pytest.raises(ConnectionClosed):
            ws.send_text("into the void")


def test_a_reader_that_lets_too_many_bytes_wait_is_cut():
    with connection(backlog_bytes=100_000) as (ws, peer):
        with pytest.raises(ConnectionClosed) as end:
            send_many(ws, 10_000)
        assert end.value.reason == "reader too slow"
        with pytest.raises(EOFError):
            read_to_the_end(peer)


def test_a_reader_that_lets_too_many_messages_wait_is_cut():
    with connection(backlog_items=10) as (ws, _peer), pytest.raises(ConnectionClosed):
        send_many(ws, 100, times=100_000)


def test_a_reader_that_takes_nothing_is_cut_after_the_stall_deadline():
    with connection(stall_seconds=0.05) as (ws, _peer):
        with pytest.raises(ConnectionClosed) as end:
            ws.send_binary(b"x" * 4_000_000)
        assert end.value.reason == "reader stalled"


def test_a_slow_reader_gets_everything_in_order():
    with connection() as (ws, peer):
        payloads = [bytes([i]) * 50_000 for i in range(60)]
        for payload in payloads:
            ws.send_binary(payload, wait=False)
        assert [peer.frame()[1] for _ in payloads] == payloads


def test_several_writers_never_mix_their_frames():
    with connection() as (ws, peer):
        writers = [
            in_background(lambda n=n: [ws.send_binary(bytes([n]) * 70_000) for _ in range(10)]) for n in range(4)
        ]
        frames = [peer.frame()[1] for _ in range(40)]
        for writer in writers:
            writer.join(10)
        assert all(len(set(frame)) == 1 and len(frame) == 70_000 for frame in frames)


def test_fragments_make_one_message_with_fin_on_the_last():
    with connection() as (ws, peer):
        ws.send_fragments(iter([b"a", b"b", b"c"]))
        assert [peer.frame() for _ in range(3)] == [(TEXT, b"a"), (0, b"b"), (0x80, b"c")]


def test_one_fragment_and_none_are_whole_messages():
    with connection() as (ws, peer):
        ws.send_fragments(iter([b"a"]))
        ws.send_fragments(iter([]))
        assert [peer.frame(), peer.frame()] == [(0x80 | TEXT, b"a"), (0x80 | TEXT, b"")]


def test_corked_writes_leave_together_and_in_order():
    with connection() as (ws, peer):
        ws.cork()
        ws.send_text("a")
        ws.send_text("b")
        peer.sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            peer.frame()
        peer.sock.settimeout(10)
        ws.uncork()
        assert [peer.frame()[1], peer.frame()[1]] == [b"a", b"b"]


def test_closing_from_another_task_wakes_the_reader():
    with connection() as (ws, peer):
        ends: list[ConnectionClosed] = []

        def read() -> None:
            try:
                ws.recv_batch()
            except ConnectionClosed as end:
                ends.append(end)

        reader = in_background(read)
        ws.close(4503, "Service Unavailable")
        reader.join(10)
        assert [(end.code, end.reason) for end in ends] == [(4503, "Service Unavailable")]
        assert peer.frame() == (0x80 | CLOSE, close_payload(4503, "Service Unavailable"))


def test_nothing_is_sent_after_the_close():
    with connection() as (ws, peer):
        peer.sock.shutdown(socket.SHUT_WR)
        ws.close()
        ws.close()
        with pytest.raises(ConnectionClosed):
            ws.send_text("late")
        assert peer.frame() == (0x80 | CLOSE, close_payload(1000, ""))
        with pytest.raises(EOFError):
            peer.frame()


def test_the_accept_key_is_that_of_the_rfc():
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"HTTP_UPGRADE": ""}, "426"),
        ({"HTTP_CONNECTION": "close"}, "426"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, "426"),
        ({"REQUEST_METHOD": "POST"}, "405"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, "400"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "ä" * 24}, "400"),
    ],
)
def test_what_is_no_upgrade_is_refused_with_the_right_status(change, status):
    with pytest.raises(HandshakeError) as error:
        check_upgrade({**UPGRADE, **change})
    assert error.value.status.startswith(status)
