"""multipart/form-data in pieces (RFC 7578, RFC 2046 section 5.1), without reading or waiting itself.

Strict where a lenient reader would have to guess: lines end with CRLF, and a line that begins like the delimiter is
one. So the bytes of a part are the same however the network cuts the body.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from werkzeug.http import parse_options_header

from grid_node.errors import InvalidPayload

HEAD_MAX = 8 * 1024
"""Bytes before the first part, and bytes of the headers of one part."""

PARTS_MAX = 128

_PLAIN = frozenset({"", "binary", "8bit", "7bit"})
_CRLF = b"\r\n"


@dataclass(frozen=True)
class PartHead:
    """A part begins. `is_file`: it came with a file name."""

    name: str
    is_file: bool
    filename: str = field(default="", compare=False)
    content_type: str = field(default="", compare=False)


class PartEnd:
    """A part is whole."""


PART_END = PartEnd()
Event = PartHead | bytes | PartEnd


class MultipartReader:
    """Turns the pieces of a body into parts: a PartHead, its bytes, PART_END, and again.

    Holds no more than HEAD_MAX bytes and the piece in hand. Every method raises InvalidPayload for what is none.
    """

    def __init__(self, boundary: str) -> None:
        if not 1 <= len(boundary) <= 70 or not boundary.isascii():  # RFC 2046, section 5.1.1
            raise refused("has no boundary, or one that cannot be")
        self._delimiter = _CRLF + b"--" + boundary.encode()
        self._rest = _CRLF  # the first delimiter may be the first line
        self._state: Callable[[], tuple[Event, ...] | None] = self._before
        self._parts = 0
        self._is_over = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        self._rest += piece
        while (events := self._state()) is not None:
            yield from events

    def finish(self) -> None:
        """The body is at its end; so must be the form."""
        if not self._is_over:
            raise refused("ends before its last part does")

    # --- states: each takes what it can from the rest and returns events, or None when it needs more

    def _before(self) -> tuple[Event, ...] | None:
        return self._up_to_delimiter(keep=False)

    def _inside(self) -> tuple[Event, ...] | None:
        return self._up_to_delimiter(keep=True)

    def _up_to_delimiter(self, keep: bool) -> tuple[Event, ...] | None:
        at = self._rest.find(self._delimiter)
        if at < 0:
            return self._all_but_a_beginning() if keep else self._wait_for_first()
        data, self._rest = self._rest[:at], self._rest[at + len(self._delimiter) :]
        self._state = self._delimited
        if not keep:
            return ()
        return (data, PART_END) if data else (PART_END,)

    def _all_but_a_beginning(self) -> tuple[Event, ...] | None:
        """The last bytes may be the beginning of a delimiter."""
        sure = len(self._rest) - len(self._delimiter) + 1
        if sure <= 0:
            return None
        data, self._rest = self._rest[:sure], self._rest[sure:]
        return (data,)

    def _wait_for_first(self) -> tuple[Event, ...] | None:
        if len(self._rest) > HEAD_MAX:
            raise refused("does not begin with its boundary")
        return None

    def _delimited(self) -> tuple[Event, ...] | None:
        """After a delimiter: two hyphens end the form; else spaces and the end of the line."""
        if self._rest.startswith(b"--"):
            self._state = self._after
            self._is_over = True
            return ()
        line = self._rest.find(_CRLF)
        if line < 0 and len(self._rest) <= HEAD_MAX:
            return None
        if line < 0 or self._rest[:line].strip(b" \t"):
            raise refused("has a line that begins like its boundary")
        self._rest = self._rest[line:]
        self._state = self._headers
        return ()

    def _headers(self) -> tuple[Event, ...] | None:
        """The line end before the headers is still there, so that a part without headers looks like the others."""
        end = self._rest.find(_CRLF + _CRLF)
        if not 0 <= end <= HEAD_MAX:
            if len(self._rest) > HEAD_MAX:
                raise refused("has a part with too long a head")
            return None
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise refused(f"has more than {PARTS_MAX} parts")
        self._state = self._inside
        return (_part_head(head),)

    def _after(self) -> None:
        self._rest = b""


def refused(problem: str) -> InvalidPayload:
    return InvalidPayload(fields={"_schema": [f"the form {problem}"]})


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type names; empty if it names none."""
    return parse_options_header(content_type)[1].get("boundary", "")


def _part_head(head: bytes) -> PartHead:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise refused("has a head that is not UTF-8") from None
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("content-transfer-encoding", "").lower() not in _PLAIN:
        raise refused("has a part in a transfer encoding")  # RFC 7578, section 4.7
    kind, options = parse_options_header(headers.get("content-disposition"))
    name = options.get("name", "")
    if kind != "form-data" or not 1 <= len(name) <= 64:
        raise refused("has a part without a name")
    filename = options.get("filename", options.get("filename*"))
    return PartHead(name, filename is not None, filename or "", headers.get("content-type", ""))
