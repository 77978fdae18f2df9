"""Predictions over HTTP: the equal way where no socket is open, and the long poll of game updates."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from grid_client.errors import GridError
from grid_client.game_feed import Position
from grid_client.miner_identity import MinerIdentity
from grid_client.transfer import PLAIN, Http

POLL_WAIT = 25
"""Seconds that the node holds a poll without news."""
POLL_SPARE = 15.0
"""Seconds above that before a poll counts as lost."""
ANSWER_MAX = 64 * 1024 * 1024
"""Bytes of one answer. It is asked for uncompressed, so no small one can grow."""
JSON = {"Content-Type": "application/json"}


class PredictionHttp:
    """Signed requests about predictions and games to one node. `timeout` is in seconds, for an answer to begin."""

    def __init__(self, url: str, miner: MinerIdentity, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._transport = _Interruptible(verify=tls or True)
        limits = httpx.Timeout(min(10.0, timeout), read=timeout)
        client = httpx.Client(transport=self._transport, timeout=limits, follow_redirects=False, headers=PLAIN)
        self._http = Http(url, miner.request_headers, client=client)

    @classmethod
    def for_polls(cls, url: str, miner: MinerIdentity, tls: ssl.SSLContext | None = None) -> PredictionHttp:
        """One that waits as long as the node may hold a poll."""
        return cls(url, miner, POLL_WAIT + POLL_SPARE, tls)

    def submit(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The node's answer to one message or a batch, a refusal too. Raises GridError when it gave none."""
        body = json.dumps(payload).encode()
        try:
            return self._http.json("POST", "/predictions", body=body, headers=JSON)
        except GridError as error:
            if isinstance(error.body.get("code"), str):  # the node's word, and not a proxy's
                return _as_answered(error)
            raise

    def lookup(self, prediction_id: str) -> dict[str, Any]:
        """What the node has under this id. Raises GridError, `prediction_not_found` if that is nothing."""
        return self._http.json("GET", f"/predictions/{quote(prediction_id, safe='')}")

    def updates(self, after: Position | None, wait: int = POLL_WAIT) -> dict[str, Any]:
        """Game updates after a position, held until there are some; without one, or where it is lost, a snapshot."""
        query: dict[str, Any] = {"wait": wait}
        if after is not None:
            query |= {"epoch": after.epoch, "after": after.seq}
        return self._http.json("GET", "/games/updates?" + urlencode(query))

    def games(self) -> dict[str, Any]:
        """Every game that the node has, with the position that this is true for. Not signed."""
        return self._http.json("GET", "/games")

    def health(self) -> dict[str, Any]:
        """What the node says of its sockets, and its hotkey: not signed, so no proof of anything."""
        return self._http.json("GET", "/ws/health")

    def interrupt(self) -> None:
        """Ends the requests in hand with ConnectionLost, from another thread."""
        self._transport.interrupt()

    def shut(self) -> None:
        """`interrupt`, and every request that would follow."""
        self._transport.shut()

    def close(self) -> None:
        self._http.close()


def _as_answered(error: GridError) -> dict[str, Any]:
    """The body as it came, since it may be signed; a refusal gets the pause that only a header named."""
    if error.retry_after is None or "retry_after" in error.body or "signature" in error.body:
        return error.body
    return {**error.body, "retry_after": error.retry_after}


class _Bounded(httpx.SyncByteStream):
    """The body of an answer, as far as it is no longer than any that a node sends."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > ANSWER_MAX:
                raise httpx.ReadError("the answer is too large")
            yield piece

    def close(self) -> None:
        self._stream.close()


class _Interruptible(httpx.HTTPTransport):
    """Knows its sockets: closing a client from another thread does not wake one that waits for an answer."""

    def __init__(self, verify: ssl.SSLContext | bool) -> None:
        super().__init__(verify=verify)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_shut = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._refuse_if_shut()
        request.extensions = {**request.extensions, "trace": self._trace}
        response = super().handle_request(request)
        response.stream = _Bounded(response.stream)
        return response

    def interrupt(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for connection in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the plain one: TLS has its own, less bluntly

    def shut(self) -> None:
        self._is_shut = True
        self.interrupt()

    def _trace(self, event: str, found: dict[str, Any]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                open_still = [connection for connection in self._sockets if connection.fileno() >= 0]
                self._sockets = [*open_still, found["return_value"].get_extra_info("socket")]
            if self._is_shut:
                found["return_value"].close()  # nobody else knows of it yet
            self._refuse_if_shut()

    def _refuse_if_shut(self) -> None:
        if self._is_shut:
            raise httpx.ConnectError("the client is stopping")
