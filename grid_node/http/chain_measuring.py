"""Counts the requests of Pylon's API as Pylon does: by method, path and status."""

import time

from flask import Flask, Response, g, request

from grid_node.chain.metrics import ChainMetrics

PREFIX = "/api/v1/"


def template(rule: str) -> str:
    """The path of a rule, as Pylon writes it."""
    return rule.replace("<", "{").replace(">", "}")


def measure_requests(app: Flask, metrics: ChainMetrics) -> None:
    """From the arrival of a request to the head of its answer."""

    @app.before_request
    def begin() -> None:
        if request.path.startswith(PREFIX):
            rule = request.url_rule
            series = metrics.of_request(request.method, None if rule is None else template(rule.rule))
            series.begin()
            g.chain_request = series, time.perf_counter()

    @app.after_request
    def answered(answer: Response) -> Response:
        if "chain_request" in g:
            series, arrived = g.chain_request
            series.answered(answer.status_code, time.perf_counter() - arrived)
        return answer

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        found = g.pop("chain_request", None)
        if found is not None:
            found[0].end()
