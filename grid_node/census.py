"""What the metrics say about the grid's rows: counted when asked, by queries that indexes of open work answer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from sqlalchemy import bindparam, func, select, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.generation.tables import Copy, Heartbeat, Task
from grid_node.metrics import Metrics

tasks = Task.__table__
copies = Copy.__table__
heartbeats = Heartbeat.__table__

OPEN = ("queued", "started", "first_results")
LAG = 2.0
"""Seconds that a row is left to be committed before its end is counted."""
PENDING_MAX = 1000
"""Results whose verdict is waited for; more are not measured."""

_OPEN_TASKS = (
    select(tasks.c.kind, tasks.c.status, func.count().label("n"))
    .where(tasks.c.finished_at.is_(None))
    .group_by(tasks.c.kind, tasks.c.status)
)
_ENDED = (
    select(tasks.c.status, func.count().label("n"))
    .where(tasks.c.finished_at > bindparam("after"), tasks.c.finished_at <= bindparam("until"))
    .group_by(tasks.c.status)
)
_SCORING = select(func.count()).where(copies.c.state == "scoring")
_JUDGED = select(copies.c.lease_id, copies.c.submitted_at, copies.c.verdict_at).where(
    copies.c.lease_id.in_(bindparam("leases", expanding=True)), copies.c.verdict_at.is_not(None)
)
_TOUCH = update(heartbeats).where(heartbeats.c.id == 1).values(at=heartbeats.c.at)


class Census:
    """Counts of the whole grid, as this process reads them."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, kinds: Iterable[str]) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._kinds = tuple(kinds)
        self._counted_until = clock.now()
        self._pending: set[str] = set()

    def submitted(self, lease_id: str) -> None:
        """A result went to a job process: its verdict is measured when it is there."""
        if len(self._pending) < PENDING_MAX:
            self._pending.add(lease_id)

    def look(self) -> None:
        """Bring every metric that is read from rows up to date. Raises StoreUnavailable."""
        self.look_at_events()
        open_tasks, scoring = self._store.read(self._open)
        for state in OPEN:
            self._metrics.tasks.labels(state).set(sum(row.n for row in open_tasks if row.status == state))
        queued = {row.kind: row.n for row in open_tasks if row.status == "queued"}
        for kind in self._kinds:
            self._metrics.queue.labels(kind).set(queued.get(kind, 0))
        self._metrics.scoring_queue.set(scoring)

    def look_at_events(self) -> None:
        """Count what ended and measure what was judged since the last look; call it every few seconds."""
        until = self._clock.now() - LAG
        if until > self._counted_until:
            values = {"after": self._counted_until, "until": until}
            for row in self._store.read(lambda tx: tx.execute(_ENDED, values).all()):
                self._metrics.tasks_ended.labels(row.status).inc(row.n)
            self._counted_until = until
        self._measure_verdicts()

    def check_writable(self) -> None:
        """Write a row and commit it; raises StoreUnavailable or StoreFull."""
        self._store.write(lambda tx: tx.execute(_TOUCH))

    def _open(self, tx: Transaction) -> tuple[list[Any], int]:
        return list(tx.execute(_OPEN_TASKS).all()), int(tx.execute(_SCORING).scalar() or 0)

    def _measure_verdicts(self) -> None:
        if not self._pending:
            return
        judged = self._store.read(partial(self._judged, leases=sorted(self._pending)))
        for row in judged:
            self._pending.discard(row.lease_id)
            self._metrics.scoring.observe(max(0.0, row.verdict_at - row.submitted_at))

    def _judged(self, tx: Transaction, leases: list[str]) -> list[Any]:
        return list(tx.execute(_JUDGED, {"leases": leases}).all())
