"""Everything that the client raises about a service. What a caller got wrong itself is a ValueError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar


class BasePylonException(Exception):
    """Base of all."""


class PylonRequestException(BasePylonException):
    """The service gave no answer. These are tried again."""


class TimeoutReason(StrEnum):
    """What took too long; `job`: weights that were waited for."""

    CONNECT = "connect"
    READ = "read"
    WRITE = "write"
    POOL = "pool"
    GATEWAY_TIMEOUT = "gateway_timeout"
    JOB = "job"


class PylonTimeoutException(PylonRequestException):
    """No answer in time, or the service itself had none in time (504)."""

    def __init__(self, reason: TimeoutReason, timeout_seconds: float | None = None, detail: str | None = None) -> None:
        self.reason = reason
        self.timeout_seconds = timeout_seconds
        self.detail = detail
        after = "" if timeout_seconds is None else f" after {timeout_seconds:g} s"
        super().__init__(f"Timed out ({reason}){after}" + (f": {detail}" if detail else ""))


class PylonResponseException(BasePylonException):
    """The service refused, or its answer cannot be read.

    status_code: of HTTP; detail: what the service says; extra: one `{"message", "key"}` for each wrong field.
    """

    default_message: ClassVar[str] = "The service refused"
    default_status_code: ClassVar[int | None] = None

    def __init__(
        self,
        message: str | None = None,
        status_code: int | None = None,
        detail: str | None = None,
        extra: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.status_code = self.default_status_code if status_code is None else status_code
        self.detail = detail
        self.extra = [dict(field) for field in extra]
        said = message or self.default_message
        said += f" (HTTP {self.status_code})" if self.status_code is not None else ""
        super().__init__(f"{said}: {detail}" if detail else said)


class PylonUnauthorized(PylonResponseException):
    """No credentials, or none that can be read."""

    default_message = "Unauthorized"
    default_status_code = 401


class PylonForbidden(PylonResponseException):
    """Wrong credentials."""

    default_message = "Forbidden"
    default_status_code = 403


class PylonNotFound(PylonResponseException):
    """No such block, subnet, commitment, ..."""

    default_message = "Not found"
    default_status_code = 404


class PylonNetuidMismatch(PylonResponseException):
    """The identity is bound to another subnet than the one asked for."""

    default_message = "Netuid mismatch"
    default_status_code = 308


class PylonBadGateway(PylonResponseException):
    """The chain did not answer the service, or refused."""

    default_message = "Bad gateway"
    default_status_code = 502


class PylonClosed(BasePylonException):
    """The client is not open."""


class PylonMisconfigured(BasePylonException):
    """The configuration lacks what the call needs, or names what the service does not have."""
