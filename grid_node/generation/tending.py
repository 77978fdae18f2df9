"""What time alone changes: expired leases, windows, deadlines, old rows; and what a restart must put right."""

import logging
import threading
import time
from functools import partial
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from grid_node.blobs.references import release
from grid_node.clock import Clock
from grid_node.database import Store, Transaction, Unit
from grid_node.errors import GridError
from grid_node.generation.holds import hold
from grid_node.generation.leases import Leases
from grid_node.generation.lifecycle import Lifecycle
from grid_node.generation.tables import LEASED, Copy, Heartbeat, Task
from grid_node.settings import Settings
from grid_node.statements import Prepared, prepared

log = logging.getLogger(__name__)

tasks = Task.__table__
copies = Copy.__table__
heartbeats = Heartbeat.__table__

BATCH = 64
"""Rows put right in one transaction."""
PUT_OFF = 60.0
"""Seconds until a row that could not be put right is tried again."""
DOWN_MAX = 600.0
"""Seconds by which a restart extends leases at most."""
HEARTBEAT_EVERY = 5.0
REST = 0.1
"""Seconds between two looks: every new task wakes the loop, and hundreds a second need but one look."""

_DUE = prepared(
    select(tasks.c.id)
    .where(tasks.c.finished_at.is_(None), tasks.c.due_at <= bindparam("now"))
    .order_by(tasks.c.due_at)
    .limit(bindparam("most"))
)
_PUT_OFF_TASK = prepared(update(tasks).where(tasks.c.id == bindparam("row")).values(due_at=bindparam("until")))
_PUT_OFF_LEASE = prepared(
    update(copies).where(copies.c.lease_id == bindparam("row")).values(lease_expires_at=bindparam("until"))
)
_NEXT = prepared(select(func.min(tasks.c.due_at)).where(tasks.c.finished_at.is_(None)))
_EXPIRED = prepared(
    select(copies)
    .where(copies.c.state == LEASED, copies.c.lease_expires_at <= bindparam("now"))
    .order_by(copies.c.lease_expires_at)
    .limit(bindparam("most"))
)
_NEXT_EXPIRY = prepared(select(func.min(copies.c.lease_expires_at)).where(copies.c.state == LEASED))
_EXTEND = prepared(
    update(copies)
    .where(copies.c.state == LEASED)
    .values(lease_expires_at=copies.c.lease_expires_at + bindparam("down"))
)
_WITH_ASSETS = prepared(
    select(copies.c.lease_id)
    .join(tasks, tasks.c.id == copies.c.task_id)
    .where(tasks.c.finished_at < bindparam("before"), copies.c.assets_gone.is_(False), copies.c.sha256.is_not(None))
    .limit(BATCH)
)
_FADE = (
    update(copies)
    .where(copies.c.lease_id.in_(bindparam("leases", expanding=True)))
    .values(assets_gone=True, inline=None)
)
_OLD_TASKS = prepared(select(tasks.c.id).where(tasks.c.finished_at < bindparam("before")).limit(BATCH))
_BEAT = prepared(update(heartbeats).where(heartbeats.c.id == 1).values(at=bindparam("now")))
_LAST_BEAT = prepared(select(heartbeats.c.at).where(heartbeats.c.id == 1).with_for_update())


class Tending:
    """Does what is due, and says when it must be called again."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, leases: Leases, lifecycle: Lifecycle) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._leases = leases
        self._lifecycle = lifecycle
        self._wake = threading.Event()
        self._stopping = False
        self._beat_at = 0.0

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-tending", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def signal(self) -> None:
        self._wake.set()

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopping:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                due = self.tend()
                self._beat()
            except Exception:
                log.exception("tending failed")
                due = self._clock.now() + 1.0
            time.sleep(REST)
            pause = min(max(due - self._clock.now(), 0.0), HEARTBEAT_EVERY)

    def tend(self) -> float:
        """Do everything that is due; returns when the next thing will be."""
        while (due := self._store.read(self._next_due)) <= self._clock.now():
            try:
                self._store.write(self._expire_some)
                self._store.write(self._settle_some)
            except GridError:
                raise
            except Exception:
                log.exception("a batch of due rows failed; each is tried alone")
                self._one_by_one()
        return due

    def _one_by_one(self) -> None:
        """What fails alone too is put off, so that one broken row holds up no other."""
        at = {"now": self._clock.now(), "most": BATCH}
        for copy in self._store.read(lambda tx: tx.execute(_EXPIRED, at).all()):
            self._alone(partial(self._expire_one, copy=copy), copy.task_id, _PUT_OFF_LEASE, copy.lease_id)
        for task in self._store.read(lambda tx: tx.execute(_DUE, at).all()):
            self._alone(partial(self._settle_one, task_id=task.id), task.id, _PUT_OFF_TASK, task.id)

    def _alone(self, unit: Unit[None], task_id: str, put_off: Prepared, row: str) -> None:
        try:
            self._store.write(unit)
        except GridError:
            raise
        except Exception:
            log.exception("task %s cannot be tended to; again in %.0f s", task_id, PUT_OFF)
            until = self._clock.now() + PUT_OFF
            self._store.write(lambda tx: tx.execute(put_off, {"row": row, "until": until}))

    def _expire_one(self, tx: Transaction, copy: Any) -> None:
        now = self._clock.now()
        self._leases.expire(tx, copy, now)
        self._lifecycle.settle(tx, copy.task_id, now)

    def _settle_one(self, tx: Transaction, task_id: str) -> None:
        self._lifecycle.settle(tx, task_id, self._clock.now())

    def _next_due(self, tx: Transaction) -> float:
        times = (tx.execute(_NEXT).scalar(), tx.execute(_NEXT_EXPIRY).scalar())
        return min((at for at in times if at is not None), default=self._clock.now() + HEARTBEAT_EVERY)

    def _expire_some(self, tx: Transaction) -> None:
        now = self._clock.now()
        for copy in tx.execute(_EXPIRED, {"now": now, "most": _most(tx)}).all():
            self._leases.expire(tx, copy, now)
            self._lifecycle.settle(tx, copy.task_id, now)

    def _settle_some(self, tx: Transaction) -> None:
        now = self._clock.now()
        for row in tx.execute(_DUE, {"now": now, "most": _most(tx)}).all():
            hold(tx, row.id)
            self._lifecycle.settle(tx, row.id, now)

    # --- restarts ---------------------------------------------------------------------------------------------

    def recover(self) -> float:
        """Extend leases by the time the node was down; returns that time in seconds. Call once, before serving."""
        return self._store.write(self._recover)

    def _recover(self, tx: Transaction) -> float:
        now = self._clock.now()
        last = tx.execute(_LAST_BEAT).scalar()
        if last is None:
            tx.execute(insert(heartbeats), {"id": 1, "at": now})
            return 0.0
        down = min(max(now - last, 0.0), DOWN_MAX)
        tx.execute(_EXTEND, {"down": down})
        tx.execute(_BEAT, {"now": now})
        return down

    def _beat(self) -> None:
        now = self._clock.now()
        if now - self._beat_at >= HEARTBEAT_EVERY:
            self._beat_at = now
            self._store.write(lambda tx: tx.execute(_BEAT, {"now": now}))

    # --- housekeeping -----------------------------------------------------------------------------------------

    def purge(self) -> int:
        """Forget ended tasks past their time, and the assets of younger ones past theirs; returns rows touched."""
        gone = 0
        while some := self._store.write(self._purge):
            gone += some
        return gone

    def _purge(self, tx: Transaction) -> int:
        now = self._clock.now()
        stale = now - min(self._settings.public_api_asset_ttl, self._settings.public_api_task_ttl)
        faded = tx.execute(_WITH_ASSETS, {"before": stale}).all()
        if faded:
            release(tx, [copy.lease_id for copy in faded])
            tx.execute(_FADE, {"leases": [copy.lease_id for copy in faded]})
            return len(faded)  # rows go once all their references have been let go
        old = tx.execute(_OLD_TASKS, {"before": now - self._settings.public_api_task_ttl}).all()
        if old:
            ids = {"ids": [task.id for task in old]}
            tx.execute(delete(copies).where(copies.c.task_id.in_(ids["ids"])))
            tx.execute(delete(tasks).where(tasks.c.id.in_(ids["ids"])))
        return len(old)


def _most(tx: Transaction) -> int:
    """On PostgreSQL a transaction holds one task at a time, see `holds`."""
    return 1 if tx.is_postgresql else BATCH
