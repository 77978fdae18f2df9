"""What is said to a worker, and what its answers mean: Cog's HTTP API, https://cog.run/http."""

import re
from enum import Enum
from typing import Any, NamedTuple

from grid_node.clock import rfc3339
from grid_node.runners.ids import CALLABLE_ID, webhook_token
from grid_node.runners.ports import Reply
from grid_node.runners.prediction import HOOK_EVENTS, Prediction

HEALTH_PATH = "/health-check"
WEBHOOK_PATH = "/pc/client-api/webhook/prediction"
"""Where a worker reports, at the node."""
HEADERS = {"Prefer": "respond-async", "Content-Type": "application/json"}
DETAIL_MAX = 1024
"""Characters of a worker's words that end in an error."""
_PROBLEMS = 20
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


class Answer(Enum):
    """What an answer means to the prediction that was sent."""

    ACCEPTED = "accepted"
    BUSY = "busy"
    REFUSED = "refused"
    FAULT = "fault"


class Outcome(NamedTuple):
    """`detail` is the worker's own reason, where it has one."""

    answer: Answer
    detail: str = ""


def prediction_path(id: str) -> str:
    return f"/predictions/{id}"


def cancel_path(id: str) -> str:
    return f"/predictions/{id}/cancel"


def is_callable(prediction: Prediction) -> bool:
    """Whether a worker can be asked about it."""
    return prediction.model_id is not None and CALLABLE_ID.fullmatch(prediction.id) is not None


def message(prediction: Prediction, base_url: str, secret: bytes) -> dict[str, Any]:
    """The body of `PUT /predictions/{id}`. `secret` is the node's: it makes the token of the reports."""
    token = webhook_token(secret, prediction.id)
    return {
        "id": prediction.id,
        "input": prediction.input,
        "created_at": prediction.times.get("created_at") or rfc3339(prediction.created_at),
        "context": {"prediction_id": prediction.id},
        "webhook": f"{base_url}{WEBHOOK_PATH}?token={token}",
        "webhook_events_filter": list(HOOK_EVENTS),
    }


def outcome_of(reply: Reply) -> Outcome:
    """409 is a worker with full hands and 503 one that is not set up yet; every other 5xx may pass."""
    if reply.status in (200, 202):
        return Outcome(Answer.ACCEPTED)
    if reply.status in (409, 429, 503):
        return Outcome(Answer.BUSY)
    detail = detail_of(reply.json) or f"status {reply.status}"
    return Outcome(Answer.FAULT if reply.status >= 500 else Answer.REFUSED, detail)


def detail_of(body: Any) -> str:
    """`detail` of python Cog, `error` of coglet; empty where there is neither."""
    if not isinstance(body, dict):
        return ""
    found = body.get("detail") or body.get("error")
    if isinstance(found, list):
        found = "; ".join(filter(None, map(_problem, found[:_PROBLEMS])))
    return _UNKEEPABLE.sub("", found[:DETAIL_MAX]) if isinstance(found, str) else ""


def _problem(problem: Any) -> str:
    """One of FastAPI's: `{"loc": ["body", "input", "steps"], "msg": ...}`."""
    if not isinstance(problem, dict) or not isinstance(problem.get("msg"), str):
        return ""
    loc = problem.get("loc")
    place = ".".join(str(part)[:64] for part in loc[:8]) if isinstance(loc, list) else ""
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
