"""The answer that carries a blob: conditional, by range, in pieces (RFC 9110, sections 13 to 15)."""

import contextlib
import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Request, Response, jsonify

from grid_node.blobs.ahead import read_whole
from grid_node.blobs.store import Blobs
from grid_node.errors import GridError, RangeNotSatisfiable
from grid_node.http.bodies import break_off, peer_deadline

log = logging.getLogger(__name__)

SEND_STALL = 60.0
"""Seconds without progress after which a reader is cut."""

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,1000})\s*-\s*([0-9]{0,1000})", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """`length` bytes from `start`."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def blob_answer(
    request: Request,
    blobs: Blobs,
    sha256: str,
    *,
    filename: str,
    content_type: str,
    inline: bool = False,
    stall: float = SEND_STALL,
) -> Response:
    """GET and HEAD of a blob: 200, 206, 304 or 416. Raises NotFound when there is no such blob, ModelCorrupt when it is
    known to be damaged. A whole blob is compared with its digest on the way; a part is not.

    `filename` is text without controls; `inline` lets a browser show the bytes where it stands. A multi-range is 416,
    which RFC 9110 allows.
    """
    size = blobs.size(sha256)
    etag = f'"{sha256}"'
    if request.if_none_match.contains_weak(sha256):
        return _described(Response(status=HTTPStatus.NOT_MODIFIED), etag)
    try:
        part = wanted_part(request, etag, size)
    except RangeNotSatisfiable as error:
        return _described(_unsatisfiable(error, size), etag)
    answer = Response(_body(request, blobs, sha256, part, stall), content_type=content_type)
    answer.content_length = size if part is None else part.length
    answer.headers.set("Content-Disposition", "inline" if inline else "attachment", **_named(filename))
    if part is not None:
        answer.status_code = HTTPStatus.PARTIAL_CONTENT
        answer.headers["Content-Range"] = part.content_range(size)
    return _described(answer, etag)


def _named(filename: str) -> dict[str, str]:
    """What is not ASCII is told twice: so that old readers understand it, and as it is (RFC 6266, section 4.3)."""
    if filename.isascii():
        return {"filename": filename}
    simple = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    return {"filename": simple, "filename*": f"UTF-8''{quote(filename, safe='')}"}


def wanted_part(request: Request, etag: str, size: int) -> Part | None:
    """The range to send, None for everything: no GET, no range, nonsense, or an `If-Range` that does not hold."""
    header = request.headers.get("Range")
    if header is None or request.method != "GET":
        return None
    if request.headers.get("If-Range", etag).strip() != etag:
        return None
    return parse_range(header, size)


def parse_range(header: str, size: int) -> Part | None:
    """One range of `bytes`; None for a header that RFC 9110 says to ignore.

    Raises RangeNotSatisfiable for several ranges and for one that names no byte.
    """
    if "," in header and header.lower().lstrip().startswith("bytes"):
        raise RangeNotSatisfiable("Ask for one range at a time", size=size)
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last or size - 1), size - 1)
        if last and int(last) < start:
            return None
    if start > end or start >= size:
        raise RangeNotSatisfiable(size=size)
    return Part(start, end - start + 1)


def _body(request: Request, blobs: Blobs, sha256: str, part: Part | None, stall: float) -> Iterator[bytes]:
    if request.method == "HEAD":
        return iter(())
    pieces = read_whole(blobs, sha256) if part is None else blobs.open(sha256, part.start, part.length)
    return sent(request.environ, pieces, stall)


def sent(environ: Mapping[str, Any], pieces: Iterator[bytes], stall: float = SEND_STALL) -> Iterator[bytes]:
    """Runs while the server sends, after the request's context; a stalled reader times out its socket.

    Bytes that cannot be read, or prove to be damaged, break the connection: the reader must see that some are missing.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(getattr(pieces, "close", lambda: None))
        stack.enter_context(peer_deadline(environ, stall))
        try:
            yield from pieces
        except GridError as error:
            log.error("an answer was broken off: %s", error.code)
            if not break_off(environ):
                raise


def _unsatisfiable(error: RangeNotSatisfiable, size: int) -> Response:
    answer = jsonify(error.body())
    answer.status_code = error.status
    answer.headers["Content-Range"] = f"bytes */{size}"
    return answer


def _described(answer: Response, etag: str) -> Response:
    answer.headers["ETag"] = etag
    answer.headers["Accept-Ranges"] = "bytes"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
