"""The body of a request straight from its socket.

gunicorn hands a body out in pieces of 1 KiB that it copies several times, from reads of 8 KiB: a fast upload then keeps
the hub busy at about 200 MB/s. Reading the same socket here, in large pieces, costs a tenth of that. What gunicorn
already holds of the body comes first, what it holds of the next request stays there, and its count goes down with
ours: however far a view reads, gunicorn finds its place again.
"""

import io
from collections.abc import Mapping
from typing import Any, Protocol

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader


class Input(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none when no more come. Raises OSError."""


def body_input(environ: Mapping[str, Any]) -> Input:
    """The fastest way to the body of this request: its socket where the server is a gunicorn that we know."""
    body = environ["wsgi.input"]
    if type(body) is Body and type(body.reader) is LengthReader and type(body.reader.unreader) is SocketUnreader:
        return SocketBody(body, body.reader)
    given: Input = body
    return given


class SocketBody:
    """A body of announced length that gunicorn began to receive."""

    def __init__(self, body: Body, reader: LengthReader) -> None:
        self._body = body
        self._reader = reader
        self._sock = reader.unreader.sock
        self._failed: OSError | None = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none when no more come. Raises OSError, once the bytes before it are given."""
        left_over = self._body.buf.tell()  # a view read through gunicorn first
        if left_over:
            return bytes(self._body.read(min(size, left_over)))
        wanted = min(size, self._reader.length)
        piece = bytearray(wanted)
        came = self._take_held(piece)
        came += self._receive(memoryview(piece)[came:])
        return bytes(memoryview(piece)[:came])

    def _take_held(self, into: bytearray) -> int:
        """Bytes that gunicorn read along with the head; what follows them belongs to the next request."""
        unreader = self._reader.unreader
        held = unreader.buf.getvalue()
        taken = min(len(held), len(into))
        if taken:
            into[:taken] = held[:taken]
            unreader.buf = io.BytesIO()
            unreader.buf.write(held[taken:])
            self._reader.length -= taken
        return taken

    def _receive(self, into: memoryview) -> int:
        """Fill `into`; fewer bytes when the sender left or an error came after some of them."""
        came = 0
        try:
            while came < len(into) and not self._failed:
                got = self._sock.recv_into(into[came:])
                if not got:
                    break
                came += got
                self._reader.length -= got
        except OSError as error:
            self._failed = error.with_traceback(None)  # its frames would keep the buffer
        if self._failed and not came:
            raise self._failed
        return came
