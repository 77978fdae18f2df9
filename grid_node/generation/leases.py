"""The worker's side: granting, renewing, submitting, skipping. Each public method is one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

from sqlalchemy import bindparam, func, insert, select, update

from grid_node.blobs.references import refer
from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import (
    AlreadySubmitted,
    BadSignature,
    GridError,
    InvalidPayload,
    LeaseClosed,
    LeaseNotFound,
    Sha256Mismatch,
)
from grid_node.generation import workers
from grid_node.generation.holds import COPY_ROW, TASK, TASK_ROW, held_copy, hold
from grid_node.generation.lifecycle import Lifecycle, feedback_body
from grid_node.generation.tables import LEASED, SCORING, Copy, Task
from grid_node.generation.verdicts import Verdicts
from grid_node.settings import Settings
from grid_node.statements import prepared
from grid_node.streams.service import Streams

tasks = Task.__table__
copies = Copy.__table__

_LIVE = prepared(
    select(copies).where(copies.c.worker == bindparam("worker"), copies.c.state == LEASED).order_by(copies.c.number)
)
_RENEW = prepared(
    update(copies)
    .where(
        copies.c.lease_id == bindparam("lease"),
        copies.c.state == LEASED,
        copies.c.lease_expires_at > bindparam("now"),
    )
    .values(lease_expires_at=bindparam("expires"))
)
_SUBMIT = prepared(
    update(copies)
    .where(copies.c.lease_id == bindparam("lease"), copies.c.sha256.is_(None))
    .values(
        state=bindparam("new_state"),
        submitted_at=bindparam("now"),
        late=bindparam("is_late"),
        format=bindparam("form"),
        sha256=bindparam("digest"),
        size=bindparam("length"),
        inline=bindparam("body"),
        job_due_at=bindparam("job_due"),
    )
    .returning(*copies.c)
)
_STATE = prepared(update(copies).where(copies.c.lease_id == bindparam("lease")).values(state=bindparam("new_state")))
_EXPIRE = prepared(
    update(copies)
    .where(
        copies.c.lease_id == bindparam("lease"),
        copies.c.state == LEASED,
        copies.c.lease_expires_at <= bindparam("now"),
    )
    .values(state="expired")
)
_SCORING = prepared(select(func.count()).where(copies.c.state == SCORING))
_INSERT = prepared(insert(copies))

INLINE_MAX = 4096
"""Results of inline kinds up to so many bytes live in their row and share its commit; larger ones are blobs."""


class InlineScorer(Protocol):
    """Judges bytes of an inline kind in microseconds; see scoring.port.Scorer for the others."""

    def __call__(self, data: bytes, task: Any, copy_format: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Kind:
    """What the node must know of a kind of task. `judge` is set for inline kinds."""

    name: str
    formats: tuple[str, ...]
    max_bytes: int
    judge: InlineScorer | None = None


@dataclass(frozen=True)
class Submission:
    """A result as it was handed in. `sha256` is what the worker says, `actual` what the bytes have.

    `inline` holds the bytes of small results; all others are a blob already.
    """

    worker: str
    lease_id: str
    task_id: str | None
    format: str
    sha256: str
    actual: str
    size: int
    inline: bytes | None
    signature_valid: bool = True


class Leases:
    """Copies from grant to submission."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        streams: Streams,
        lifecycle: Lifecycle,
        verdicts: Verdicts,
        kinds: Mapping[str, Kind],
        node_hotkey: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._streams = streams
        self._lifecycle = lifecycle
        self._verdicts = verdicts
        self._kinds = kinds
        self._node_hotkey = node_hotkey
        self.enqueue: Callable[[str], None] = lambda _lease_id: None
        """Called after the commit of a result that a job process must score; app.py makes it tell the queue."""

    # --- grant: used by the dispatcher, inside its transaction ------------------------------------------------

    def live(self, tx: Transaction, worker: str) -> list[Any]:
        return list(tx.execute(_LIVE, {"worker": worker}).all())

    def scoring_backlog(self, tx: Transaction) -> bool:
        return int(tx.execute(_SCORING).scalar() or 0) > self._settings.scoring_queue_max

    def grant(self, tx: Transaction, task: Any, worker: str, strong: bool, extra: bool, now: float) -> dict[str, Any]:
        """Insert the copy and return its lease. The caller has counted the slot."""
        until = min(now + self._settings.worker_lease_max, task.deadline)
        lease_id = self._clock.new_id()
        expires = min(now + self._settings.worker_lease, until)
        values = {
            "lease_id": lease_id,
            "task_id": task.id,
            "worker": worker,
            "strong": strong,
            "extra": extra,
            "state": "leased",
            "granted_at": now,
            "lease_expires_at": expires,
            "lease_until": until,
            "late": False,
            "credited": False,
            "assets_gone": False,
            "job_attempts": 0,
        }
        tx.execute(_INSERT, values)
        return self.view(task, lease_id, expires)

    def view(self, task: Any, lease_id: str, expires: float) -> dict[str, Any]:
        """A lease as its worker reads it."""
        kind = self._kinds[task.kind]
        return {
            "task_id": task.id,
            "lease_id": lease_id,
            "kind": task.kind,
            "prompt": task.prompt,
            "seed": task.seed,
            "formats": list(kind.formats),
            "up_axis": self._settings.scoring_up_axis,
            "max_bytes": min(kind.max_bytes, self._settings.scoring_max_bytes),
            "max_splats": self._settings.scoring_max_splats,
            "min_splats": self._settings.scoring_min_splats,
            "threshold": self._settings.scoring_threshold,
            "lease_expires_at": rfc3339(expires),
            "renew_every_s": max(1, int(self._settings.worker_lease / 3)),
            "deadline": rfc3339(task.deadline),
            "node_hotkey": self._node_hotkey,
        }

    def redeliver(self, tx: Transaction, copy: Any) -> dict[str, Any]:
        """A live lease once more: the answer that granted it was lost."""
        task = tx.execute(TASK_ROW, {"id": copy.task_id}).one()
        return self.view(task, copy.lease_id, copy.lease_expires_at)

    # --- one lease ------------------------------------------------------------------------------------------

    def renew(self, worker: str, lease_id: str) -> dict[str, Any]:
        return self._store.write(partial(self._renew, worker=worker, lease_id=lease_id))

    def _renew(self, tx: Transaction, worker: str, lease_id: str) -> dict[str, Any]:
        copy = self._own(tx, worker, lease_id)
        now = self._clock.now()
        expires = min(now + self._settings.worker_lease, copy.lease_until)
        if not tx.execute(_RENEW, {"lease": lease_id, "now": now, "expires": expires}).rowcount:
            raise LeaseClosed(reason="lease_expired" if copy.state == "leased" else copy.state)
        task = tx.execute(TASK, {"id": copy.task_id}).one()
        self._lifecycle.settle(tx, copy.task_id, now)
        return {"success": True, "lease_expires_at": rfc3339(expires), "deadline": rfc3339(task.deadline)}

    def skip(self, worker: str, lease_id: str) -> dict[str, Any]:
        return self._store.write(partial(self._skip, worker=worker, lease_id=lease_id))

    def _skip(self, tx: Transaction, worker: str, lease_id: str) -> dict[str, Any]:
        copy = self._own(tx, worker, lease_id)
        if copy.state != "leased":
            raise LeaseClosed(reason=copy.state)
        now = self._clock.now()
        tx.execute(_STATE, {"lease": lease_id, "new_state": "skipped"})
        row = workers.worker_row(tx, worker)
        cooldown = workers.record(tx, row, now, self._settings, reason="skip")
        self._lifecycle.reopen_slot(tx, copy)
        self._lifecycle.settle(tx, copy.task_id, now)
        return {"success": True, "cooldown": cooldown}

    def expire(self, tx: Transaction, copy: Any, now: float) -> None:
        """A lease ran out: the slot goes back, the worker cools down. The caller settles the task."""
        hold(tx, copy.task_id, copy.worker)
        if not tx.execute(_EXPIRE, {"lease": copy.lease_id, "now": now}).rowcount:
            return  # another process was faster, or it was renewed
        row = workers.worker_row(tx, copy.worker)
        workers.record(tx, row, now, self._settings, reason="lease_expired")
        self._lifecycle.reopen_slot(tx, copy)

    def revoke(self, worker: str) -> None:
        """The worker may no longer work: its leases go back to the queue, without a cooldown."""
        for copy in self._store.read(partial(self.live, worker=worker)):
            self._store.write(partial(self._revoke, lease_id=copy.lease_id))

    def _revoke(self, tx: Transaction, lease_id: str) -> None:
        copy = held_copy(tx, lease_id)
        if copy is not None and copy.state == "leased":
            tx.execute(_STATE, {"lease": lease_id, "new_state": "expired"})
            self._lifecycle.reopen_slot(tx, copy)
            self._lifecycle.settle(tx, copy.task_id, self._clock.now())

    # --- submission -------------------------------------------------------------------------------------------

    def expected(self, worker: str, lease_id: str) -> Any:
        """The worker's copy and its task, before the bytes are taken in; raises LeaseNotFound."""
        return self._store.read(partial(self._expected, worker=worker, lease_id=lease_id))

    def _expected(self, tx: Transaction, worker: str, lease_id: str) -> Any:
        copy = _owned(tx.execute(COPY_ROW, {"lease": _id(lease_id)}).one_or_none(), worker)
        return copy, tx.execute(TASK_ROW, {"id": copy.task_id}).one()

    def kind_of(self, task: Any) -> Kind:
        return self._kinds[task.kind]

    def submit(self, submission: Submission) -> dict[str, Any]:
        """Take a result in. Raises what the worker did wrong, after what that means is committed."""
        outcome = self._store.write(partial(self._submit, given=submission))
        if isinstance(outcome, GridError):
            raise outcome
        return outcome

    def _submit(self, tx: Transaction, given: Submission) -> dict[str, Any] | GridError:
        copy = self._own(tx, given.worker, given.lease_id)
        if given.task_id is not None and given.task_id != copy.task_id:
            raise InvalidPayload(fields={"task_id": ["is not the task of this lease"]})
        if copy.sha256 is not None:
            return self._again(copy, given)
        if copy.state == "skipped":
            raise LeaseClosed(reason="skipped")
        now = self._clock.now()
        task = tx.execute(TASK, {"id": copy.task_id}).one()
        if given.format not in self._kinds[task.kind].formats:
            raise InvalidPayload(fields={"format": ["is not offered by this lease"]})
        fault = self._fraud(given)
        if task.finished_at is not None:
            return self._too_late(tx, copy, given, now)
        if fault is not None:
            return self._refuse(tx, copy, given, fault, now)
        return self._take(tx, copy, task, given, now)

    def _again(self, copy: Any, given: Submission) -> dict[str, Any]:
        if copy.sha256 != given.actual:
            raise AlreadySubmitted()
        return {"success": True, "task_id": copy.task_id, "lease_id": copy.lease_id, "state": copy.state}

    def _fraud(self, given: Submission) -> GridError | None:
        if given.sha256 != given.actual:
            return Sha256Mismatch()
        return None if given.signature_valid else BadSignature()

    def _store_bytes(self, tx: Transaction, copy: Any, given: Submission, state: str, now: float, job: bool) -> Any:
        """Write what was handed in; returns the copy's row as it is now."""
        values = {
            "lease": copy.lease_id,
            "new_state": state,
            "now": now,
            "is_late": copy.state != "leased" or copy.lease_expires_at <= now,
            "form": given.format,
            "digest": given.actual,
            "length": given.size,
            "body": given.inline,
            "job_due": now if job else None,
        }
        submitted = tx.execute(_SUBMIT, values).one_or_none()
        if submitted is None:
            raise AlreadySubmitted()
        if given.inline is None:
            refer(tx, copy.lease_id, [given.actual])
        return submitted

    def _too_late(self, tx: Transaction, copy: Any, given: Submission, now: float) -> dict[str, Any]:
        """The task ended meanwhile: no penalty, no credit, and the winner stays."""
        self._store_bytes(tx, copy, given, copy.state, now, job=False)
        row = workers.worker_row(tx, copy.worker)
        body = feedback_body(copy, "late", self._settings.scoring_threshold, {})
        feedback = workers.give_feedback(tx, self._streams, row, now, body)
        workers.record(tx, row, now, self._settings, reason=None, feedback=1)
        return {"success": True, "state": copy.state, **feedback}

    def _refuse(self, tx: Transaction, copy: Any, given: Submission, fault: GridError, now: float) -> GridError:
        self._store_bytes(tx, copy, given, "scoring", now, job=False)
        report = {
            "score": 0.0,
            "accepted": False,
            "threshold": self._settings.scoring_threshold,
            "components": {},
            "reasons": [fault.code],
            "scorer": None,
        }
        self._verdicts.record(tx, copy.lease_id, report, None, now)
        return fault

    def _take(self, tx: Transaction, copy: Any, task: Any, given: Submission, now: float) -> dict[str, Any]:
        kind = self._kinds[task.kind]
        inline = kind.judge is not None and given.inline is not None
        submitted = self._store_bytes(tx, copy, given, "scoring", now, job=not inline)
        if inline:
            report = kind.judge(given.inline, task, given.format)  # type: ignore[misc, arg-type]
            feedback = self._verdicts.judge(tx, submitted, task, report, None, now)
            return {"success": True, "state": feedback["verdict"], **feedback}
        self._lifecycle.settle(tx, copy.task_id, now)
        tx.on_commit(partial(self.enqueue, copy.lease_id))
        return {"success": True, "task_id": copy.task_id, "lease_id": copy.lease_id, "state": "scoring"}

    def _own(self, tx: Transaction, worker: str, lease_id: str) -> Any:
        return _owned(held_copy(tx, _id(lease_id)), worker)


def _owned(copy: Any, worker: str) -> Any:
    if copy is None or copy.worker != worker:
        raise LeaseNotFound()
    return copy


def _id(lease_id: str) -> str:
    if "\0" in lease_id:  # an error to PostgreSQL
        raise LeaseNotFound()
    return lease_id


def digest(data: bytes) -> str:
    """Lower hex sha256."""
    return sha256(data).hexdigest()
