"""Routes of whoever runs the node: does it live, may it get traffic, and what does it measure.

They tell no task, no prompt and no key. The first two ask for none; `/metrics` asks for a token of its own.
"""

import time
import uuid
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from grid_node import logs
from grid_node.errors import GridError
from grid_node.node import Node
from grid_node.services import Services

SCRAPES = frozenset({"/metrics", "/healthz", "/readyz", "/health"})
"""Routes that are not measured: they would drown the others."""


def operations_blueprint(services: Services) -> Blueprint:
    """`/healthz`, `/readyz` (also as `/health`) and `/metrics`."""
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/healthz", strict_slashes=False)
    def healthz() -> Any:
        """The process lives and answers."""
        return jsonify(status="ok")

    @blueprint.get("/readyz", strict_slashes=False)
    @blueprint.get("/health", strict_slashes=False)
    def readyz() -> Any:
        """200 when the node may get traffic; otherwise 503 with what is missing."""
        missing = what_is_missing(services)
        if not missing:
            return jsonify(status="ready", missing=[])
        answer = jsonify(status="not ready", missing=missing)
        answer.status_code = 503
        answer.headers["Retry-After"] = "1"
        return answer

    @blueprint.get("/metrics", strict_slashes=False)
    def metrics() -> Response:
        """Every metric in Prometheus' text format, for whoever has the token."""
        services.chain.access.metrics(request.environ.get("HTTP_AUTHORIZATION"))
        fill_gauges(services, current_app.extensions["grid_node"])
        return Response(generate_latest(services.metrics.registry), content_type=CONTENT_TYPE_LATEST)

    return blueprint


def observe_requests(app: Flask, services: Services) -> None:
    """Name every request in the logs, and measure it from its arrival to its answer's head."""

    @app.before_request
    def arrived() -> None:
        g.arrived = time.perf_counter()
        # A connection's greenlet serves many requests: what the one before bound must go.
        logs.unbind_all()
        logs.bind(request_id=uuid.uuid4().hex, **named(request.view_args))

    @app.after_request
    def answered(response: Response) -> Response:
        response.headers.setdefault("X-Request-Id", str(logs.bindings().get("request_id", "")))
        route = request.url_rule.rule if request.url_rule is not None else "*"
        if route.rstrip("/") not in SCRAPES and "arrived" in g:
            seconds = time.perf_counter() - g.arrived
            services.metrics.http.labels(route, str(response.status_code)).observe(seconds)
        return response


def named(view_args: dict[str, Any] | None) -> dict[str, Any]:
    """The ids in the path, which are no secrets."""
    return {name: value for name, value in (view_args or {}).items() if name in ("task_id", "lease_id")}


def what_is_missing(services: Services) -> list[str]:
    """Why the node is not ready, in words; empty when it is."""
    missing = []
    if services.draining:
        missing.append("the node is shutting down")
    try:
        services.census.check_writable()
    except GridError as error:
        missing.append(f"database: {error.message}")
    cold = services.supervisor.cold()
    if cold:
        missing.append(f"scoring: {cold} of {services.settings.scoring_processes} job processes are not warm")
    return missing


def fill_gauges(services: Services, node: Node) -> None:
    """Bring the gauges up to date. Without a database those of rows keep their last value."""
    metrics = services.metrics
    with suppress(GridError):
        services.census.look()
    metrics.pulls.set(services.dispatcher.waiting)
    metrics.job_restarts.set(services.supervisor.restarts)
    metrics.runners.errand_restarts.set(services.running.errand_process.restarts)
    chain = services.chain
    head = chain.reads.head
    chain.metrics.look(None if head is None else chain.reads.age(head), chain.link.restarts)
    compute = services.hosting.compute
    metrics.compute_restarts.set(compute.restarts)
    metrics.inferences.set(compute.in_hand)
    metrics.batches.set(compute.executions)
    metrics.hub_gap.set(node.hub_watch.longest())
    for face, count in {**node.sockets.connections(), **node.http.connections()}.items():
        metrics.connections.labels(face).set(count)
