"""Errors of Pylon's API: its own body, whatever was asked there and whoever refused it."""

import orjson
from flask import Request, Response

from grid_node.chain.refusals import refusal
from grid_node.errors import GridError

ROOTS = ("/api/", "/schema/", "/metrics/")


def tells_chain(request: Request) -> bool:
    return f"{request.path}/".startswith(ROOTS)


def as_refusal(answer: Response, error: GridError, request: Request) -> Response:
    """The answer to this error, in the form that Pylon's clients read."""
    told = refusal(error, f"{request.method} {request.path}")
    answer.status_code = told.status
    answer.data = orjson.dumps(told.body)
    answer.content_type = "application/json"
    if told.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
