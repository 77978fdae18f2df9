"""`POST /v2/models/<name>[/versions/<n>]/infer` in front of Flask.

The request's machinery of the framework costs more than reading, checking and writing the tensors. So this one route
is answered at the WSGI door, with the errors, keys, request ids and metrics that every other route has.
"""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson
from flask import Request

from grid_node import logs
from grid_node.adapters.hosting import ModelAccess
from grid_node.errors import BodyIncomplete, GridError, InferenceTooLarge, ModelNotFound, QueueFull
from grid_node.hosting import v2
from grid_node.hosting.refusal import refused
from grid_node.hosting.rights import ModelCaller
from grid_node.http.bodies import STALL, body_chunks, peer_deadline
from grid_node.http.body_streams import Pace, straight_reader
from grid_node.http.errors import AGAIN_LATER
from grid_node.http.files import sent
from grid_node.http.idle import IdleConnections
from grid_node.http.inflate import accepted_coding, deflated, inflated
from grid_node.services import Services
from grid_node.web import key_of_environ

log = logging.getLogger(__name__)

Environ = dict[str, Any]

ROUTE = "/v2/models/<name>/infer"
"""The route's name in the metrics, whatever version it names."""
SMALL = 64 * 1024
"""Bytes of a body that is read at once and not counted."""
BODIES = 4
"""Largest bodies that may be in memory at a time."""
PIECE = 256 * 1024
"""Bytes of an answer that are given to the server at a time."""
HEADER_LENGTH = "Inference-Header-Content-Length"

_PATH = re.compile(r"/v2/models/(.+?)(?:/versions/([^/]*))?/infer/?")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_VERSION_MAX = 2**31 - 1


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: list[v2.Buffer]
    """In pieces; a short one is whole."""


class BytesInHand:
    """Bytes of bodies that this process holds. Raises QueueFull instead of holding more than `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """What the block takes it gives back at its end."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._held + size > self._limit:
                raise QueueFull("Too many bytes of requests in hand", retry_after=1)
            self._held += size
            mine += size

        try:
            yield take
        finally:
            self._held -= mine


class InferDoor:
    """The route, out of a WSGI environ."""

    def __init__(self, services: Services) -> None:
        self._inference = services.hosting.inference
        self._access = services.hosting.access
        self._metrics = services.metrics
        self._offload = services.hosting.offload
        self._max_bytes = services.settings.infer_max_bytes
        self.in_hand = BytesInHand(BODIES * self._max_bytes)
        self._seconds = functools.cache(lambda status: services.metrics.http.labels(ROUTE, str(status)))

    def answer(self, environ: Environ, name: str, version: str | None) -> Answer:
        """Never raises."""
        arrived = time.perf_counter()
        request_id = os.urandom(16).hex()
        try:
            answer = self._infer(environ, _decoded(name), version_number(version))
        except GridError as error:
            answer = self._refuse(error)
        except Exception as error:
            logs.unbind_all()
            logs.bind(request_id=request_id)
            log.error("a route failed", exc_info=error)
            answer = self._refuse(GridError())
        answer.headers.extend((("Content-Length", str(sum(map(len, answer.body)))), ("X-Request-Id", request_id)))
        self._seconds(answer.status).observe(time.perf_counter() - arrived)
        return answer

    def _refuse(self, error: GridError) -> Answer:
        time.sleep(0)  # a refusal may have waited for nothing: others come before this connection's next request
        self._metrics.errors.labels(error.code).inc()
        headers = [("Content-Type", "application/json")]
        wait = error.retry_after or AGAIN_LATER.get(error.status)
        if wait is not None:
            headers.append(("Retry-After", str(wait)))
        return Answer(error.status, headers, [orjson.dumps(error.body())])

    def _infer(self, environ: Environ, name: str, version: int | None) -> Answer:
        caller = caller_of(self._access, environ)
        header_length = _header_length(environ)
        with self.in_hand.share() as take:
            body = self._body(environ, take)
            arrived = self._inference.now()
            coding = environ.get("HTTP_CONTENT_ENCODING")
            if coding:
                body = inflated(body, coding, self._max_bytes, self._offload, take)
            request = v2.parse(body, header_length)
            del body
            row, outputs = self._inference.run(
                caller,
                name,
                version,
                request.inputs,
                [one.name for one in request.wanted],
                request.timeout,
                arrived,
                functools.partial(v2.check_wanted, request),
            )
            return self._answer(environ, *v2.answer(row.id, row.version, request, outputs))

    def _answer(self, environ: Environ, length: int | None, body: list[v2.Buffer]) -> Answer:
        headers = [("Content-Type", "application/json" if length is None else "application/octet-stream")]
        if length is not None:
            headers.append((HEADER_LENGTH, str(length)))
        coding = accepted_coding(environ.get("HTTP_ACCEPT_ENCODING", ""))
        if coding is not None:
            headers.append(("Content-Encoding", coding))
            body = [deflated(b"".join(body), coding, self._offload)]
        elif sum(map(len, body)) <= PIECE:
            body = [b"".join(body)]
        return Answer(200, headers, body)

    def _body(self, environ: Environ, take: Callable[[int], None]) -> bytes:
        """Raises InferenceTooLarge, BodyIncomplete, LengthRequired, QueueFull."""
        length = environ.get("CONTENT_LENGTH", "")
        is_short = length.isdecimal() and len(length) < 6 and int(length) <= min(SMALL, self._max_bytes)
        if is_short and "HTTP_TRANSFER_ENCODING" not in environ:
            return _small_body(environ, int(length))
        pieces = []
        for piece in body_chunks(Request(environ), self._max_bytes, too_large=InferenceTooLarge):
            take(len(piece))
            pieces.append(piece)
        return b"".join(pieces)


def caller_of(access: ModelAccess, environ: Mapping[str, Any]) -> ModelCaller:
    """Who asks. Raises what refuses a key."""
    return access.by_key(key_of_environ(environ), environ.get("REMOTE_ADDR", ""))


def _small_body(environ: Environ, length: int) -> bytes:
    read = straight_reader(environ) or environ["wsgi.input"].read
    body = b""
    pace = Pace(STALL)
    try:
        with peer_deadline(environ, STALL):
            while len(body) < length and (more := read(length - len(body))):
                body += more
                pace.check(len(body))
    except OSError as error:
        raise BodyIncomplete from error
    if len(body) < length:
        raise BodyIncomplete(received=len(body), length=length)
    return body


def _header_length(environ: Environ) -> int | None:
    text = environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 12:
        raise refused(f"{HEADER_LENGTH} must be a number of bytes", HEADER_LENGTH)
    return int(text)


def version_number(text: str | None) -> int | None:
    """A version out of a path. Raises ModelNotFound for what no version is called."""
    if text is None:
        return None
    if not _VERSION.fullmatch(text) or int(text) > _VERSION_MAX:
        raise ModelNotFound()
    return int(text)


def _decoded(name: str) -> str:
    """A path is bytes, which WSGI shows as Latin-1."""
    try:
        return name.encode("latin-1").decode()
    except UnicodeError:
        raise ModelNotFound() from None


WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class InferFirst:
    """WSGI: the infer route by its door, everything else by the app."""

    def __init__(self, app: WsgiApp, door: InferDoor, idle: IdleConnections) -> None:
        self._app = app
        self._door = door
        self._idle = idle

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith("/v2/models/") or environ["REQUEST_METHOD"] != "POST":
            return self._app(environ, start_response)
        match = _PATH.fullmatch(path)
        if match is None:
            return self._app(environ, start_response)
        sock = environ.get("gunicorn.socket")
        self._idle.begin(sock)
        answer = self._door.answer(environ, match[1], match[2])
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
        return _Sent(answer.body, environ, functools.partial(self._idle.done, sock))


class _Sent:
    """The body, and what is to be done when the server has sent it."""

    __slots__ = ("_body", "_environ", "close")

    def __init__(self, body: list[v2.Buffer], environ: Environ, close: Callable[[], None]) -> None:
        self._body = body
        self._environ = environ
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        if len(self._body) == 1 and len(self._body[0]) <= PIECE:  # what the system's buffers take
            return iter((bytes(self._body[0]),))
        return sent(self._environ, self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        for buffer in self._body:
            for start in range(0, len(buffer), PIECE):
                yield bytes(buffer[start : start + PIECE])
