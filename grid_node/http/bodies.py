"""Request bodies, read safely.

Bytes are taken from the server's own stream and counted here: a framework's limit can cut a chunked body without
a word, and a server that cannot read chunked bodies at all reads nothing. What was announced and did not come
is BodyIncomplete; a body above its limit is refused before more of it is read.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from flask import Request, Response, request
from gunicorn.http.body import ChunkedReader, LengthReader

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

DRAIN = 1024 * 1024
REST_SECONDS = 10.0
"""How long the rest of a body may come that nobody wants."""
REST_STALL = 2.0
"""Seconds of silence that end it sooner."""

TooLarge = Callable[..., GridError]
Refusal = Callable[..., GridError]


def body_chunks(
    request: Request,
    max_bytes: int,
    *,
    too_large: TooLarge = AssetTooLarge,
    incomplete: Refusal = BodyIncomplete,
    stalled: Refusal = BodyIncomplete,
    stall: float = STALL,
) -> Iterator[bytes]:
    """The body in pieces of about READ bytes.

    Raises `too_large` (with `limit`) at the first sign of more than `max_bytes`, LengthRequired when the body is
    chunked and this server cannot read that, `incomplete` when the sender leaves, `stalled` when it stalls or keeps
    no pace. Pieces that came whole before that were already given out.
    """
    length = announced_length(request)
    if length is not None and length > max_bytes:
        raise too_large(limit=max_bytes)
    body = _Body(request.environ, incomplete, stalled, Pace(stall))
    with peer_deadline(request.environ, stall):
        if length is not None:
            yield from body.announced(length)
        elif is_chunked(request):
            yield from body.chunked(max_bytes, too_large)


def leave_no_rest(answer: Response) -> Response:
    """After a request: what it did not read of its body is read once the answer is out, and goes nowhere.

    So a sender that looks for an answer only after its last byte gets to read why it was refused. gunicorn does the
    same by kilobytes, which holds up all others for seconds; and a connection cut at once is a reset to the sender.
    """
    rest = _rest(request.environ)
    if rest is not None:
        answer.call_on_close(partial(_discard, request.environ, rest))
    return answer


def drain(request: Request, max_bytes: int = DRAIN) -> None:
    """Read a part of what is left of a refused body, before the answer."""
    taken = 0
    with contextlib.suppress(GridError), peer_deadline(request.environ, REST_STALL):
        for piece in _rest(request.environ) or ():
            taken += len(piece)
            if taken >= max_bytes:
                return


def _rest(environ: Mapping[str, Any]) -> Iterator[bytes] | None:
    """What nobody has read yet of a body; None where the server does not say what that is."""
    body, reader = _Body(environ, BodyIncomplete, BodyIncomplete, Pace(REST_STALL)), _reader(environ)
    if isinstance(reader, LengthReader):
        return body.announced(reader.length) if reader.length else None
    return body.chunked(sys.maxsize, GridError) if isinstance(reader, ChunkedReader) else None


def _reader(environ: Mapping[str, Any]) -> Any:
    """gunicorn's part of the stream."""
    return getattr(environ["wsgi.input"], "reader", None)


def _discard(environ: Mapping[str, Any], rest: Iterator[bytes]) -> None:
    """Until its end, or until it takes too long: then the connection is cut."""
    deadline = time.monotonic() + REST_SECONDS
    try:
        with peer_deadline(environ, REST_STALL):
            late = any(time.monotonic() > deadline for _ in rest)
    except GridError:
        late = True
    if late:
        break_off(environ)


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
    peer = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if peer is None:
        yield
        return
    before = peer.gettimeout()
    peer.settimeout(stall)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            peer.settimeout(before)


def break_off(environ: Mapping[str, Any]) -> bool:
    """End the connection under an answer, both ways; False where the server does not show us the socket."""
    peer = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if peer is None:
        return False
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    return True


class _Body:
    """One body, read in one of the two ways that HTTP/1.1 knows."""

    def __init__(self, environ: Mapping[str, Any], incomplete: Refusal, stalled: Refusal, pace: Pace) -> None:
        self._environ = environ
        self._incomplete = incomplete
        self._stalled = stalled
        self._pace = pace

    def announced(self, length: int) -> Iterator[bytes]:
        received, read = 0, straight_reader(self._environ) or self._environ["wsgi.input"].read
        while received < length:
            piece = self._read(read, min(READ, length - received), received)
            if not piece:
                raise self._incomplete(received=received, length=length)
            received += len(piece)
            yield piece

    def chunked(self, max_bytes: int, too_large: TooLarge) -> Iterator[bytes]:
        received = 0
        with chunk_reader(self._environ, self._pace) as read:
            while piece := self._read(read, READ, received):
                received += len(piece)
                if received > max_bytes:
                    raise too_large(limit=max_bytes)
                yield piece

    def _read(self, read: Read, size: int, received: int) -> bytes:
        """Servers tell of a broken chunk and a reset alike by an OSError, of a timeout by one of its kinds.

        The bytes of a fast sender are always there, so that reading alone would never let other greenlets run.
        """
        time.sleep(0)
        try:
            self._pace.check(received)
            return read(size)
        except TimeoutError as error:
            raise self._stalled() from error
        except OSError as error:
            raise self._incomplete() from error
