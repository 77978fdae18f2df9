"""What the metrics say about the grid's rows: counted when asked, by queries that indexes of open work answer."""

import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

from prometheus_client import Counter
from sqlalchemy import Select, bindparam, func, select, text, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.generation.tables import Copy, Heartbeat, Task
from grid_node.metrics import Metrics, RunnerMetrics
from grid_node.runners.health import WORDS
from grid_node.runners.tables import RunnerAgent, RunnerDelivery, RunnerDeliveryTry, RunnerEvent, RunnerPrediction

tasks = Task.__table__
copies = Copy.__table__
heartbeats = Heartbeat.__table__
runs = RunnerPrediction.__table__
agents = RunnerAgent.__table__
deliveries = RunnerDelivery.__table__
tries = RunnerDeliveryTry.__table__
reports = RunnerEvent.__table__

OPEN = ("queued", "started", "first_results")
OPEN_RUNS = ("queued", "dispatching", "starting", "processing")
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
_OPEN_RUNS = select(runs.c.state, func.count().label("n")).where(runs.c.finished_at.is_(None)).group_by(runs.c.state)
_ENDED_RUNS = (
    select(runs.c.state.label("status"), func.count().label("n"))
    .where(runs.c.finished_at > bindparam("after"), runs.c.finished_at <= bindparam("until"))
    .group_by(runs.c.state)
)
_AGENTS = select(agents.c.status, func.count().label("n")).where(agents.c.connected.is_(True)).group_by(agents.c.status)
_PENDING = select(func.count()).select_from(deliveries).where(text("state = 'pending'"))
"""In the words of the index: a parameter would not use it."""
_WAITING = select(func.count()).select_from(reports).where(reports.c.merged.is_(False))
_LAST_TRY = select(func.max(tries.c.id))
_TRIES = (
    select(tries.c.id, tries.c.status)
    .where(tries.c.id > bindparam("after"), tries.c.at + tries.c.ms / 1000.0 <= bindparam("until"))
    .order_by(tries.c.id)
    .limit(1000)
)


class Ended:
    """Counts rows by what became of them, once each, from the start of this process on.

    `query` gives `status` and `n` of the rows that ended after `after` and not after `until`.
    """

    def __init__(self, store: Store, query: Select[Any], counter: Counter, now: float) -> None:
        self._store = store
        self._query = query
        self._counter = counter
        self._counted_until = now
        self._lock = threading.Lock()

    def look(self, until: float) -> None:
        with self._lock:
            if until <= self._counted_until:
                return
            values = {"after": self._counted_until, "until": until}
            for row in self._store.read(lambda tx: tx.execute(self._query, values).all()):
                self._counter.labels(row.status).inc(row.n)
            self._counted_until = until


class Census:
    """Counts of the whole grid, as this process reads them."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, kinds: Iterable[str]) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._kinds = tuple(kinds)
        self._ended = Ended(store, _ENDED, metrics.tasks_ended, clock.now())
        self._runners = RunnerCensus(store, clock, metrics.runners)
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
        self._runners.look()

    def look_at_events(self) -> None:
        """Count what ended and measure what was judged since the last look; call it every few seconds."""
        self._ended.look(self._clock.now() - LAG)
        self._runners.look_at_events()
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


class RunnerCensus:
    """Models that run elsewhere: their agents, predictions, reports, and the webhooks that are owed to clients."""

    def __init__(self, store: Store, clock: Clock, metrics: RunnerMetrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._ended = Ended(store, _ENDED_RUNS, metrics.ended, clock.now())
        self._last_try: int | None = None
        self._lock = threading.Lock()

    def look(self) -> None:
        """Raises StoreUnavailable."""
        states, statuses, pending, waiting = self._store.read(self._rows)
        for state in OPEN_RUNS:
            self._metrics.predictions.labels(state).set(states.get(state, 0))
        for status in WORDS:
            self._metrics.agents.labels(status).set(statuses.get(status, 0))
        self._metrics.deliveries.set(pending)
        self._metrics.reports.set(waiting)

    def look_at_events(self) -> None:
        until = self._clock.now() - LAG
        self._ended.look(until)
        with self._lock:
            self._count_tries(until)

    def _count_tries(self, until: float) -> None:
        """Tries are numbered: what a busy node made beyond one page is counted at the next look."""
        if self._last_try is None:
            self._last_try = int(self._store.read(lambda tx: tx.execute(_LAST_TRY).scalar()) or 0)
        values = {"after": self._last_try, "until": until}
        for row in self._store.read(lambda tx: tx.execute(_TRIES, values).all()):
            self._metrics.tries.labels(_outcome(row.status)).inc()
            self._last_try = row.id

    def _rows(self, tx: Transaction) -> tuple[dict[str, int], dict[str, int], int, int]:
        states = {row.state: row.n for row in tx.execute(_OPEN_RUNS)}
        statuses = {row.status: row.n for row in tx.execute(_AGENTS)}
        return states, statuses, int(tx.execute(_PENDING).scalar() or 0), int(tx.execute(_WAITING).scalar() or 0)


def _outcome(status: int | None) -> str:
    """What became of one try: its receiver's answer, or that there was none."""
    if status is None:
        return "unreachable"
    return "delivered" if 200 <= status < 300 else "refused"
