"""Bodies are counted where they are read, whatever the server announces."""

import io

import pytest
from flask import Request
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
