"""The node's memory of its workers: presence, scores, cooldowns, feedback. Functions of a transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, literal, select, text, update

from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.generation.tables import LEASED, Copy, Worker
from grid_node.settings import Settings
from grid_node.statements import Prepared, prepared
from grid_node.streams.service import Streams

workers = Worker.__table__
copies = Copy.__table__

STRONG_MEAN = 0.8
"""A worker without a hotkey is strong when its last scores average at least this."""
RECENT = 20
"""How many scores that average covers."""
SEEN_EVERY = 5.0
"""Seconds between two writes of a worker's presence."""

_LOOK = prepared(select(workers).where(workers.c.identity == bindparam("identity")))
_WORKER = prepared(select(workers).where(workers.c.identity == bindparam("identity")).with_for_update())
_NEW = prepared(
    text(
        "INSERT INTO workers (identity, kinds, max_parallel, seen_at, recent, low_streak, skip_streak, cooldown_until,"
        " violations, feedback_seq, notice_seq)"
        " VALUES (:identity, ' ', 1, 0, '[]', 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
    )
)
_SEEN = prepared(
    update(workers)
    .where(workers.c.identity == bindparam("who"))
    .values(seen_at=bindparam("now"), kinds=bindparam("kinds_"), max_parallel=bindparam("parallel"))
)
_VERDICT = prepared(
    update(workers)
    .where(workers.c.identity == bindparam("who"))
    .values(
        recent=bindparam("recent_"),
        low_streak=bindparam("low"),
        skip_streak=bindparam("skips"),
        cooldown_until=bindparam("until"),
        cooldown_reason=bindparam("reason"),
        feedback_seq=bindparam("seq"),
    )
)
_NOTICE = prepared(update(workers).where(workers.c.identity == bindparam("who")).values(notice_seq=bindparam("seq")))
_VIOLATION = prepared(
    update(workers).where(workers.c.identity == bindparam("who")).values(violations=workers.c.violations + 1)
)
_LIVE = select(func.count()).where(copies.c.worker == workers.c.identity, copies.c.state == LEASED).scalar_subquery()
_ABLE = and_(
    workers.c.seen_at > bindparam("since"),
    workers.c.cooldown_until <= bindparam("now"),
    workers.c.kinds.contains(bindparam("kind"), autoescape=False),
    workers.c.max_parallel > _LIVE,
)
ABLE_MAX = 100
_ABLE_COUNT = prepared(
    select(func.count()).select_from(select(literal(1)).select_from(workers).where(_ABLE).limit(ABLE_MAX).subquery())
)
_COULD_TAKE = prepared(
    select(workers.c.identity, workers.c.recent)
    .where(
        _ABLE,
        ~exists().where(copies.c.task_id == bindparam("task_id"), copies.c.worker == workers.c.identity),
    )
    .limit(ABLE_MAX)
)


@dataclass(frozen=True)
class Penalty:
    """A cooldown to impose. `seconds` 0 clears nothing and adds nothing."""

    reason: str
    seconds: float


def worker_row(tx: Transaction, identity: str) -> Any:
    """The worker's row, held until the transaction ends; made if it is new."""
    return _found(tx, _WORKER, identity)


def known(tx: Transaction, identity: str) -> Any:
    """The same without holding it: only to look at."""
    return _found(tx, _LOOK, identity)


def _found(tx: Transaction, statement: Prepared, identity: str) -> Any:
    row = tx.execute(statement, {"identity": identity}).one_or_none()
    if row is None:
        tx.execute(_NEW, {"identity": identity})
        row = tx.execute(statement, {"identity": identity}).one()
    return row


def kinds_text(kinds: Sequence[str]) -> str:
    """Kinds as they are stored: each between spaces, so that one LIKE finds a whole word."""
    return f" {' '.join(kinds)} "


def mark_seen(tx: Transaction, row: Any, kinds: Sequence[str], max_parallel: int, now: float) -> None:
    """Note that the worker is here; at most one write in SEEN_EVERY seconds unless what it offers changed."""
    text = kinds_text(kinds)
    if now - row.seen_at < SEEN_EVERY and row.kinds == text and row.max_parallel == max_parallel:
        return
    tx.execute(_SEEN, {"who": row.identity, "now": now, "kinds_": text, "parallel": max_parallel})


def able_count(tx: Transaction, kind: str, now: float, settings: Settings) -> int:
    """How many present workers could take a task of this kind now; counts no further than ABLE_MAX."""
    since = now - settings.worker_presence
    return int(tx.execute(_ABLE_COUNT, {"since": since, "now": now, "kind": f" {kind} "}).scalar() or 0)


def could_take(tx: Transaction, task: Any, now: float, settings: Settings) -> bool:
    """Whether a present worker could still take a copy of this open task."""
    if task.open_slots <= 0 and task.strong_taken:
        return False
    found = tx.execute(
        _COULD_TAKE,
        {"since": now - settings.worker_presence, "now": now, "kind": f" {task.kind} ", "task_id": task.id},
    ).all()
    return bool(found) if task.open_slots > 0 else any(is_strong(row.recent) for row in found)


def is_strong(recent: str) -> bool:
    scores = json.loads(recent)
    return bool(scores) and sum(scores) / len(scores) >= STRONG_MEAN


def mean_score(recent: str) -> float | None:
    scores = json.loads(recent)
    return round(sum(scores) / len(scores), 4) if scores else None


def cooldown_view(row: Any, now: float) -> dict[str, Any] | None:
    """The cooldown as workers see it; None when there is none."""
    if row.cooldown_until <= now:
        return None
    return {
        "until": rfc3339(row.cooldown_until),
        "reason": row.cooldown_reason,
        "violations": row.violations,
    }


def add_violation(tx: Transaction, identity: str) -> None:
    tx.execute(_VIOLATION, {"who": identity})


def penalty_for(reason: str, row: Any, settings: Settings) -> Penalty:
    """The cooldown that `reason` brings this worker, in seconds. Faults on our side bring none."""
    seconds = {
        "success": settings.worker_cooldown_success,
        "low_score": min(settings.worker_cooldown_low_score * 2**row.low_streak, settings.worker_cooldown_max),
        "invalid_asset": settings.worker_cooldown_invalid,
        "fraud": settings.worker_cooldown_fraud,
        "lease_expired": settings.worker_cooldown_expired,
        "skip": settings.worker_cooldown_skip if row.skip_streak + 1 > settings.worker_skips_free else 0.0,
    }[reason]
    return Penalty(reason, seconds)


def record(
    tx: Transaction,
    row: Any,
    now: float,
    settings: Settings,
    *,
    reason: str | None,
    score: float | None = None,
    feedback: int = 0,
) -> dict[str, Any] | None:
    """Write what a finished copy means for its worker: streaks, scores, cooldown, count of feedback.

    `reason` is the cooldown's, "success", or None for a verdict without consequences. Returns the cooldown in
    force.
    """
    penalty = penalty_for(reason, row, settings) if reason else Penalty("", 0.0)
    until = row.cooldown_until
    why = row.cooldown_reason
    if penalty.seconds > 0 and now + penalty.seconds > until:
        until, why = now + penalty.seconds, penalty.reason
    scores = json.loads(row.recent)
    values = {
        "who": row.identity,
        "recent_": json.dumps([*scores, round(score, 4)][-RECENT:]) if score is not None else row.recent,
        "low": {"low_score": row.low_streak + 1, "success": 0}.get(reason or "", row.low_streak),
        "skips": row.skip_streak + 1 if reason == "skip" else (0 if reason == "success" else row.skip_streak),
        "until": until,
        "reason": why,
        "seq": row.feedback_seq + feedback,
    }
    tx.execute(_VERDICT, values)
    if until <= now:
        return None
    return {"until": rfc3339(until), "reason": why, "violations": row.violations}


def give_feedback(tx: Transaction, streams: Streams, row: Any, now: float, body: dict[str, Any]) -> dict[str, Any]:
    """Append to the worker's feedback; `record(feedback=1)` of the same unit keeps the count."""
    seq = row.feedback_seq + 1
    feedback = {"seq": seq, **body}
    streams.append(tx, feedback_stream(row.identity), seq, now, feedback)
    return feedback


def give_notice(tx: Transaction, streams: Streams, identity: str, now: float, body: dict[str, Any]) -> None:
    """Tell a worker that one of its leases is cancelled."""
    row = worker_row(tx, identity)
    tx.execute(_NOTICE, {"who": identity, "seq": row.notice_seq + 1})
    streams.append(tx, notice_stream(identity), row.notice_seq + 1, now, body)


def feedback_stream(identity: str) -> str:
    return f"worker:{identity}"


def notice_stream(identity: str) -> str:
    return f"notices:{identity}"
