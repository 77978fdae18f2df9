"""Bodies are counted where they are read, whatever the server announces."""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from flask import Flask, Request, Response
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader
from werkzeug.test import EnvironBuilder

from grid_node.blobs.local import LocalBlobs
from grid_node.errors import (
    AssetTooLarge,
    BodyIncomplete,
    LengthRequired,
    MessageTooLarge,
    UnsupportedMediaType,
    UploadEndedEarly,
    UploadTimeout,
)
from grid_node.http.bodies import body_chunks, drain, leave_no_rest, read_body, require_length, stream_to_blob
from grid_node.http.body_streams import FRAMING_FREE, READ, SLOWEST


class Broken(io.BytesIO):
    """A peer that resets the connection."""

    def read(self, size: int | None = -1) -> bytes:
        raise ConnectionResetError


def request_of(content: bytes, *, chunked: bool = False, terminated: bool = False, **headers: str) -> Request:
    environ = EnvironBuilder(method="POST", data=content, headers=headers).get_environ()
    if chunked:
        environ.pop("CONTENT_LENGTH", None)
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


# --- chunked, from the server's socket


class Wire(SocketUnreader):
    """What gunicorn reads from a peer that sends these pieces, each when the one before was read, and hangs up."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(None)
        self.pieces = list(pieces)
        self.asked = 0

    def chunk(self) -> bytes:
        self.asked += 1
        return self.pieces.pop(0) if self.pieces else b""


def chunked(*pieces: bytes) -> tuple[Request, Body, Wire]:
    wire = Wire(*pieces)
    body = Body(ChunkedReader(SimpleNamespace(unreader=wire), wire))
    request = request_of(b"", chunked=True, terminated=True)
    request.environ["wsgi.input"] = body
    return request, body, wire


def as_chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


END = b"0\r\n\r\n"


def test_a_chunked_body_is_given_out_as_it_comes() -> None:
    request, _, wire = chunked(as_chunk(b"first"), as_chunk(b"second"), b"6\r\nthi", b"rd!\r\n", END)
    pieces = body_chunks(request, 100)
    assert (next(pieces), wire.asked) == (b"first", 1)
    assert list(pieces) == [b"second", b"thi", b"rd!"]


def test_the_next_request_behind_a_chunked_body_is_left_to_gunicorn() -> None:
    request, body, wire = chunked(as_chunk(b"body") + END + b"GET / HTTP/1.1")
    assert b"".join(body_chunks(request, 100)) == b"body"
    assert (body.read(), wire.read()) == (b"", b"GET / HTTP/1.1")
    wire.pieces = [b"more"]
    assert wire.read() == b"more"


def test_what_gunicorn_read_of_a_chunked_body_is_not_lost() -> None:
    request, body, _ = chunked(as_chunk(b"0123456789") + END)
    assert body.readline(3) == b"012"
    assert b"".join(body_chunks(request, 100)) == b"3456789"


@pytest.mark.parametrize("pieces", [[as_chunk(b"part")], [b"5\r\npart"], [b"zz\r\n"], [b"4\r\npartial\r\n"]])
def test_a_chunked_body_that_breaks_off_is_incomplete(pieces: list[bytes]) -> None:
    request, _, _ = chunked(*pieces)
    with pytest.raises(BodyIncomplete):
        read_body(request, 100)


def test_a_body_of_single_bytes_is_taken() -> None:
    content = bytes(10_000)
    request, _, _ = chunked(*[b"1\r\n\0\r\n" * 1000 for _ in range(10)], END)
    assert b"".join(body_chunks(request, len(content))) == content


def test_framing_without_content_has_an_end() -> None:
    endless = [b"x" * READ] * 1000
    for pieces in ([b"5;ext=", *endless], [as_chunk(b"content"), b"0\r\nTrailer: ", *endless]):
        request, _, wire = chunked(*pieces)
        with pytest.raises(BodyIncomplete):
            read_body(request, 100)
        assert wire.asked < 3 + (FRAMING_FREE + READ) / READ + 2


# --- what nobody reads


class Silent(Wire):
    """A peer that sends these pieces and then nothing."""

    def chunk(self) -> bytes:
        if not self.pieces:
            raise TimeoutError
        return super().chunk()


def test_a_sender_that_falls_silent_is_told_from_one_that_left() -> None:
    for wire, expected in ((Silent(b"some"), UploadTimeout), (Wire(b"some"), UploadEndedEarly)):
        request = request_of(b"")
        request.environ.update({"CONTENT_LENGTH": "100", "wsgi.input": Body(LengthReader(wire, 100))})
        with pytest.raises(expected):
            list(body_chunks(request, 100, incomplete=UploadEndedEarly, stalled=UploadTimeout))


def answered(request: Request) -> None:
    """The answer to a request that was not read to its end, from its making to its end."""
    with Flask("test").request_context(request.environ):
        leave_no_rest(Response("refused")).close()


def test_the_rest_of_a_body_is_gone_when_its_answer_is_out_and_no_more() -> None:
    wire = Wire(*[bytes(1000)] * 10, b"next request")
    request = request_of(b"")
    body = Body(LengthReader(wire, 10_000))
    request.environ.update({"CONTENT_LENGTH": "10000", "wsgi.input": body})
    next(body_chunks(request, 10_000))
    answered(request)
    assert (body.read(), wire.read()) == (b"", b"next request")


def test_the_rest_of_a_chunked_body_is_gone_likewise() -> None:
    request, body, wire = chunked(*[as_chunk(bytes(1000))] * 10, END, b"next request")
    next(body_chunks(request, 10_000))
    answered(request)
    assert (body.read(), wire.read()) == (b"", b"next request")


@pytest.mark.parametrize("wire", [Silent(bytes(10)), Wire(bytes(10))])
def test_a_rest_that_does_not_come_ends_the_connection(wire) -> None:
    request = request_of(b"")
    ours, peer = socket.socketpair()
    with ours, peer:
        body = Body(LengthReader(wire, 100))
        request.environ.update({"CONTENT_LENGTH": "100", "wsgi.input": body, "gunicorn.socket": ours})
        answered(request)
        assert peer.recv(1) == b""


def test_some_of_a_refused_body_can_be_read_before_the_answer() -> None:
    wire = Wire(*[bytes(1000)] * 10)
    request = request_of(b"")
    body = Body(LengthReader(wire, 10_000))
    request.environ.update({"CONTENT_LENGTH": "10000", "wsgi.input": body})
    drain(request, 2500)
    assert (wire.asked, len(body.read())) == (3, 7000)


# --- slowly


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("grid_node.http.body_streams.time.monotonic", lambda: now.seconds)
    return now


def slowly(clock: SimpleNamespace, request: Request, size: int) -> list[bytes]:
    """Ten seconds for each piece."""
    pieces = []
    for piece in body_chunks(request, size, stall=30):
        pieces.append(piece)
        clock.seconds += 10
    return pieces


@pytest.mark.parametrize("is_chunked", [False, True])
def test_who_sends_a_byte_now_and_then_is_given_up(clock, is_chunked: bool) -> None:
    wire = Wire(*([as_chunk(b"x")] * 100 if is_chunked else [b"x"] * 100))
    request = request_of(b"", chunked=is_chunked, terminated=True)
    request.environ["CONTENT_LENGTH"] = None if is_chunked else "100"
    reader = ChunkedReader(SimpleNamespace(unreader=wire), wire) if is_chunked else LengthReader(wire, 100)
    request.environ["wsgi.input"] = Body(reader)
    with pytest.raises(BodyIncomplete):
        slowly(clock, request, 100)
    assert clock.seconds == 40
    assert wire.asked == 4


def test_who_keeps_the_pace_may_take_long(clock) -> None:
    size = 50 * 10 * SLOWEST
    request = request_of(b"")
    reader = LengthReader(Wire(*[bytes(10 * SLOWEST)] * 50), size)
    request.environ.update({"CONTENT_LENGTH": str(size), "wsgi.input": Body(reader)})
    assert len(slowly(clock, request, size)) == 50
    assert clock.seconds == 500
