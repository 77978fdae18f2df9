"""gunicorn's body streams, read as bytes come in, and never for ever.

Its own `read` takes 8 KiB off the socket and passes them on in kilobytes, each copied several times; of a chunked body
it returns nothing before all that was asked for is there, and takes chunk headers and trailers of any length.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

READ = 256 * 1024
"""Bytes asked of the server at a time."""
SLOWEST = 1024
"""Bytes a second that a sender keeps up over a whole body."""
FRAMING_FREE = 64 * 1024
FRAMING = 8
"""A chunked body takes at most FRAMING bytes of framing for each of its own, and FRAMING_FREE more."""

Read = Callable[[int], bytes]


class Pace:
    """Ends a body that comes slower than SLOWEST; the first `grace` seconds are free."""

    def __init__(self, grace: float) -> None:
        self._until = time.monotonic() + grace

    def check(self, received: int) -> None:
        """`received`: bytes so far. Raises TimeoutError."""
        if time.monotonic() > self._until + received / SLOWEST:
            raise TimeoutError("the body comes too slowly")


def straight_reader(environ: Mapping[str, Any]) -> Read | None:
    """Takes what has come of a body with a length, at most so many bytes, and keeps the count of what is left for
    gunicorn. None for any other stream, and for one that somebody began to read.
    """
    stream = environ["wsgi.input"]
    reader: Any = getattr(stream, "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    if not isinstance(getattr(reader, "length", None), int) or not hasattr(unreader, "mxchunk") or stream.buf.tell():
        return None
    unreader.mxchunk = READ

    def read(size: int) -> bytes:
        piece: bytes = unreader.read()
        if len(piece) > size:
            unreader.unread(piece[size:])
            piece = piece[:size]
        reader.length -= len(piece)
        return piece

    return read


@contextlib.contextmanager
def chunk_reader(environ: Mapping[str, Any], pace: Pace) -> Iterator[Read]:
    """Takes what has come of a chunked body; gunicorn reads the rest of the connection as before.

    For another server's stream, its own `read`, which bounds neither framing nor pace.
    """
    stream = environ["wsgi.input"]
    reader: Any = getattr(stream, "reader", None)
    parser: Any = getattr(reader, "parser", None)
    unreader: Any = getattr(getattr(reader, "req", None), "unreader", None)
    if parser is None or not hasattr(unreader, "mxchunk") or stream.buf.tell() or reader.buf.tell():
        yield stream.read
        return
    taken = _Taken(unreader.chunk, pace)
    unreader.chunk, unreader.mxchunk = taken.chunk, READ
    try:
        yield taken.reader(parser)
    finally:
        del unreader.chunk  # the method of its class again


class _Taken:
    """Counts what comes off the socket against what it holds of the body."""

    def __init__(self, chunk: Callable[[], bytes], pace: Pace) -> None:
        self._chunk = chunk
        self._pace = pace
        self._raw = 0
        self._content = 0

    def chunk(self) -> bytes:
        """In place of gunicorn's. Raises OSError."""
        self._pace.check(self._content)
        if self._raw > FRAMING_FREE + READ + (FRAMING + 1) * self._content:
            raise OSError("more framing than content")
        piece = self._chunk()
        self._raw += len(piece)
        return piece

    def reader(self, parser: Iterator[bytes]) -> Read:
        def read(_size: int) -> bytes:
            piece = next((one for one in parser if one), b"")
            self._content += len(piece)
            return piece

        return read
