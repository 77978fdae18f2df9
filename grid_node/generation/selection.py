"""When a task ends and which result is its best: pure functions over rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ENDED = frozenset({"best_results", "failed", "cancelled"})
"""Terminal states of a task; none of them ever changes."""
FAILED_COPY = frozenset({"rejected", "duplicate", "scoring_unavailable", "expired", "skipped"})


@dataclass(frozen=True)
class Rules:
    """Times of a task's life, in seconds."""

    window: float
    settle: float
    score_grace: float


@dataclass(frozen=True)
class Decision:
    """What becomes of a task now. `status` None: it goes on and is looked at again at `due_at`."""

    status: str | None
    best: Any = None
    error: str | None = None
    due_at: float = 0.0
    settle_at: float | None = None


def best_of(copies: Sequence[Any]) -> Any:
    """The accepted copy with the highest score; among equals the one submitted first."""
    accepted = [copy for copy in copies if copy.state == "accepted"]
    return min(accepted, key=lambda copy: (-copy.score, copy.submitted_at, copy.number), default=None)


def decide(task: Any, copies: Sequence[Any], now: float, rules: Rules, *, may_come: bool) -> Decision:
    """The next state of an open task. `may_come`: a present worker could still take a copy of it."""
    leased = [copy for copy in copies if copy.state == "leased"]
    scoring = [copy for copy in copies if copy.state == "scoring"]
    best = best_of(copies)
    if best is None:
        return _without_result(task, copies, leased, scoring, now, rules)
    if not leased and not scoring and task.open_slots <= 0:
        return Decision("best_results", best)
    return _with_result(task, best, leased, scoring, now, rules, may_come)


def _with_result(
    task: Any,
    best: Any,
    leased: Sequence[Any],
    scoring: Sequence[Any],
    now: float,
    rules: Rules,
    may_come: bool,
) -> Decision:
    end = min(task.first_result_at + rules.window, task.deadline)
    in_time = any(copy.submitted_at <= end for copy in scoring)
    if now >= end + rules.score_grace or (now >= end and not in_time):
        return Decision("best_results", best)
    wake = [end if now < end else end + rules.score_grace]
    wake += [copy.lease_expires_at for copy in leased]
    if leased or scoring:
        return Decision(None, due_at=min(wake))
    settle_at = task.settle_at or now + rules.settle
    if now >= settle_at:
        if not may_come:
            return Decision("best_results", best)
        settle_at = now + 1.0
    return Decision(None, due_at=min(*wake, settle_at), settle_at=settle_at)


def _without_result(
    task: Any, copies: Sequence[Any], leased: Sequence[Any], scoring: Sequence[Any], now: float, rules: Rules
) -> Decision:
    if not leased and not scoring and task.attempts and task.open_slots <= 0:
        return Decision("failed", error=failure(copies, "all_workers_failed"))
    last = task.deadline + rules.score_grace
    if now >= last or (now >= task.deadline and not scoring):
        return Decision("failed", error=failure(copies, "deadline_exceeded"))
    wake = [task.deadline if now < task.deadline else last]
    return Decision(None, due_at=min(wake + [copy.lease_expires_at for copy in leased]))


def failure(copies: Sequence[Any], otherwise: str) -> str:
    """Why a task without an acceptable result failed; a fault of ours is named as such."""
    if not copies:
        return "no_worker"
    submitted = [copy for copy in copies if copy.submitted_at is not None]
    if submitted and all(copy.state in ("scoring_unavailable", "scoring") for copy in submitted):
        return "scoring_unavailable"
    return otherwise


def counts(copies: Sequence[Any]) -> dict[str, int]:
    """How the copies of a failed task ended."""
    return {
        "submitted": sum(copy.submitted_at is not None for copy in copies),
        "rejected": sum(copy.state in ("rejected", "duplicate") for copy in copies),
        "expired": sum(copy.state == "expired" for copy in copies),
        "skipped": sum(copy.state == "skipped" for copy in copies),
    }
