"""The client's side: submit, look, list, cancel, read results. One service behind every face."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from sqlalchemy import bindparam, func, insert, select, update

from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import (
    FormatNotAvailable,
    GridError,
    IdempotencyConflict,
    PublicApiDisabled,
    QueueFull,
    ResultExpired,
    ResultNotFound,
    SeqAhead,
    TaskNotFound,
    TooManyActiveTasks,
)
from grid_node.generation import workers
from grid_node.generation.holds import TASK, TASK_ROW
from grid_node.generation.lifecycle import COPIES, Lifecycle, task_stream
from grid_node.generation.selection import ENDED
from grid_node.generation.tables import QUEUED, Copy, Task
from grid_node.generation.views import task_view
from grid_node.settings import Settings
from grid_node.statements import Prepared, prepared
from grid_node.streams.service import Entry, Streams

tasks = Task.__table__
copies = Copy.__table__

IDEMPOTENCY_S = 86400.0
"""How long an idempotency key stands for its task."""

_INSERT = prepared(insert(tasks))
_BY_IDEMPOTENCY = prepared(
    select(tasks)
    .where(tasks.c.key_id == bindparam("key"), tasks.c.idempotency_key == bindparam("idem"))
    .with_for_update()
)
_FORGET_IDEMPOTENCY = prepared(
    update(tasks).where(tasks.c.number == bindparam("row")).values(idempotency_key=None, request_digest=None)
)
_QUEUED = prepared(
    select(tasks.c.key_id, func.count().label("waiting")).where(tasks.c.status == QUEUED).group_by(tasks.c.key_id)
)
_WAITING = prepared(select(tasks.c.id, tasks.c.key_id).where(tasks.c.status == QUEUED))
_QUEUED_BEFORE = prepared(
    select(func.count()).where(
        tasks.c.status == QUEUED, tasks.c.key_id == bindparam("key"), tasks.c.number < bindparam("row")
    )
)
_ABANDON = prepared(
    update(tasks)
    .where(tasks.c.id == bindparam("task_id"), tasks.c.finished_at.is_(None))
    .values(abandoned_at=bindparam("at"))
)
_ABANDONED = prepared(
    select(tasks.c.id, tasks.c.key_id)
    .where(
        tasks.c.abandoned_at.is_not(None), tasks.c.finished_at.is_(None), tasks.c.abandoned_at <= bindparam("before")
    )
    .limit(64)
)
_ACTIVE = prepared(select(func.count()).where(tasks.c.key_id == bindparam("key"), tasks.c.finished_at.is_(None)))


class Caller(Protocol):
    """Whoever holds an API key."""

    @property
    def key_id(self) -> str: ...

    @property
    def max_concurrent(self) -> int: ...


class Gate(Protocol):
    """Keys and limits, inside the transaction of the acceptance."""

    def admit(self, tx: Transaction, key_id: str, now: float) -> Caller:
        """The key's holder, whose tasks only this transaction adds to until it ends; raises InvalidKey or Forbidden."""

    def window(self, tx: Transaction, caller: Any, now: float) -> Any:
        """What is left to the key, charging nothing; its `check` raises RateLimited."""

    def charge(self, tx: Transaction, caller: Any, now: float) -> Any:
        """One more accepted request, undone with the transaction; raises RateLimited. The unit's last step."""


@dataclass(frozen=True)
class NewTask:
    """A checked request. `deadline_s` counts from acceptance."""

    prompt: str
    kind: str
    send_first_results: bool
    copies: int
    deadline_s: float
    seed: int | None = None
    idempotency_key: str | None = None

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Accepted:
    """The answer to a submission: the task, whether it is a replay, and the key's window."""

    task: dict[str, Any]
    duplicate: bool
    window: Any

    def body(self) -> dict[str, Any]:
        body = {"success": True, "task": self.task}
        return {**body, "duplicate": True} if self.duplicate else body


@dataclass(frozen=True)
class StoredFile:
    """Where the bytes of a result or of something made from it are: a blob, or in the row itself."""

    sha256: str
    size: int
    name: str
    inline: bytes | None = None


class Tasks:
    """What clients may do with tasks. Unknown, malformed and foreign ids all raise TaskNotFound."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        streams: Streams,
        lifecycle: Lifecycle,
        gate: Gate,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._streams = streams
        self._lifecycle = lifecycle
        self._gate = gate

    # --- submit -----------------------------------------------------------------------------------------------

    def submit(self, key_id: str, new: NewTask, committed: Callable[[str], None] | None = None) -> Accepted:
        """Accept a task, durably. `committed` hears its id right after the commit, before any later update."""
        if not self._settings.public_api_enabled:
            raise PublicApiDisabled(retry_after=60)
        return self._store.write(partial(self._submit, key_id=key_id, new=new, committed=committed))

    def _submit(self, tx: Transaction, key_id: str, new: NewTask, committed: Callable[[str], None] | None) -> Accepted:
        now = self._clock.now()
        replayed = self._replay(tx, key_id, new, now) if new.idempotency_key else None
        if replayed is not None:
            return replayed
        caller = self._gate.admit(tx, key_id, now)
        waiting = {row.key_id: row.waiting for row in tx.execute(_QUEUED)}
        refusal = self._refusal(tx, caller, waiting)
        if refusal is not None:
            self._gate.window(tx, caller, now).check()
            raise refusal
        task_id = self._insert(tx, key_id, new, now)
        window = self._gate.charge(tx, caller, now)
        if committed is not None:
            tx.on_commit(partial(committed, task_id))
        tx.on_commit(self._lifecycle.changed)
        view = {
            "id": task_id,
            "status": "queued",
            "position": _place(waiting, key_id, waiting.get(key_id, 0)),
            "deadline": rfc3339(now + new.deadline_s),
            "kind": new.kind,
            "seq": 1,
            "workers_available": workers.able_count(tx, new.kind, now, self._settings),
        }
        return Accepted(view, False, window)

    def check(self, caller: Caller) -> None:
        """Raise what would keep this caller from adding a task now, charging nothing."""
        self._store.read(partial(self._check, caller=caller))

    def _check(self, tx: Transaction, caller: Caller) -> None:
        self._gate.window(tx, caller, self._clock.now()).check()
        refusal = self._refusal(tx, caller, {row.key_id: row.waiting for row in tx.execute(_QUEUED)})
        if refusal is not None:
            raise refusal

    def _replay(self, tx: Transaction, key_id: str, new: NewTask, now: float) -> Accepted | None:
        task = tx.execute(_BY_IDEMPOTENCY, {"key": key_id, "idem": new.idempotency_key}).one_or_none()
        if task is None:
            return None
        if task.created_at <= now - IDEMPOTENCY_S:
            tx.execute(_FORGET_IDEMPOTENCY, {"row": task.number})
            return None
        if task.request_digest != new.digest():
            raise IdempotencyConflict()
        return Accepted(self._view(tx, task), True, None)

    def _insert(self, tx: Transaction, key_id: str, new: NewTask, now: float) -> str:
        task_id = self._clock.new_id()
        row = {
            "id": task_id,
            "key_id": key_id,
            "kind": new.kind,
            "prompt": new.prompt,
            "seed": new.seed,
            "copies": new.copies,
            "send_first_results": new.send_first_results,
            "idempotency_key": new.idempotency_key,
            "request_digest": new.digest() if new.idempotency_key else None,
            "status": "queued",
            "seq": 1,
            "open_slots": new.copies,
            "strong_taken": False,
            "attempts": 0,
            "created_at": now,
            "deadline": now + new.deadline_s,
            "due_at": now + new.deadline_s,
        }
        tx.execute(_INSERT, row)
        body = {"task_id": task_id, "seq": 1, "status": "queued", "at": rfc3339(now)}
        self._streams.append(tx, task_stream(task_id), 1, now, body)
        return task_id

    def _refusal(self, tx: Transaction, caller: Caller, waiting: dict[str, int]) -> GridError | None:
        """Why this caller may not add a task now, its window apart."""
        if caller.max_concurrent:
            active = tx.execute(_ACTIVE, {"key": caller.key_id}).scalar() or 0
            if active >= caller.max_concurrent:
                return TooManyActiveTasks(retry_after=5, limit=caller.max_concurrent)
        if sum(waiting.values()) >= self._settings.public_api_queue_max:
            return QueueFull(retry_after=5)
        return None

    def _position(self, tx: Transaction, task: Any) -> int | None:
        if task.status != "queued":
            return None
        waiting = {row.key_id: row.waiting for row in tx.execute(_QUEUED)}
        before = tx.execute(_QUEUED_BEFORE, {"key": task.key_id, "row": task.number}).scalar() or 0
        return _place(waiting, task.key_id, before)

    # --- look -------------------------------------------------------------------------------------------------

    def status(self, key_id: str, task_id: str, after_seq: int | None = None, wait_s: float = 0) -> dict[str, Any]:
        """The task; with `wait_s` once it has an update above `after_seq`, or after that many seconds."""
        task = self._store.read(partial(self._checked, key_id=key_id, task_id=task_id, after_seq=after_seq))
        self._welcome_back(task)
        if wait_s and after_seq is not None and task.seq <= after_seq and task.status not in ENDED:
            self._streams.wait(task_stream(task_id), after_seq, wait_s)
        return self._store.read(lambda tx: self._view(tx, self._own(tx, key_id, task_id)))

    def page(self, key_id: str, status: str | None, limit: int, after: str | None) -> dict[str, Any]:
        """The key's tasks, newest first; `after` is the id where the page before ended."""
        return self._store.read(partial(self._page, key_id=key_id, status=status, limit=limit, after=after))

    def _page(self, tx: Transaction, key_id: str, status: str | None, limit: int, after: str | None) -> dict[str, Any]:
        query = select(tasks).where(tasks.c.key_id == key_id).order_by(tasks.c.number.desc()).limit(limit + 1)
        if status is not None:
            query = query.where(tasks.c.status == status)
        if after is not None:
            query = query.where(tasks.c.number < self._own(tx, key_id, after).number)
        rows = tx.execute(query).all()
        page = rows[:limit]
        following = page[-1].id if len(rows) > limit else None
        return {"success": True, "tasks": [self._view(tx, task) for task in page], "next": following}

    def resume(self, key_id: str, task_id: str, after_seq: int) -> tuple[dict[str, Any], list[Entry]]:
        """The task and its updates above `after_seq`, read together; raises SeqAhead beyond the last."""
        task, view, entries = self._store.read(
            partial(self._resume, key_id=key_id, task_id=task_id, after_seq=after_seq)
        )
        self._welcome_back(task)
        return view, entries

    def _resume(
        self, tx: Transaction, key_id: str, task_id: str, after_seq: int
    ) -> tuple[Any, dict[str, Any], list[Entry]]:
        task = self._checked(tx, key_id, task_id, after_seq)
        return task, self._view(tx, task), self._streams.read_after(tx, task_stream(task_id), after_seq)

    def _checked(self, tx: Transaction, key_id: str, task_id: str, after_seq: int | None) -> Any:
        task = self._own(tx, key_id, task_id)
        if after_seq is not None and after_seq > task.seq:
            raise SeqAhead(last_seq=task.seq)
        return task

    # --- end --------------------------------------------------------------------------------------------------

    def cancel(self, key_id: str, task_id: str, code: str = "cancelled_by_client") -> dict[str, Any]:
        """End an open task; an ended one is returned as it is."""
        return self._store.write(partial(self._cancel, key_id=key_id, task_id=task_id, code=code))

    def _cancel(self, tx: Transaction, key_id: str, task_id: str, code: str) -> dict[str, Any]:
        task = self._own(tx, key_id, task_id, TASK)
        if task.finished_at is None:
            self._lifecycle.cancel(tx, task, code, self._clock.now())
            task = self._own(tx, key_id, task_id)
        return self._view(tx, task)

    def abandon(self, key_id: str, task_id: str) -> None:
        """The client that waited for this task is gone; unless somebody asks for the task in time, it is cancelled."""
        self._store.write(partial(self._abandon, key_id=key_id, task_id=task_id))

    def _abandon(self, tx: Transaction, key_id: str, task_id: str) -> None:
        self._own(tx, key_id, task_id, TASK)
        tx.execute(_ABANDON, {"task_id": task_id, "at": self._clock.now()})

    def _welcome_back(self, task: Any) -> None:
        if task.abandoned_at is not None and task.finished_at is None:
            self._store.write(lambda tx: tx.execute(_ABANDON, {"task_id": task.id, "at": None}))

    def cancel_abandoned(self) -> int:
        """Cancel what nobody asked for or follows within the grace after its client was lost; returns how many."""
        before = self._clock.now() - self._settings.public_api_ws_grace
        rows = self._store.read(lambda tx: tx.execute(_ABANDONED, {"before": before}).all())
        return sum(self._store.write(partial(self._cancel_abandoned, row=row, before=before)) for row in rows)

    def _cancel_abandoned(self, tx: Transaction, row: Any, before: float) -> bool:
        task = self._own(tx, row.key_id, row.id, TASK)
        if task.finished_at is not None or task.abandoned_at is None or task.abandoned_at > before:
            return False
        if self._streams.followed(task_stream(task.id)):
            return False
        self._lifecycle.cancel(tx, task, "client_gone", self._clock.now())
        return True

    def cancel_unassigned(self, in_force: Callable[[Iterable[str]], set[str]]) -> int:
        """Cancel what waits for its first worker under keys that are no longer in force; returns how many."""
        rows = self._store.read(lambda tx: tx.execute(_WAITING).all())
        alive = in_force({row.key_id for row in rows})
        gone = [row for row in rows if row.key_id not in alive]
        for row in gone:
            self._store.write(partial(self._cancel_queued, key_id=row.key_id, task_id=row.id))
        return len(gone)

    def _cancel_queued(self, tx: Transaction, key_id: str, task_id: str) -> None:
        task = self._own(tx, key_id, task_id, TASK)
        if task.status == "queued":
            self._lifecycle.cancel(tx, task, "key_removed", self._clock.now())

    # --- results ----------------------------------------------------------------------------------------------

    def result_file(self, key_id: str, task_id: str, which: str, name: str | None = None) -> StoredFile:
        """The file of a result: its asset, or one made from it (`previews/0.png`, `asset.spz`).

        `which` is a result's n, `first` or `best`. Raises ResultNotFound, ResultExpired, FormatNotAvailable.
        """
        copy = self._store.read(partial(self._result, key_id=key_id, task_id=task_id, which=which))
        if copy.assets_gone:
            raise ResultExpired()
        if name is None or name == f"asset.{copy.format}":
            return StoredFile(copy.sha256, copy.size, f"asset.{copy.format}", copy.inline)
        made = json.loads(copy.artifacts or "{}")
        if name not in made:
            raise FormatNotAvailable() if name.startswith("asset.") else ResultNotFound()
        return StoredFile(made[name]["sha256"], made[name]["size"], name.replace("/", "-"))

    def report(self, key_id: str, task_id: str, which: str) -> dict[str, Any]:
        """The scorer's report on a result. The view seed is shown only after the task ended."""
        copy, task = self._store.read(
            lambda tx: (self._result(tx, key_id, task_id, which), self._own(tx, key_id, task_id))
        )
        report = json.loads(copy.report)
        if task.finished_at is None:
            report.pop("view_seed", None)
        return report

    def _result(self, tx: Transaction, key_id: str, task_id: str, which: str) -> Any:
        task = self._own(tx, key_id, task_id)
        number = {"first": 0, "best": task.best}.get(which, int(which) if which.isdecimal() else None)
        for copy in tx.execute(COPIES, {"id": task_id}):
            if copy.n is not None and copy.n == number:
                return copy
        raise ResultNotFound()

    # --- shared -----------------------------------------------------------------------------------------------

    def _own(self, tx: Transaction, key_id: str, task_id: str, statement: Prepared = TASK_ROW) -> Any:
        well_formed = len(task_id) == 36 and "\0" not in task_id  # NUL is an error to PostgreSQL
        task = tx.execute(statement, {"id": task_id}).one_or_none() if well_formed else None
        if task is None or task.key_id != key_id:
            raise TaskNotFound()
        return task

    def _view(self, tx: Transaction, task: Any) -> dict[str, Any]:
        rows = tx.execute(COPIES, {"id": task.id}).all()
        return task_view(task, rows, self._position(tx, task))


def _place(waiting: dict[str, int], key_id: str, before: int) -> int:
    """Keys are served in turn: every other key goes at most `before` + 1 times first. 1 is next."""
    others = sum(min(count, before) for key, count in waiting.items() if key != key_id)
    return others + before + 1
