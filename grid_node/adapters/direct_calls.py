"""Calls to workers that are reached by an address of their own."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

from grid_node.clock import Clock
from grid_node.errors import ReplyTooLarge, RunnerGone, RunnerTimeout, RunnerUnreachable
from grid_node.runners.allowed_calls import REPLY_MAX, allowed_headers, check_call
from grid_node.runners.ports import Reply
from grid_node.wire import strict_json

CONNECT_MAX = 5.0
"""Seconds until a worker must have taken the connection."""
NO_TUNNEL = frozenset({530})
"""Cloudflare's edge has no connection to the tunnel (its error 1033)."""
NO_ORIGIN = frozenset({502, 520, 521, 522, 523, 525, 526})
TOO_SLOW = frozenset({504, 524})
"""https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/"""


class DirectCalls:
    """One pool of connections to all workers. Follows no redirect, and uses no proxy of the environment."""

    def __init__(self, clock: Clock, url_template: str) -> None:
        """`url_template` holds `{hostname}` where the worker's name goes."""
        self._clock = clock
        self._template = url_template.rstrip("/")
        self._http = httpx.Client(follow_redirects=False, trust_env=False)

    def call(
        self, hostname: str, method: str, path: str, json: Any, headers: Mapping[str, str] | None, timeout_s: float
    ) -> Reply:
        """Raises CallNotAllowed, RunnerGone, RunnerTimeout, RunnerUnreachable, ReplyTooLarge."""
        check_call(method, path)
        url = self._template.replace("{hostname}", hostname) + path
        sent = allowed_headers(headers)
        body = None
        if json is not None:
            body = strict_json.dumps(json).encode()
            sent = {**sent, "Content-Type": "application/json"}
        wait = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_MAX))
        try:
            with self._http.stream(method, url, content=body, headers=sent, timeout=wait) as answer:
                return _reply(answer.status_code, self._read(answer, self._clock.steady() + timeout_s))
        except httpx.ConnectTimeout:
            raise RunnerUnreachable() from None
        except httpx.TimeoutException:
            raise RunnerTimeout() from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise RunnerUnreachable() from None

    def _read(self, answer: httpx.Response, until: float) -> bytes:
        """The body. A timeout of the connection starts anew with each piece; the whole has one too."""
        body = bytearray()
        for piece in answer.iter_bytes(16384):
            body += piece
            if len(body) > REPLY_MAX:
                raise ReplyTooLarge()
            if self._clock.steady() > until:
                raise RunnerTimeout()
        return bytes(body)


def _reply(status: int, body: bytes) -> Reply:
    """What the worker said, or what the edge said in its place."""
    try:
        return Reply(status, json.loads(body) if body else None)
    except (ValueError, RecursionError):
        if status in NO_TUNNEL:
            raise RunnerGone() from None
        if status in NO_ORIGIN:
            raise RunnerUnreachable() from None
        if status in TOO_SLOW:
            raise RunnerTimeout() from None
        return Reply(status, None)
