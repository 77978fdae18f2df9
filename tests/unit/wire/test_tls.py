"""Sending over TLS on sockets that never wait, as eventlet's are."""

import contextlib
import hashlib
import os
import socket
import ssl
import threading

import pytest

from grid_node.wire.frames import TEXT
from grid_node.wire.outbox import ConnectionClosed, Outbox
from grid_node.wire.websocket import WebSocket
from tests.integration.wire.harness import client_frame

SECONDS = 30


def anonymous(side):
    """TLS without a certificate: nothing here is about who speaks."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("aNULL:@SECLEVEL=0")
    return context


@pytest.fixture
def ends():
    """The node's end, which never waits, and the peer's."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.settimeout(SECONDS)
    peer = []
    client = anonymous(ssl.PROTOCOL_TLS_CLIENT)
    shaking = threading.Thread(target=lambda: peer.append(client.wrap_socket(theirs)))
    shaking.start()
    node = anonymous(ssl.PROTOCOL_TLS_SERVER).wrap_socket(ours, server_side=True)
    shaking.join(SECONDS)
    node.setblocking(False)
    yield node, peer[0]
    node.close()
    peer[0].close()


def outbox_of(sock, flushers, backlog_bytes=64 * 1024 * 1024):
    def spawn(target):
        flushers.append(threading.Thread(target=target))
        flushers[-1].start()

    return Outbox(sock, stall_seconds=SECONDS, backlog_bytes=backlog_bytes, backlog_items=4096, spawn=spawn)


def read_all(peer, size):
    digest, left = hashlib.sha256(), size
    while left:
        chunk = peer.recv(min(left, 65536))
        assert chunk, "the connection ended"
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def test_what_a_peer_does_not_read_waits_and_arrives_whole_and_in_order(ends):
    node, peer = ends
    flushers = []
    outbox = outbox_of(node, flushers)
    frames = [os.urandom(size) for size in (10, 3_000_000, 1, 16384, 16385, 700, 2_000_000) * 3]
    for frame in frames:
        outbox.write(frame)  # in this thread: were it to wait, the test would not go on
    assert outbox.backlogged
    assert read_all(peer, sum(map(len, frames))) == hashlib.sha256(b"".join(frames)).hexdigest()
    for flusher in flushers:
        flusher.join(SECONDS)
    assert not outbox.backlogged


def write_often(outbox, frame):
    for _ in range(100):
        outbox.write(frame)


def test_a_peer_that_reads_nothing_is_cut_at_the_limit(ends):
    node, _peer = ends
    outbox = outbox_of(node, flushers := [], backlog_bytes=1_000_000)
    with pytest.raises(ConnectionClosed, match="too slow"):
        write_often(outbox, b"x" * 100_000)
    for flusher in flushers:
        flusher.join(SECONDS)


def test_a_real_thread_that_writes_to_a_peer_that_reads_nothing_does_not_wait(ends):
    """Under real threads sockets wait; whoever gives receipts to all must not wait for one of them."""
    node, _peer = ends
    node.settimeout(None)
    socket = WebSocket(node, max_bytes=1 << 20, backlog_bytes=1_000_000)
    writing = threading.Thread(target=write_until_closed, args=(socket,), daemon=True)
    writing.start()
    writing.join(SECONDS)
    assert not writing.is_alive()
    assert "too slow" in str(socket.closed)


def test_a_real_thread_reads_what_comes_while_others_write(ends):
    node, peer = ends
    node.settimeout(None)
    socket = WebSocket(node, max_bytes=1 << 20)
    messages = ["x" * size for size in (1, 70_000, 16_384, 5) * 50]
    got = []

    def read():
        while len(got) < len(messages):
            got.extend(socket.recv_batch())

    def send():
        for message in messages:
            peer.sendall(client_frame(TEXT, message.encode()))

    threads = [threading.Thread(target=target, daemon=True) for target in (read, send)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        socket.send_text("y" * 1000, wait=False)
    for thread in threads:
        thread.join(SECONDS)
    assert got == messages
    assert read_all(peer, 100 * 1004)


def write_until_closed(socket):
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.send_text("x" * 100_000, wait=False)


def test_a_connection_that_has_ended_keeps_nothing_of_what_was_written_after(ends):
    """What is raised keeps its frames, and they what was to be written: of one that is kept, for ever."""
    node, _peer = ends
    outbox = outbox_of(node, [])
    outbox.abort("aborted")
    for _ in range(3):
        with pytest.raises(ConnectionClosed, match="aborted"):
            outbox.write(b"x" * 100_000)
    assert outbox.end.__traceback__ is None
