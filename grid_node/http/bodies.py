"""Request bodies, read safely.

Bytes are taken from the server's own stream and counted here: a framework's limit can cut a chunked body without
a word, and a server that cannot read chunked bodies at all reads nothing. What was announced and did not come
is BodyIncomplete; a body above its limit is refused before more of it is read.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Request

from grid_node.blobs.store import Blob, Blobs
from grid_node.errors import (
    AssetTooLarge,
    BodyIncomplete,
    GridError,
    LengthRequired,
    MessageTooLarge,
    UnsupportedMediaType,
)
from grid_node.http.body_streams import READ, Pace, Read, chunk_reader, straight_reader

STALL = 30.0
"""Seconds without a byte after which a sender is given up."""

TooLarge = Callable[..., GridError]


def body_chunks(
    request: Request, max_bytes: int, *, too_large: TooLarge = AssetTooLarge, stall: float = STALL
) -> Iterator[bytes]:
    """The body in pieces of about READ bytes.

    Raises `too_large` (with `limit`) at the first sign of more than `max_bytes`, LengthRequired when the body is
    chunked and this server cannot read that, BodyIncomplete when the sender leaves, stalls or keeps no pace. Pieces
    that came whole before that were already given out.
    """
    length = announced_length(request)
    if length is not None and length > max_bytes:
        raise too_large(limit=max_bytes)
    with peer_deadline(request.environ, stall):
        if length is not None:
            yield from _announced(request, length, Pace(stall))
        elif is_chunked(request):
            yield from _chunked(request, max_bytes, too_large, Pace(stall))


def announced_length(request: Request) -> int | None:
    """Content-Length, or None for a chunked body. A request with neither has no body: 0."""
    if is_chunked(request):
        if not request.environ.get("wsgi.input_terminated"):
            raise LengthRequired
        return None
    return max(0, request.content_length or 0)


def is_chunked(request: Request) -> bool:
    return "chunked" in request.headers.get("Transfer-Encoding", "").lower()


def require_length(request: Request) -> int:
    """Content-Length; LengthRequired when the request names none."""
    if request.content_length is None:
        raise LengthRequired
    return request.content_length


def read_body(request: Request, max_bytes: int) -> bytes:
    """A small body, whole. Raises MessageTooLarge."""
    return b"".join(body_chunks(request, max_bytes, too_large=MessageTooLarge))


def stream_to_blob(request: Request, blobs: Blobs, max_bytes: int) -> Blob:
    """The body as a blob; its sha256 is computed while it comes in. Raises AssetTooLarge."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("The asset is sent as it is, without Content-Encoding")
    with blobs.writer(max_bytes) as writer:
        for chunk in body_chunks(request, max_bytes):
            writer.write(chunk)
        return writer.commit()


@contextlib.contextmanager
def peer_deadline(environ: Mapping[str, Any], stall: float) -> Iterator[None]:
    """Every wait on the peer's socket ends after `stall` seconds, where the server shows us the socket."""
    socket = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if socket is None:
        yield
        return
    before = socket.gettimeout()
    socket.settimeout(stall)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            socket.settimeout(before)


def _announced(request: Request, length: int, pace: Pace) -> Iterator[bytes]:
    received, read = 0, straight_reader(request.environ) or request.environ["wsgi.input"].read
    while received < length:
        piece = _read(read, min(READ, length - received), pace, received)
        if not piece:
            raise BodyIncomplete(received=received, length=length)
        received += len(piece)
        yield piece


def _chunked(request: Request, max_bytes: int, too_large: TooLarge, pace: Pace) -> Iterator[bytes]:
    received = 0
    with chunk_reader(request.environ, pace) as read:
        while piece := _read(read, READ, pace, received):
            received += len(piece)
            if received > max_bytes:
                raise too_large(limit=max_bytes)
            yield piece


def _read(read: Read, size: int, pace: Pace, received: int) -> bytes:
    """Servers tell of a broken chunk, a reset and a timeout alike by an OSError.

    The bytes of a fast sender are always there, so that reading alone would never let other greenlets run.
    """
    time.sleep(0)
    try:
        pace.check(received)
        return read(size)
    except OSError as error:
        raise BodyIncomplete from error
