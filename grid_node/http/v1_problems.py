"""Errors below `/v1/`: `application/problem+json` (RFC 9457), whatever was asked there and whoever refused it."""

from flask import Request, Response, json

from grid_node.errors import GridError
from grid_node.runners.problems import problem, whole_wait

PREFIX = "/v1/"
MEDIA_TYPE = "application/problem+json"


def tells_problems(request: Request) -> bool:
    return request.path.startswith(PREFIX)


def as_problem(answer: Response, error: GridError) -> Response:
    """The answer to this error, in the form that clients of `/v1` read."""
    answer.data = json.dumps(problem(error))
    answer.content_type = MEDIA_TYPE
    if "Retry-After" in answer.headers:
        answer.headers["Retry-After"] = str(whole_wait(float(answer.headers["Retry-After"])))
    return answer
