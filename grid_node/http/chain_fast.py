"""The newest state of a subnet in front of Flask, where it is in memory.

The framework's own work on a request costs more than all that this answer takes. Whatever cannot be answered at once
goes the normal way, with what was decided of its sender.
"""

import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from grid_node.chain.ports import KINDS
from grid_node.errors import ChainError
from grid_node.http.chain import AGE, ID, OA
from grid_node.http.chain_door import ChainDoor
from grid_node.http.chain_measuring import template
from grid_node.http.idle import IdleConnections
from grid_node.services import Services

BODY_MAX = 256 * 1024
"""Bytes that the system's buffers take: the server does not wait for the reader."""
_PATH = re.compile(
    r"/api/v1/(?:identity/([A-Za-z][A-Za-z0-9_]*)/)?subnet/([0-9]{1,5})/block/latest/(" + "|".join(KINDS) + ")/?"
)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class ChainFirst:
    """WSGI: what is in memory at once, everything else by the app."""

    def __init__(self, app: WsgiApp, services: Services, door: ChainDoor, idle: IdleConnections) -> None:
        self._app = app
        self._reads = services.chain.reads
        self._door = door
        self._idle = idle
        self._requests = services.chain.metrics
        self._http = services.metrics.http
        self._series = functools.cache(self._series_of)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/api/v1/") and environ["REQUEST_METHOD"] == "GET":
            match = _PATH.fullmatch(path)
            if match is not None:
                answer = self._answer(environ, start_response, match[1], int(match[2]), match[3])
                if answer is not None:
                    return answer
        return self._app(environ, start_response)

    def _answer(
        self, environ: Environ, start_response: StartResponse, name: str | None, netuid: int, kind: str
    ) -> "_Sent | None":
        arrived = time.perf_counter()
        if not self._admits(environ, name, netuid):
            return None
        told = self._reads.ready(kind, netuid)
        if told is None or told.block is None or len(told.body) > BODY_MAX:
            return None
        sock = environ.get("gunicorn.socket")
        self._idle.begin(sock)
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(told.body))),
            (AGE, str(self._reads.age(told.block))),
            ("X-Request-Id", os.urandom(16).hex()),
        ]
        start_response("200 OK", headers)
        count, seconds = self._series(name is None, kind)
        spent = time.perf_counter() - arrived
        count.answered(200, spent)
        seconds.observe(spent)
        return _Sent(told.body, functools.partial(self._idle.done, sock))

    def _admits(self, environ: Environ, name: str | None, netuid: int) -> bool:
        """Whether the sender may read this now. Who may not is told so the normal way."""
        try:
            if name is None:
                self._door.open(environ)
            else:
                self._door.identity(environ, name, netuid)
            self._door.timeout(environ)
        except ChainError:
            return False
        return not self._door.is_renewed(environ)

    def _series_of(self, is_open: bool, kind: str) -> tuple[Any, Any]:
        rule = f"{OA if is_open else ID}/block/latest/{kind}"
        return self._requests.of_request("GET", template(rule)), self._http.labels(rule, "200")


class _Sent:
    """The body, and what is to be done when the server has sent it."""

    __slots__ = ("_body", "close")

    def __init__(self, body: bytes, close: Callable[[], None]) -> None:
        self._body = body
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        time.sleep(0)  # an answer that waits for nothing: others come before this connection's next request
        return iter((self._body,))
