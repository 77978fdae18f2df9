"""What clients see: rows as the wire's JSON. One dump for every face."""

import json
from collections.abc import Sequence
from typing import Any

from grid_node.clock import rfc3339, rfc3339_or_none

ERROR_TEXTS = {
    "all_workers_failed": "Generation failed",
    "no_worker": "No worker took the task before its deadline",
    "deadline_exceeded": "Deadline exceeded",
    "scoring_unavailable": "Scoring is not available",
    "cancelled_by_client": "Generation cancelled",
    "client_gone": "Generation cancelled",
    "key_removed": "Generation cancelled",
}
"""Why a task ended without a result, and in which words."""


def result_view(copy: Any) -> dict[str, Any]:
    """An accepted copy as a result. Its bytes come from `url`."""
    report = json.loads(copy.report)
    base = f"/tasks/{copy.task_id}/results/{copy.n}"
    return {
        "n": copy.n,
        "hotkey": copy.worker,
        "score": round(copy.score, 4),
        "assets": None,
        "format": copy.format,
        "size": copy.size,
        "sha256": copy.sha256,
        "url": f"{base}/asset",
        "preview_url": f"{base}/previews/grid.png" if "previews/grid.png" in (copy.artifacts or "") else None,
        "scorer": report["scorer"],
        "components": report["components"],
        "reasons": report["reasons"],
    }


def statistics_view(task: Any, copies: Sequence[Any]) -> dict[str, Any]:
    """Every copy, unfinished ones with score 0 and submit_time 0; times in whole seconds."""
    return {
        "create_time": int(task.created_at),
        "miners": [
            {
                "hotkey": copy.worker,
                "assign_time": int(copy.granted_at),
                "data_format": copy.format or "",
                "score": round(copy.score or 0.0, 4),
                "submit_time": int(copy.submitted_at or 0),
                "state": copy.state,
            }
            for copy in copies
        ],
    }


def error_view(code: str, **data: Any) -> dict[str, Any]:
    return {"code": code, "error": ERROR_TEXTS[code], **data}


def task_view(task: Any, copies: Sequence[Any], position: int | None) -> dict[str, Any]:
    """Everything that a task's owner may know of it. `copies` in order of their grant."""
    accepted = sorted((copy for copy in copies if copy.n is not None), key=lambda copy: copy.n)
    return {
        "id": task.id,
        "kind": task.kind,
        "status": task.status,
        "seq": task.seq,
        "position": position,
        "prompt": task.prompt,
        "copies": task.copies,
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339_or_none(task.started_at),
        "first_result_at": rfc3339_or_none(task.first_result_at),
        "finished_at": rfc3339_or_none(task.finished_at),
        "deadline": rfc3339(task.deadline),
        "results": [result_view(copy) for copy in accepted],
        "best": task.best,
        "statistics": statistics_view(task, copies),
        "error": json.loads(task.error) if task.error else None,
    }
