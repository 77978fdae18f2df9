"""Bodies are counted where they are read, whatever the server announces."""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator

import pytest
from flask import Request
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader
from werkzeug.test import EnvironBuilder

from grid_node.blobs.local import LocalBlobs
from grid_node.errors import (
    AssetTooLarge,
    BodyIncomplete,
    LengthRequired,
    MessageTooLarge,
    UnsupportedMediaType,
)
from grid_node.http.bodies import body_chunks, read_body, require_length, stream_to_blob


class Broken(io.BytesIO):
    """A peer that resets the connection."""

    def read(self, size: int | None = -1) -> bytes:
        raise ConnectionResetError


def request_of(content: bytes, *, chunked: bool = False, terminated: bool = False, **headers: str) -> Request:
    environ = EnvironBuilder(method="POST", data=content, headers=headers).get_environ()
    if chunked:
        del environ["CONTENT_LENGTH"]
        environ["HTTP_TRANSFER_ENCODING"] = "Chunked"
    environ["wsgi.input_terminated"] = terminated
    return Request(environ)


def test_a_body_comes_as_it_was_sent() -> None:
    content = bytes(200_000)
    assert b"".join(body_chunks(request_of(content), len(content))) == content
    sent = request_of(content, chunked=True, terminated=True)
    assert b"".join(body_chunks(sent, len(content))) == content


def test_nothing_beyond_the_announced_length_is_read() -> None:
    request = request_of(b"body")
    request.environ["wsgi.input"] = stream = io.BytesIO(b"body" + b"next request")
    assert read_body(request, 100) == b"body"
    assert stream.read() == b"next request"


def test_a_chunked_body_is_refused_where_the_server_would_read_nothing() -> None:
    with pytest.raises(LengthRequired):
        read_body(request_of(b"body", chunked=True), 100)


def test_no_body_is_an_empty_body_unless_a_length_is_required() -> None:
    request = Request(EnvironBuilder(method="POST").get_environ())
    request.environ.pop("CONTENT_LENGTH", None)
    assert read_body(request, 100) == b""
    with pytest.raises(LengthRequired):
        require_length(request)


def test_an_announced_body_above_the_limit_is_refused_unread() -> None:
    request = request_of(b"x" * 101)
    with pytest.raises(MessageTooLarge) as refused:
        read_body(request, 100)
    assert refused.value.body()["limit"] == 100
    assert request.environ["wsgi.input"].tell() == 0


def test_a_chunked_body_above_the_limit_is_never_cut_silently() -> None:
    with pytest.raises(AssetTooLarge):
        list(body_chunks(request_of(b"x" * 101, chunked=True, terminated=True), 100))


def test_a_short_body_gives_out_what_came_and_is_incomplete() -> None:
    request = request_of(b"part")
    request.environ["CONTENT_LENGTH"] = "10"
    chunks = body_chunks(request, 100)
    assert next(chunks) == b"part"
    with pytest.raises(BodyIncomplete) as short:
        next(chunks)
    assert (short.value.body()["received"], short.value.body()["length"]) == (4, 10)


def test_a_reset_is_an_incomplete_body() -> None:
    request = request_of(b"part")
    request.environ["wsgi.input"] = Broken()
    with pytest.raises(BodyIncomplete):
        read_body(request, 100)


def test_a_refused_stream_leaves_no_blob(tmp_path) -> None:
    blobs = LocalBlobs(tmp_path, lambda function, *args: function(*args))
    short = request_of(b"part")
    short.environ["CONTENT_LENGTH"] = "10"
    with pytest.raises(BodyIncomplete):
        stream_to_blob(short, blobs, 100)
    with pytest.raises(AssetTooLarge):
        stream_to_blob(request_of(b"x" * 101, chunked=True, terminated=True), blobs, 100)
    with pytest.raises(UnsupportedMediaType):
        stream_to_blob(request_of(b"x", **{"Content-Encoding": "gzip"}), blobs, 100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert stream_to_blob(request_of(b"x"), blobs, 100).size == 1


# --- straight from the server's socket


@pytest.fixture
def sent() -> Iterator[Callable[[bytes, int], tuple[Request, Body]]]:
    """Makes a request whose body gunicorn's own classes read from a socket; the peer has hung up behind it."""
    with contextlib.ExitStack() as stack:

        def made(content: bytes, length: int) -> tuple[Request, Body]:
            ours, peer = (stack.enter_context(end) for end in socket.socketpair())
            peer.sendall(content)
            peer.shutdown(socket.SHUT_WR)
            body = Body(LengthReader(SocketUnreader(ours), length))
            request = request_of(b"")
            request.environ.update({"wsgi.input": body, "CONTENT_LENGTH": str(length)})
            return request, body

        yield made


def test_a_body_comes_straight_from_gunicorns_socket_in_large_pieces(sent) -> None:
    content = bytes(range(256)) * 200
    request, body = sent(content, len(content))
    pieces = list(body_chunks(request, len(content)))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) > 8192
    assert body.read() == b""


def test_the_next_request_behind_a_body_is_left_to_gunicorn(sent) -> None:
    request, body = sent(b"0123456789GET / HTTP/1.1", 10)
    assert b"".join(body_chunks(request, 10)) == b"0123456789"
    assert (body.read(), body.reader.unreader.read()) == (b"", b"GET / HTTP/1.1")


def test_what_gunicorn_read_ahead_is_not_lost(sent) -> None:
    request, body = sent(b"0123456789", 10)
    assert body.readline(3) == b"012"
    request.environ["CONTENT_LENGTH"] = "7"
    assert b"".join(body_chunks(request, 10)) == b"3456789"


def test_a_body_that_ends_early_gives_out_every_byte_that_came(sent) -> None:
    request, body = sent(b"part", 10)
    chunks = body_chunks(request, 10)
    assert next(chunks) == b"part"
    with pytest.raises(BodyIncomplete):
        next(chunks)
    assert body.reader.length == 6
