"""Refusals as clients of `/v1` read them: RFC 9457's `title` and `detail`, beside the members that every body has."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from grid_node.errors import GridError, InvalidInput

RETRY_MAX = 30
"""Most seconds that a client is told to wait: the official one obeys, however long it is."""


def problem(error: GridError) -> dict[str, Any]:
    """The body of the error with `title` and `detail`; a wait in whole seconds, RETRY_MAX at most."""
    body = error.body()
    if error.retry_after is not None:
        body["retry_after"] = whole_wait(error.retry_after)
    return {**body, "title": error.message, "detail": _detail(error)}


def whole_wait(seconds: float) -> int:
    return max(1, min(RETRY_MAX, math.ceil(seconds)))


@contextlib.contextmanager
def as_problems() -> Iterator[None]:
    """Refusals that leave the block carry these members, whichever face answers them."""
    try:
        yield
    except GridError as error:
        whole = problem(error)
        error.data |= {name: whole[name] for name in ("title", "detail", "retry_after") if name in whole}
        raise


def _detail(error: GridError) -> str:
    lines = list(_lines(error.data.get("fields"), "input" if isinstance(error, InvalidInput) else ""))
    return "".join(f"- {line}\n" for line in lines) or error.message


def _lines(fields: Any, path: str) -> Iterator[str]:
    """`steps: what is wrong with it`, for each text in however deep a tree of names."""
    if isinstance(fields, Mapping):
        for name, inner in fields.items():
            yield from _lines(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(fields, list | tuple):
        for text in fields:
            yield f"{path}: {text}"
    elif fields is not None:
        yield f"{path}: {fields}"
