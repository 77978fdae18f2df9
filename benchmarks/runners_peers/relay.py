"""What the way through the agent costs a call, and how soon a new prediction is at its worker."""

from __future__ import annotations

import statistics
import time

from runners_peers.crowd import quantiles
from runners_peers.desk import Desk

TURN = 10
"""Calls of one way before it is the other's turn."""
WARM_UPS = 20


def calls(desk: Desk, count: int) -> dict[str, float]:
    """Milliseconds of a call through the agent and of the same to the worker itself, in turns."""
    desk.relayed(WARM_UPS)
    desk.direct(WARM_UPS)
    relayed: list[float] = []
    direct: list[float] = []
    for _ in range(count // TURN):
        relayed += desk.relayed(TURN)
        direct += desk.direct(TURN)
    figures = {**quantiles("relayed", relayed), **quantiles("direct", direct)}
    return {**figures, "overhead_p50_ms": statistics.median(relayed) - statistics.median(direct)}


def arrivals(desk: Desk, count: int) -> dict[str, float]:
    """Milliseconds from asking for a prediction to the answer, and until the worker has it. One after the other."""
    came: list[float] = []
    answered: list[float] = []
    for number in range(count + WARM_UPS):
        began = time.monotonic()
        id = desk.run()
        if number >= WARM_UPS:
            answered.append(1000 * (time.monotonic() - began))
            came.append(1000 * (desk.arrival(id) - began))
        desk.report(id, status="succeeded", output="done")
    return {**quantiles("answered", answered), **quantiles("came", came)}
