"""The life of a task: every change of its state, with the update that tells of it, in one place.

All functions run inside the caller's transaction. `settle` is called after anything that happened to a task or
one of its copies; it asks `decide` and carries the decision out.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.generation import workers
from grid_node.generation.holds import TASK, hold
from grid_node.generation.selection import Decision, Rules, counts, decide
from grid_node.generation.tables import LEASED, SCORING, Copy, Task
from grid_node.generation.views import error_view, result_view, statistics_view
from grid_node.settings import Settings
from grid_node.statements import prepared
from grid_node.streams.service import Streams

tasks = Task.__table__
copies = Copy.__table__

COPIES = prepared(select(copies).where(copies.c.task_id == bindparam("id")).order_by(copies.c.number))
_PLAN = prepared(
    update(tasks)
    .where(tasks.c.id == bindparam("task_id"))
    .values(due_at=bindparam("due"), settle_at=bindparam("settle"))
)
_ADVANCE = prepared(
    update(tasks)
    .where(tasks.c.id == bindparam("task_id"))
    .values(status=bindparam("new_status"), seq=bindparam("new_seq"))
    .returning(*tasks.c)
)
_END = prepared(
    update(tasks)
    .where(tasks.c.id == bindparam("task_id"))
    .values(
        status=bindparam("new_status"),
        seq=bindparam("new_seq"),
        finished_at=bindparam("now"),
        best=bindparam("best_n"),
        error=bindparam("error_text"),
        open_slots=0,
    )
)
_CANCEL_COPIES = prepared(
    update(copies)
    .where(copies.c.task_id == bindparam("id"), copies.c.state.in_((LEASED, SCORING)))
    .values(state="cancelled")
)
_REOPEN = prepared(
    update(tasks)
    .where(
        tasks.c.id == bindparam("task_id"),
        tasks.c.first_result_at.is_(None),
        tasks.c.finished_at.is_(None),
        tasks.c.attempts + tasks.c.open_slots < 2 * tasks.c.copies + 1,
    )
    .values(open_slots=tasks.c.open_slots + 1)
)


def task_stream(task_id: str) -> str:
    return f"task:{task_id}"


class Lifecycle:
    """Moves tasks through their states. `changed` is called after a commit that may give a waiting worker work
    or move the time at which a task must next be looked at."""

    def __init__(self, streams: Streams, settings: Settings) -> None:
        self._streams = streams
        self._settings = settings
        self._rules = Rules(
            settings.public_api_wait_after_first_copy,
            settings.public_api_settle,
            settings.public_api_score_grace,
        )
        self.changed: Callable[[], None] = lambda: None

    def settle(self, tx: Transaction, task_id: str, now: float) -> None:
        """Decide what becomes of the task now, and do it."""
        task = tx.execute(TASK, {"id": task_id}).one()
        if task.finished_at is None:
            self.settle_open(tx, task, tx.execute(COPIES, {"id": task_id}).all(), now)

    def settle_open(self, tx: Transaction, task: Any, rows: Sequence[Any], now: float) -> None:
        """The same for an open task that this transaction holds, with all its copies as they are by now."""
        asked = task.settle_at is not None and now >= task.settle_at
        may_come = asked and workers.could_take(tx, task, now, self._settings)
        decision = decide(task, rows, now, self._rules, may_come=may_come)
        if decision.status is None:
            self._plan(tx, task, decision)
        else:
            self._finish(tx, task, rows, decision, now)

    def announce(self, tx: Transaction, task: Any, seq: int, status: str, now: float, **parts: Any) -> None:
        """Append the update `seq` of the task to its stream."""
        body = {"task_id": task.id, "seq": seq, "status": status, "at": rfc3339(now), **parts}
        self._streams.append(tx, task_stream(task.id), seq, now, body)

    def advance(self, tx: Transaction, task: Any, status: str, now: float, **parts: Any) -> Any:
        """Move an open task on to `status` and tell of it; returns its row as it is now."""
        seq = task.seq + 1
        moved = tx.execute(_ADVANCE, {"task_id": task.id, "new_status": status, "new_seq": seq}).one()
        self.announce(tx, task, seq, status, now, **parts)
        return moved

    def reopen_slot(self, tx: Transaction, copy: Any) -> None:
        """A copy ended without an acceptable result: its slot is free again while there is none."""
        if not copy.extra:
            tx.execute(_REOPEN, {"task_id": copy.task_id})
            tx.on_commit(self.changed)

    def cancel(self, tx: Transaction, task: Any, code: str, now: float) -> None:
        """End an open task, held by this transaction, as cancelled."""
        hold(tx, task.id)
        rows = tx.execute(COPIES, {"id": task.id}).all()
        self._end(tx, task, rows, "cancelled", None, error_view(code), now)

    def _plan(self, tx: Transaction, task: Any, decision: Decision) -> None:
        if decision.due_at != task.due_at or decision.settle_at != task.settle_at:
            values = {"task_id": task.id, "due": decision.due_at, "settle": decision.settle_at}
            tx.execute(_PLAN, values)
            tx.on_commit(self.changed)

    def _finish(self, tx: Transaction, task: Any, rows: Any, decision: Decision, now: float) -> None:
        error = None
        if decision.error == "all_workers_failed":
            error = error_view(decision.error, **counts(rows))
        elif decision.error:
            error = error_view(decision.error)
        self._end(tx, task, rows, str(decision.status), decision.best, error, now)

    def _end(
        self,
        tx: Transaction,
        task: Any,
        rows: Any,
        status: str,
        best: Any,
        error: dict[str, Any] | None,
        now: float,
    ) -> None:
        values = {
            "task_id": task.id,
            "new_status": status,
            "new_seq": task.seq + 1,
            "now": now,
            "best_n": best.n if best else None,
            "error_text": json.dumps(error) if error else None,
        }
        tx.execute(_END, values)
        self._drop_copies(tx, task, rows, status, now)
        parts: dict[str, Any] = {}
        if best is not None:
            parts["results"] = result_view(best)
        if status != "cancelled":
            parts["statistics"] = statistics_view(task, rows)
        if error is not None:
            parts["error"] = error
        self.announce(tx, task, task.seq + 1, status, now, **parts)

    def _drop_copies(self, tx: Transaction, task: Any, rows: Any, status: str, now: float) -> None:
        """Copies still in work are neither credited nor punished; their workers are told."""
        pending = [copy for copy in rows if copy.state in ("leased", "scoring")]
        if not pending:
            return
        tx.execute(_CANCEL_COPIES, {"id": task.id})
        reason = "task_cancelled" if status == "cancelled" else "task_ended"
        for copy in pending:
            if copy.state == "leased":
                notice = {"task_id": task.id, "lease_id": copy.lease_id, "reason": reason}
                workers.give_notice(tx, self._streams, copy.worker, now, notice)
            else:
                self._late(tx, copy, now)

    def _late(self, tx: Transaction, copy: Any, now: float) -> None:
        row = workers.worker_row(tx, copy.worker)
        body = feedback_body(copy, "late", self._settings.scoring_threshold, {})
        workers.give_feedback(tx, self._streams, row, now, body)
        workers.record(tx, row, now, self._settings, reason=None, feedback=1)


def feedback_body(
    copy: Any,
    verdict: str,
    threshold: float,
    report: dict[str, Any],
    *,
    credited: bool = False,
    cooldown: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A verdict as its worker reads it."""
    return {
        "task_id": copy.task_id,
        "lease_id": copy.lease_id,
        "verdict": verdict,
        "score": report.get("score"),
        "threshold": report.get("threshold", threshold),
        "components": report.get("components", {}),
        "reasons": report.get("reasons", []),
        "scorer": report.get("scorer"),
        "credited": credited,
        "cooldown": cooldown,
    }
