"""A prediction as clients see it: the shape of Replicate's HTTP API (https://replicate.com/docs/reference/http)."""

from typing import Any
from urllib.parse import quote

from grid_node.clock import rfc3339
from grid_node.runners.prediction import DISPATCHING, QUEUED, STARTING, Prediction

_WAITING = frozenset({QUEUED, DISPATCHING, STARTING})
LOGS_TRUNCATED = "logs_truncated"


def status_of(prediction: Prediction) -> str:
    """One of the five words that clients know."""
    return STARTING if prediction.state in _WAITING else prediction.state


def prediction_view(prediction: Prediction, base_url: str, queue_position: int | None = None) -> dict[str, Any]:
    """`base_url` has no slash at its end."""
    address = f"{base_url}/v1/predictions/{quote(prediction.id, safe='')}"
    times = prediction.times
    truncated = prediction.logs_length > len(prediction.logs)
    return {
        **prediction.extra,
        "id": prediction.id,
        "model": prediction.model,
        "version": prediction.version,
        "status": status_of(prediction),
        "input": prediction.input,
        "output": prediction.output,
        "logs": prediction.logs,
        "error": prediction.error,
        "metrics": prediction.metrics,
        "created_at": times.get("created_at") or rfc3339(prediction.created_at),
        "started_at": times.get("started_at"),
        "completed_at": times.get("completed_at"),
        "urls": {"get": address, "cancel": f"{address}/cancel", "stream": f"{address}/stream"},
        "source": prediction.source,
        "queue_position": queue_position,
        "warnings": [*prediction.warnings, LOGS_TRUNCATED] if truncated else prediction.warnings,
        "data_removed": prediction.data_removed,
    }
