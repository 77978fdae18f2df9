"""What a score does: the first verdict on a copy is final, and everything it means is one transaction."""

import json
from typing import Any

import orjson
from sqlalchemy import bindparam, update

from grid_node.blobs.references import refer
from grid_node.database import Transaction
from grid_node.generation import workers
from grid_node.generation.holds import TASK, held_copy
from grid_node.generation.lifecycle import COPIES, Lifecycle, feedback_body
from grid_node.generation.tables import Copy, Task
from grid_node.generation.views import result_view
from grid_node.settings import Settings
from grid_node.statements import prepared
from grid_node.streams.service import Streams

tasks = Task.__table__
copies = Copy.__table__

_JUDGE = prepared(
    update(copies)
    .where(copies.c.lease_id == bindparam("lease"))
    .values(
        state=bindparam("new_state"),
        score=bindparam("points"),
        n=bindparam("index"),
        credited=bindparam("credit"),
        verdict_at=bindparam("now"),
        report=bindparam("report_text"),
        artifacts=bindparam("artifacts_text"),
        job_due_at=None,
        job_until=None,
    )
    .returning(*copies.c)
)
_FIRST = prepared(
    update(tasks).where(tasks.c.id == bindparam("task_id")).values(first_result_at=bindparam("now")).returning(*tasks.c)
)

FRAUD = frozenset({"bad_signature", "sha256_mismatch", "recycled_asset"})
"""Reasons of a rejection that no honest worker gives."""


class Verdicts:
    """Records verdicts; used in the submit transaction for inline kinds and by job processes for the others."""

    def __init__(self, streams: Streams, lifecycle: Lifecycle, settings: Settings) -> None:
        self._streams = streams
        self._lifecycle = lifecycle
        self._settings = settings

    def record(
        self,
        tx: Transaction,
        lease_id: str,
        report: dict[str, Any],
        artifacts: dict[str, Any] | None,
        now: float,
    ) -> dict[str, Any] | None:
        """Write the verdict on a copy in scoring; returns its feedback, None when there is a verdict already."""
        copy = held_copy(tx, lease_id)
        if copy is None or copy.state != "scoring":
            return None
        task = tx.execute(TASK, {"id": copy.task_id}).one()
        return self.judge(tx, copy, task, report, artifacts, now)

    def judge(
        self,
        tx: Transaction,
        copy: Any,
        task: Any,
        report: dict[str, Any],
        artifacts: dict[str, Any] | None,
        now: float,
    ) -> dict[str, Any]:
        """The same for a copy in scoring and its open task, both held by this transaction and as they are by now.

        Accepted results are numbered from 0 in the order of their acceptance: the hold on the task keeps it one.
        """
        accepted = bool(report["accepted"])
        rows = tx.execute(COPIES, {"id": task.id}).all() if accepted else []
        number = sum(row.n is not None for row in rows) if accepted else None
        credited = accepted and not copy.late
        values = {
            "lease": copy.lease_id,
            "new_state": "accepted" if accepted else "rejected",
            "points": float(report["score"]),
            "index": number,
            "credit": credited,
            "now": now,
            "report_text": orjson.dumps(report).decode(),
            "artifacts_text": json.dumps(artifacts) if artifacts else None,
        }
        judged = tx.execute(_JUDGE, values).one()
        refer(tx, copy.lease_id, [made["sha256"] for made in (artifacts or {}).values()])
        feedback = self._tell_worker(tx, copy, report, credited, now)
        if not accepted:
            self._lifecycle.reopen_slot(tx, copy)
            self._lifecycle.settle(tx, task.id, now)
            return feedback
        if number == 0:
            task = self._first_result(tx, judged, now)
        rows = [judged if row.number == judged.number else row for row in rows]
        self._lifecycle.settle_open(tx, task, rows, now)
        return feedback

    def unavailable(self, tx: Transaction, lease_id: str, now: float) -> None:
        """Scoring failed through no fault of the worker: no cooldown, no rejection, the slot is free again."""
        copy = held_copy(tx, lease_id)
        if copy is None or copy.state != "scoring":
            return
        values = {
            "lease": lease_id,
            "new_state": "scoring_unavailable",
            "points": None,
            "index": None,
            "credit": False,
            "now": now,
            "report_text": None,
            "artifacts_text": None,
        }
        tx.execute(_JUDGE, values)
        row = workers.worker_row(tx, copy.worker)
        body = feedback_body(copy, "scoring_unavailable", self._settings.scoring_threshold, {})
        workers.give_feedback(tx, self._streams, row, now, body)
        workers.record(tx, row, now, self._settings, reason=None, feedback=1)
        self._lifecycle.reopen_slot(tx, copy)
        self._lifecycle.settle(tx, copy.task_id, now)

    def _first_result(self, tx: Transaction, copy: Any, now: float) -> Any:
        """Note when the task had its first result, and tell a client that asked; returns the task's row."""
        task = tx.execute(_FIRST, {"task_id": copy.task_id, "now": now}).one()
        if not task.send_first_results:
            return task
        return self._lifecycle.advance(tx, task, "first_results", now, results=result_view(copy))

    def _tell_worker(
        self, tx: Transaction, copy: Any, report: dict[str, Any], credited: bool, now: float
    ) -> dict[str, Any]:
        row = workers.worker_row(tx, copy.worker)
        reason = None if copy.late else cooldown_reason(report)
        cooldown = workers.record(tx, row, now, self._settings, reason=reason, score=float(report["score"]), feedback=1)
        verdict = "accepted" if report["accepted"] else "rejected"
        threshold = self._settings.scoring_threshold
        body = feedback_body(copy, verdict, threshold, report, credited=credited, cooldown=cooldown)
        return workers.give_feedback(tx, self._streams, row, now, body)


def cooldown_reason(report: dict[str, Any]) -> str:
    """Which cooldown a judged result brings: success, fraud, invalid_asset or low_score."""
    if report["accepted"]:
        return "success"
    if FRAUD.intersection(report["reasons"]):
        return "fraud"
    return "invalid_asset" if report.get("invalid") else "low_score"
