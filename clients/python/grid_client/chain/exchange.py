"""One exchange with the service: what is asked, what is answered, and which exception an answer is. No input or output.

Whoever needs several exchanges is a generator of `Steps`: it yields requests and takes answers, and exceptions of an
exchange are thrown into it. A driver does the exchanges.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from grid_client.chain.exceptions import (
    BasePylonException,
    PylonBadGateway,
    PylonForbidden,
    PylonNetuidMismatch,
    PylonNotFound,
    PylonResponseException,
    PylonTimeoutException,
    PylonUnauthorized,
    TimeoutReason,
)

PREFIX = "/api/v1"
ANSWER_MAX = 64 * 1024 * 1024
"""Bytes of one answer. It is asked for uncompressed, so no small one can grow."""
REFUSALS: dict[int, type[PylonResponseException]] = {
    kind.default_status_code: kind
    for kind in (PylonUnauthorized, PylonForbidden, PylonNotFound, PylonNetuidMismatch, PylonBadGateway)
    if kind.default_status_code is not None
}
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """path: below the address; token: of the Authorization header, none if empty; in_session: with the cookies of the
    identity; read_seconds: instead of the configured ones; is_repeated: as the configured retry says.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    in_session: bool = False
    read_seconds: float | None = None
    is_repeated: bool = True


class Answer(NamedTuple):
    status: int
    body: bytes


class Pause(NamedTuple):
    """Instead of a request: let this time pass."""

    seconds: float


Steps = Generator[Request | Pause, Answer, T]


def hurried(steps: Steps[T], seconds: float) -> Steps[T]:
    """The same steps, each request of them made once and with no more time than this."""
    try:
        step = next(steps)
        while True:
            wanted = replace(step, read_seconds=seconds, is_repeated=False) if isinstance(step, Request) else step
            try:
                answer = yield wanted
            except BasePylonException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def segment(value: str | int) -> str:
    """As one part of a path, whatever is in it. Raises ValueError where that cannot be."""
    text = str(value)
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} cannot be part of a path.")
    return quote(text, safe="")


def encoded(body: Mapping[str, Any]) -> bytes:
    """As JSON."""
    return json.dumps(body, separators=(",", ":")).encode()


def accepted(answer: Answer) -> Answer:
    """The answer, unless it is a refusal. Raises PylonResponseException, or PylonTimeoutException for a 504."""
    if 200 <= answer.status < 300:
        return answer
    detail, extra = _said(answer.body)
    if answer.status == 504:
        raise PylonTimeoutException(TimeoutReason.GATEWAY_TIMEOUT, detail=detail)
    refusal = REFUSALS.get(answer.status, PylonResponseException)
    raise refusal(status_code=answer.status, detail=detail, extra=extra)


def parsed(answer: Answer, model: type[Model]) -> Model:
    """Raises PylonResponseException for a body that is not what this call returns."""
    try:
        return model.model_validate_json(answer.body)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)[:3]
        detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in wrong)
        raise PylonResponseException("Answer cannot be read", answer.status, detail) from None


def _said(body: bytes) -> tuple[str | None, list[dict[str, Any]]]:
    """`detail` and `extra` of an error body, whatever a proxy may have made of it."""
    fields: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(body)
    if not isinstance(fields, dict):
        return None, []
    detail, extra = fields.get("detail"), fields.get("extra")
    wrong = [one for one in extra if isinstance(one, dict)] if isinstance(extra, list) else []
    return detail if isinstance(detail, str) else None, wrong
