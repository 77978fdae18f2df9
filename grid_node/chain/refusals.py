"""Errors of the node as Pylon's API tells them: `{"status_code", "detail"}`, and `extra` where fields were wrong."""

from typing import Any, NamedTuple

from grid_node.errors import (
    ChainError,
    ChainFault,
    ChainInvalid,
    ChainMethodNotAllowed,
    ChainNotFound,
    GridError,
    MethodNotAllowed,
    NotFound,
)

EXTRA_MAX = 100
"""Wrong fields that one answer names."""


class Refusal(NamedTuple):
    """What a client is told. `retry_after` is in seconds."""

    status: int
    body: dict[str, Any]
    retry_after: float | None


def refusal(error: Exception, where: str) -> Refusal:
    """The answer to any exception. `where` names the request, such as `PUT /api/v1/...`.

    Errors of other parts of the node keep their status and their words; faults of ours are told without detail.
    """
    if isinstance(error, ChainInvalid):
        error = ChainInvalid(f"Validation failed for {where}", extra=error.data.get("extra", []))
    elif not isinstance(error, GridError) or error.status == ChainFault.status:
        error = ChainFault()
    elif isinstance(error, NotFound):
        error = ChainNotFound()
    elif isinstance(error, MethodNotAllowed):
        error = ChainMethodNotAllowed()
    if isinstance(error, ChainError):
        return Refusal(error.status, error.body(), error.retry_after)
    return Refusal(error.status, {"status_code": error.status, "detail": error.message}, error.retry_after)


def invalid(messages: Any) -> ChainInvalid:
    """From marshmallow's messages: the keys of nested ones are joined by dots."""
    extra: list[dict[str, str]] = []
    _flatten(messages, "", extra)
    return ChainInvalid(extra=extra[:EXTRA_MAX])


def one_invalid(key: str, message: str) -> ChainInvalid:
    return ChainInvalid(extra=[{"message": message, "key": key}])


def _flatten(messages: Any, key: str, extra: list[dict[str, str]]) -> None:
    if isinstance(messages, dict):
        for name, inner in messages.items():
            _flatten(inner, f"{key}.{name}" if key else str(name), extra)
        return
    extra.extend({"message": str(message), "key": key} for message in messages)
