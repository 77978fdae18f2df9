"""A body read straight from the socket, with gunicorn's own parser before and after it."""

import io
import os
import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from grid_node.http.socket_body import SocketBody, body_input

HEAD = b"POST /first HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n"
NEXT = b"GET /second HTTP/1.1\r\nHost: node\r\n\r\n"
CONTENT = os.urandom(100_003)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with ours, theirs:
        yield ours, theirs


def parser_of(sock: socket.socket) -> RequestParser:
    return RequestParser(Config(), sock, ("127.0.0.1", 1))


def body_of(parser: RequestParser) -> SocketBody:
    read = body_input({"wsgi.input": next(parser).body})
    assert isinstance(read, SocketBody)
    return read


@pytest.mark.parametrize("size", [1, 1000, 8192, 65_536, 1 << 20])
def test_a_body_comes_unchanged_and_the_next_request_follows_it(sockets, size):
    ours, theirs = sockets
    content = CONTENT[: size * 50]
    theirs.sendall(HEAD % len(content) + content + NEXT)
    parser = parser_of(ours)
    read = body_of(parser)
    assert b"".join(iter(lambda: read.read(size), b"")) == content
    assert next(parser).path == "/second"


@pytest.mark.parametrize("size", [1, 500, 20_000])
def test_what_a_view_left_unread_is_skipped(sockets, size):
    ours, theirs = sockets
    theirs.sendall(HEAD % len(CONTENT) + CONTENT + NEXT)
    parser = parser_of(ours)
    assert body_of(parser).read(size) == CONTENT[:size]
    assert next(parser).path == "/second"


def test_bytes_already_taken_through_gunicorn_are_not_lost(sockets):
    ours, theirs = sockets
    theirs.sendall(HEAD % len(CONTENT) + CONTENT + NEXT)
    parser = parser_of(ours)
    body = next(parser).body
    first = body.read(10)
    read = body_input({"wsgi.input": body})
    assert first + b"".join(iter(lambda: read.read(30_000), b"")) == CONTENT
    assert next(parser).path == "/second"


def test_a_sender_that_leaves_is_seen_after_its_bytes(sockets):
    ours, theirs = sockets
    theirs.sendall(HEAD % 50_000 + CONTENT[:12_345])
    theirs.close()
    read = body_of(parser_of(ours))
    assert read.read(50_000) == CONTENT[:12_345]
    assert read.read(50_000) == b""


def test_a_sender_that_stalls_is_seen_after_its_bytes(sockets):
    ours, theirs = sockets
    theirs.sendall(HEAD % 50_000 + CONTENT[:12_345])
    read = body_of(parser_of(ours))
    ours.settimeout(0.05)
    assert read.read(50_000) == CONTENT[:12_345]
    with pytest.raises(TimeoutError):
        read.read(50_000)


def test_a_body_of_unknown_length_and_another_server_keep_their_own_way(sockets):
    ours, theirs = sockets
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    chunked = next(parser_of(ours)).body
    other = io.BytesIO(b"abc")
    assert body_input({"wsgi.input": chunked}) is chunked
    assert chunked.read(10) == b"abc"
    assert body_input({"wsgi.input": other}) is other
