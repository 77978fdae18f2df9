"""The node as it comes, and one route more: calls to a model's runner, timed where the node makes them."""

from __future__ import annotations

import time
from typing import Any

from flask import request

from grid_node.runners.calls import HEADERS
from wsgi import app

CALL_SECONDS = 15.0


@app.post("/bench/calls")
def timed_calls() -> Any:
    """Milliseconds of `count` calls, one after the other, through the agent to the worker and back."""
    given = request.get_json()
    provider = app.extensions["grid"].running.provider
    took: list[float] = []
    for number in range(given["count"]):
        path = f"/predictions/bench-{number}"
        began = time.perf_counter()
        reply = provider.call(given["model"], "PUT", path, given["json"], HEADERS, CALL_SECONDS)
        took.append(1000 * (time.perf_counter() - began))
        assert reply.status == 202, reply
    return took
