"""What both drivers make of a request and of httpx's answers and exceptions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from grid_client.chain.config import PylonTimeout
from grid_client.chain.exceptions import (
    PylonRequestException,
    PylonResponseException,
    PylonTimeoutException,
    TimeoutReason,
)
from grid_client.chain.exchange import ANSWER_MAX, Answer, Request, encoded

TIMEOUT_HEADER = "X-Pylon-Timeout"
PLAIN = "identity"
TIMEOUTS = (
    (httpx.ConnectTimeout, TimeoutReason.CONNECT),
    (httpx.WriteTimeout, TimeoutReason.WRITE),
    (httpx.PoolTimeout, TimeoutReason.POOL),
)


def sent(address: str, request: Request, timeout: PylonTimeout) -> dict[str, Any]:
    """Arguments of httpx's `stream`."""
    timeout = within(request, timeout)
    headers: dict[str, bytes] = {"Accept-Encoding": PLAIN.encode(), TIMEOUT_HEADER: str(timeout.read).encode()}
    if request.token:
        headers["Authorization"] = b"Bearer " + request.token.encode()
    if request.body is not None:
        headers["Content-Type"] = b"application/json"
    return {
        "method": request.method,
        "url": address + request.path,
        "headers": headers,
        "content": None if request.body is None else encoded(request.body),
        "timeout": httpx.Timeout(**timeout.model_dump()),
    }


def within(request: Request, timeout: PylonTimeout) -> PylonTimeout:
    """The time that this request has."""
    if request.read_seconds is None:
        return timeout
    return PylonTimeout(**{name: min(seconds, request.read_seconds) for name, seconds in timeout})


def failure(error: httpx.RequestError, request: Request, timeout: PylonTimeout) -> PylonRequestException:
    """What it means that httpx got no answer."""
    timeout = within(request, timeout)
    if isinstance(error, httpx.TimeoutException):
        reason = next((reason for kind, reason in TIMEOUTS if isinstance(error, kind)), TimeoutReason.READ)
        return PylonTimeoutException(reason, getattr(timeout, reason.value))
    return PylonRequestException(f"No answer from the service: {type(error).__name__}")


class Incoming:
    """An answer as it arrives. `take` raises what keeps it from being one."""

    def __init__(
        self,
        response: httpx.Response,
        request: Request,
        timeout: PylonTimeout,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._response = response
        self._clock = clock
        self._seconds = within(request, timeout).read
        self._deadline = self._clock() + self._seconds
        self._parts: list[bytes] = []
        self._size = 0
        self._check_coding(response.headers.get("Content-Encoding", PLAIN))

    def _check_coding(self, coding: str) -> None:
        if coding.lower() not in (PLAIN, ""):
            raise PylonResponseException("Answer cannot be read", self._response.status_code, "it is compressed")

    def take(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > ANSWER_MAX:
            detail = f"it is larger than {ANSWER_MAX} bytes"
            raise PylonResponseException("Answer cannot be read", self._response.status_code, detail)
        if self._clock() > self._deadline:  # each part came in time, and still there is no end of it
            raise PylonTimeoutException(TimeoutReason.READ, self._seconds)
        self._parts.append(part)

    @property
    def answer(self) -> Answer:
        return Answer(self._response.status_code, b"".join(self._parts))
