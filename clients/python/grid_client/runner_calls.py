"""The calls that a node may make to a Cog worker, and nothing else of it: one origin, four routes, bounded answers."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx

from grid_client.errors import GridError

log = logging.getLogger(__name__)

ALLOWED = tuple(
    (method, re.compile(path))
    for method, path in (
        ("GET", r"/health-check"),
        ("POST", r"/predictions"),
        ("PUT", r"/predictions/[A-Za-z0-9_-]{1,64}"),
        ("POST", r"/predictions/[A-Za-z0-9_-]{1,64}/cancel"),
    )
)
"""All that passes. A worker has more, `/shutdown` for one."""
PASSED_ON = {
    "prefer": "Prefer",
    "content-type": "Content-Type",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
}
REPLY_MAX = 512 * 1024
"""Bytes of a worker's answer."""
HEALTH_MAX = 4 * 1024 * 1024
"""Bytes of a health check, which repeats the log of the worker's setup."""
SETUP_LOGS_KEPT = 8 * 1024
"""Characters of that log that a node is told: the last ones."""
TIMEOUT = 15.0
TIMEOUT_MAX = 120.0
"""Seconds for one call, whatever the node asks."""
HEALTH_TIMEOUT = 3.0
OFFLINE = {"status": "OFFLINE"}
_VALUE = re.compile(r"[\x20-\x7e]{0,8192}")

Timer = Callable[[], float]


class CallRefused(GridError):
    """A call that brought no answer of the worker."""

    def __init__(self, code: str, message: str, status: int) -> None:
        body = {"success": False, "error": message, "code": code, "status": status}
        super().__init__(code, message, status=status, body=body)


def not_allowed() -> CallRefused:
    return CallRefused("call_not_allowed", "Call not allowed.", 403)


def unreachable() -> CallRefused:
    return CallRefused("runner_unreachable", "Worker is not reachable.", 502)


def too_large() -> CallRefused:
    return CallRefused("reply_too_large", "Worker's reply is too large.", 502)


def too_many() -> CallRefused:
    return CallRefused("try_again", "Temporarily unavailable.", 503)


def late() -> CallRefused:
    return CallRefused("runner_timeout", "Runner did not answer in time.", 504)


class Call(NamedTuple):
    """What a node asks for, checked. `timeout_s` in seconds; `json` None is no body."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any
    timeout_s: float

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Raises CallRefused."""
        method, path = data.get("method"), data.get("path")
        if not isinstance(method, str) or not isinstance(path, str) or not is_allowed(method, path):
            raise not_allowed()
        body = None if method == "GET" else data.get("json")
        return cls(method, path, _passed_on(data.get("headers")), body, _seconds(data.get("timeout_s")))


def is_allowed(method: str, path: str) -> bool:
    return any(method == one and pattern.fullmatch(path) for one, pattern in ALLOWED)


class Worker:
    """A Cog worker's HTTP API. May be used by many threads."""

    def __init__(
        self, url: str, *, clock: Timer = time.monotonic, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Raises GridError `bad_url`. `url` is an origin; no proxy of the environment stands between it and us."""
        self.origin = origin_of(url)
        self._clock = clock
        no_reuse = httpx.Limits(max_keepalive_connections=0)  # a worker that started anew has closed what was kept
        self._client = httpx.Client(trust_env=False, follow_redirects=False, limits=no_reuse)

    def close(self) -> None:
        self._client.close()

    def call(self, call: Call) -> tuple[int, Any]:
        """Status and JSON of the worker's answer, None for what is no JSON. Raises CallRefused."""
        return self._exchange(call, REPLY_MAX)

    def health(self) -> dict[str, Any]:
        """The whole health check; `{"status": "OFFLINE"}` when there is no answer, UNKNOWN when it is none of Cog's."""
        try:
            _status, body = self._exchange(Call("GET", "/health-check", {}, None, HEALTH_TIMEOUT), HEALTH_MAX)
        except CallRefused as error:
            log.debug("no health check: %s", error)
            return dict(OFFLINE)
        if not isinstance(body, dict) or not isinstance(body.get("status"), str):
            return {"status": "UNKNOWN"}
        return _shortened(body)

    def _exchange(self, call: Call, most: int) -> tuple[int, Any]:
        deadline = self._clock() + call.timeout_s
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **call.headers}
        content = None
        if call.json is not None:
            content = json.dumps(call.json).encode()
            headers.setdefault("Content-Type", "application/json")
        url = self.origin + call.path
        try:
            with self._client.stream(
                call.method, url, content=content, headers=headers, timeout=call.timeout_s
            ) as response:
                return response.status_code, _json_of(self._body(response, most, deadline))
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
            raise late() from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.debug("worker: %s %s: %r", call.method, call.path, error)
            raise unreachable() from None

    def _body(self, response: httpx.Response, most: int, deadline: float) -> bytes:
        found = bytearray()
        for piece in response.iter_raw():
            found += piece
            if len(found) > most:
                raise too_large()
            if self._clock() > deadline:
                raise late()
        return bytes(found)


def origin_of(url: str) -> str:
    """Scheme, host and port. Raises GridError `bad_url` for what is not http(s), or holds more than an origin."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise GridError("bad_url", f"{url!r} is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GridError("bad_url", f"{url!r} is no http:// or https:// address")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise GridError("bad_url", "the worker's address is scheme, host and port, such as http://localhost:3009")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def _passed_on(given: object) -> dict[str, str]:
    """The headers that a worker hears of, of all that a node sent."""
    headers = given if isinstance(given, Mapping) else {}
    return {
        PASSED_ON[name.lower()]: value
        for name, value in headers.items()
        if isinstance(name, str) and name.lower() in PASSED_ON and isinstance(value, str) and _VALUE.fullmatch(value)
    }


def _seconds(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:  # NaN is above nothing
        return TIMEOUT
    return float(min(given, TIMEOUT_MAX))


def _json_of(body: bytes) -> Any:
    """None for what is no JSON; NaN is none either, though Python reads it."""
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _shortened(health: dict[str, Any]) -> dict[str, Any]:
    """Its status alone, if it is still too large without most of the setup's log."""
    setup = health.get("setup")
    if isinstance(setup, dict) and isinstance(setup.get("logs"), str):
        health = {**health, "setup": {**setup, "logs": setup["logs"][-SETUP_LOGS_KEPT:]}}
    return health if len(json.dumps(health)) <= REPLY_MAX else {"status": health["status"][:64]}
