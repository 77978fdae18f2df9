"""Kept connections between two requests. A node that stops closes them, or its server would wait for each in vain."""

import contextlib
import socket
import weakref
from typing import Any

from flask import Flask, Response, request


class IdleConnections:
    """The sockets of this process that have served a request, and those that serve one now."""

    def __init__(self) -> None:
        self._served: weakref.WeakSet[Any] = weakref.WeakSet()
        self._busy: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closing = False

    def watch(self, app: Flask) -> None:
        app.before_request(self._begin)
        app.after_request(self._follow)

    def shut_down(self) -> None:
        """End those that are idle; the others end after the answer that they wait for."""
        self._closing = True
        for sock in list(self._served):
            if sock not in self._busy:
                _end(sock)

    def begin(self, sock: Any) -> None:
        """The connection serves a request, until `done`. None: the server does not show its socket."""
        if sock is not None:
            self._served.add(sock)
            self._busy.add(sock)

    def done(self, sock: Any) -> None:
        if sock is not None:
            self._busy.discard(sock)
            if self._closing:
                _end(sock)

    def _begin(self) -> None:
        self.begin(request.environ.get("gunicorn.socket"))

    def _follow(self, answer: Response) -> Response:
        sock = request.environ.get("gunicorn.socket")
        if sock is not None:
            answer.call_on_close(lambda: self.done(sock))
        return answer


def _end(sock: Any) -> None:
    """To the server it looks as if the peer had closed its side; an answer on its way is still sent."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
