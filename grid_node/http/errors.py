"""The one error hook of the routes: whatever a route raises becomes the body that an event would be acked with."""

import logging
import math

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from grid_node import errors
from grid_node.errors import GridError, InvalidMessage, MessageTooLarge, NotFound, UnsupportedMediaType
from grid_node.http.chain_errors import as_refusal, tells_chain
from grid_node.http.v1_problems import as_problem, tells_problems
from grid_node.services import Services

log = logging.getLogger(__name__)

AGAIN_LATER = {429: 60, 503: 1, 507: 60}
"""Seconds of `Retry-After` where the error itself names none."""

RUNNERS_API = ("/v1/", "/pc/client-api/")
"""Where refusals are told in the words of the runners' API."""

_HTTP: dict[int, type[GridError]] = {404: NotFound, 413: MessageTooLarge, 415: UnsupportedMediaType}


def register_errors(app: Flask, services: Services) -> None:
    """Answer every exception; a fault of ours is logged and told without detail."""

    def answer(error: GridError) -> Response:
        services.metrics.errors.labels(error.code).inc()
        made = error_answer(error)
        if tells_chain(request):
            return as_refusal(made, error, request)
        return as_problem(made, error) if tells_problems(request) else made

    def refused(error: HTTPException) -> Response:
        if isinstance(error, RequestRedirect):
            return answer(NotFound())
        made = answer(_as_grid_error(error))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            made.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return made

    def failed(error: Exception) -> Response:
        log.error("a route failed", exc_info=error)
        return answer(GridError())

    app.register_error_handler(GridError, answer)
    app.register_error_handler(HTTPException, refused)
    app.register_error_handler(Exception, failed)


def error_answer(error: GridError) -> Response:
    """The error's body with its status; 429, 503 and 507 always say when to come again, in whole seconds."""
    answer = jsonify(error.body())
    answer.status_code = error.status
    retry_header(answer, error.retry_after)
    return answer


def retry_header(answer: Response, wait: float | None) -> None:
    """Say in whole seconds when to come again, if `wait` or the status says so; rounded up, for sooner is too soon."""
    wait = wait or AGAIN_LATER.get(answer.status_code)
    if wait is not None:
        answer.headers["Retry-After"] = str(math.ceil(wait))


def _as_grid_error(error: HTTPException) -> GridError:
    """What Flask and Werkzeug refuse by themselves, as rows of the error table."""
    code = error.code or 500
    if isinstance(error, MethodNotAllowed):
        of_runners = request.path.startswith(RUNNERS_API)
        return errors.RunnerMethodNotAllowed() if of_runners else errors.MethodNotAllowed()
    if code >= 500:
        log.error("a route failed", exc_info=error)
        return GridError()
    return _HTTP.get(code, InvalidMessage)()
