"""Who asks, and how long they wait: what the requests of Pylon's API say in their headers."""

import math
import re
from collections.abc import Callable
from typing import Any

from flask import Response, request
from marshmallow import Schema
from werkzeug.http import parse_cookie

from grid_node.chain.pylon import Identity
from grid_node.chain.schemas import LoginRequest, load, parsed
from grid_node.errors import ChainBodyTooLarge, ChainError, ChainMalformed, ChainNotFound
from grid_node.http.bodies import body_chunks
from grid_node.services import Services

LOGIN = LoginRequest()
COOKIE = "pylon_session"
TIMEOUT = "HTTP_X_PYLON_TIMEOUT"

_ADMITTED = "grid_node.chain_admitted"
_RENEWED = "grid_node.chain_renewed"
SMALL = 32 * 1024
"""Bytes of a body that is read and checked where it came in: at most 5 ms. A mebibyte takes 150."""
_SHOWN_MAX = 100
"""Characters of a header that an answer repeats."""
_WHOLE = re.compile(r"[0-9]{1,4000}")

Environ = dict[str, Any]


class ChainDoor:
    """Decides from the headers alone, once for each request, before any byte of its body is read."""

    def __init__(self, services: Services) -> None:
        self._access = services.chain.access
        self._pylon = services.chain.pylon
        self._offload = services.hosting.offload
        self._max_bytes = services.settings.chain_body_max_bytes
        self._session_seconds = int(services.settings.chain_session_seconds)

    # --- who ------------------------------------------------------------------------------------------------------

    def open(self, environ: Environ) -> None:
        """Raises what ChainAccess.open raises."""
        self._once(environ, lambda: self._access.open(environ.get("HTTP_AUTHORIZATION"), _address(environ)))

    def block_level(self, environ: Environ) -> None:
        """Raises what ChainAccess.block_level raises."""
        self._once(environ, lambda: self._access.block_level(environ.get("HTTP_AUTHORIZATION"), _address(environ)))

    def identity(self, environ: Environ, name: str, netuid: int) -> Identity:
        """Raises what ChainAccess.identity raises."""
        identity: Identity = self._once(environ, lambda: self._identity(environ, name, netuid))
        return identity

    def login(self, name: str) -> Identity:
        """Check the token in the body; the answer will carry the cookie. Raises what ChainAccess.login raises, and
        for a body that says nothing of a token."""
        raw = self.raw_body()
        if self._pylon.identity(name) is None:
            self._access.login(name, "", _address(request.environ))
        token = self._loaded(LOGIN, raw)["token"]
        identity, cookie = self._access.login(name, token, _address(request.environ))
        request.environ[_RENEWED] = (name, cookie)
        return identity

    def _identity(self, environ: Environ, name: str, netuid: int) -> Identity:
        authorization = environ.get("HTTP_AUTHORIZATION")
        identity, renewed = self._access.identity(name, netuid, authorization, _session(environ), _address(environ))
        if renewed is not None:
            environ[_RENEWED] = (name, renewed)
        return identity

    def _once(self, environ: Environ, decide: Callable[[], Any]) -> Any:
        """A refusal is counted against its address, so the two ways of answering must not both ask."""
        if _ADMITTED not in environ:
            try:
                environ[_ADMITTED] = decide()
            except ChainError as error:
                environ[_ADMITTED] = error
        decided = environ[_ADMITTED]
        if isinstance(decided, ChainError):
            raise decided
        return decided

    def is_renewed(self, environ: Environ) -> bool:
        return _RENEWED in environ

    def give_cookie(self, answer: Response) -> Response:
        """After a request: the session that it made or renewed."""
        given = request.environ.get(_RENEWED)
        if given is not None:
            name, value = given
            path = f"/api/v1/identity/{name}"
            answer.set_cookie(
                COOKIE,
                value,
                max_age=self._session_seconds,
                path=path,
                secure=request.is_secure,
                httponly=True,
                samesite="Strict",
            )
        return answer

    # --- how long -------------------------------------------------------------------------------------------------

    def timeout(self, environ: Environ) -> float:
        """Seconds that the request may take. Raises ChainMalformed."""
        given = environ.get(TIMEOUT)
        if given is None:
            return float(self._pylon.default_request_timeout_seconds)
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if math.isnan(seconds):
            raise ChainMalformed(f"Invalid X-Pylon-Timeout header value: {given[:_SHOWN_MAX]}")
        if seconds <= 0:
            raise ChainMalformed(f"X-Pylon-Timeout header value must be positive, got {seconds}")
        return min(seconds, float(self._pylon.max_request_timeout_seconds))

    # --- what -----------------------------------------------------------------------------------------------------

    def body(self, schema: Schema) -> dict[str, Any]:
        """Raises ChainBodyTooLarge, ChainMalformed, ChainInvalid."""
        return self._loaded(schema, self.raw_body())

    def _loaded(self, schema: Schema, raw: bytes) -> dict[str, Any]:
        checked: dict[str, Any] = self._offload(_checked, schema, raw) if len(raw) > SMALL else _checked(schema, raw)
        return checked

    def raw_body(self) -> bytes:
        return b"".join(body_chunks(request, self._max_bytes, too_large=_too_large))


def _checked(schema: Schema, raw: bytes) -> dict[str, Any]:
    return load(schema, parsed(raw))


def _too_large(limit: int) -> ChainBodyTooLarge:
    return ChainBodyTooLarge(f"Request body is larger than {limit} bytes.")


def _session(environ: Environ) -> str | None:
    """The value of the session cookie. A cookie of somebody else's may hold any bytes; ours is ASCII."""
    given = environ.get("HTTP_COOKIE", "")
    return parse_cookie(given.encode("ascii", "replace").decode()).get(COOKIE)


def _address(environ: Environ) -> str:
    return str(environ.get("REMOTE_ADDR", ""))


def whole(text: str) -> int:
    """A number of a path. Raises ChainNotFound for what is none."""
    if not _WHOLE.fullmatch(text):
        raise ChainNotFound()
    return int(text)
