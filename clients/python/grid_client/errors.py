"""The one exception tree of the package: `GridError` is everything that it raises about a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})

ENDS_FOR_GOOD = frozenset({"auth_failed", "replaced"})
"""Reasons of `closing` after which a reconnect does harm; `replaced`: another process has this identity."""


class GridError(Exception):
    """A refusal by the node or a failure on the way to it.

    code: stable word (`rate_limited`, `connection_lost`, ...); status: HTTP status, 0 if the node gave no
    answer; retry_after: seconds after which another try makes sense, or None; body: the node's error body.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int = 0,
        retry_after: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.body: dict[str, Any] = dict(body or {})

    @classmethod
    def from_body(cls, body: object, status: int = 0) -> Self:
        """From the error body of an ack, a push or an HTTP answer, whatever its shape."""
        fields = body if isinstance(body, Mapping) else {}
        found = _whole(fields.get("status"), status)
        code = fields.get("code")
        return cls(
            code if isinstance(code, str) and code else f"http_{found}",
            str(fields.get("error") or fields.get("reason") or ""),
            status=found,
            retry_after=_seconds(fields.get("retry_after")),
            body=fields,
        )

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in RETRYABLE_STATUSES


class ConnectionLost(GridError):
    """The node could not be reached, or the connection broke before the answer."""

    def __init__(self, message: str = "no connection to the node") -> None:
        super().__init__("connection_lost", message)

    @property
    def retryable(self) -> bool:
        return True


class SessionClosed(GridError):
    """The node ended the connection and said why (its event `closing`): `code` is the reason."""

    @classmethod
    def from_event(cls, body: object) -> Self:
        fields = body if isinstance(body, Mapping) else {}
        reason, text = str(fields.get("reason") or "closed"), str(fields.get("error") or "")
        return cls(reason, text, retry_after=_seconds(fields.get("retry_after")), body=fields)

    @property
    def retryable(self) -> bool:
        return self.code not in ENDS_FOR_GOOD


class DeadlineExceeded(GridError):
    """The caller's own time limit passed."""

    def __init__(self, message: str) -> None:
        super().__init__("deadline_exceeded", message)


class TaskFailed(GridError):
    """The task ended as `failed` or `cancelled`; `body` holds its terminal update."""


class HashMismatch(GridError):
    """What was downloaded is not what the node announced."""

    def __init__(self, message: str) -> None:
        super().__init__("sha256_mismatch", message)


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(0.0, float(value)) if value < 1e9 else None  # NaN compares false
