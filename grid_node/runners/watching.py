"""Deadlines, cancels and lost runners: every wait of a prediction is a `due_at` in its row, which this loop sleeps
towards; no timer that a restart could lose.

What only the database must know, any process does. What a worker must be told, the process does that reaches it; the
others leave it that for a moment.
"""

import logging
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from sqlalchemy import bindparam, func, select, text

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import GridError, StoreUnavailable
from grid_node.runners.agents import is_connected
from grid_node.runners.calls import HEALTH_PATH, cancel_path, is_callable
from grid_node.runners.changes import Changes
from grid_node.runners.handover import in_hands
from grid_node.runners.health import BUSY, NO_ANSWER, OFFLINE, READY, Health, health_of
from grid_node.runners.ports import TunnelProvider
from grid_node.runners.prediction import CANCELED, QUEUED, Prediction, by_number, held, predictions
from grid_node.runners.spawning import Spawn, in_thread
from grid_node.runners.verdict import RELAY_EVERY, Act, Verdict, queue_deadline, verdict
from grid_node.settings import Settings
from grid_node.statements import prepared

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two looks at most: another process may have made something due."""
REST = 0.02
"""Seconds between two looks at least."""
BATCH = 64
LEFT_TO_OTHERS = 3.0
"""Seconds that the process has which reaches the runner, before another one decides without it."""
CALL_S = 5.0
"""Longest wait for a worker that is told of a cancel, or asked how it is."""
_OPEN = text("finished_at IS NULL")
_DUE = prepared(
    select(predictions.c.number)
    .where(_OPEN, predictions.c.due_at <= bindparam("now"))
    .order_by(predictions.c.due_at)
    .limit(bindparam("most"))
)
_NEXT = prepared(select(func.min(predictions.c.due_at)).where(_OPEN, predictions.c.due_at > bindparam("now")))

TALKS, TALKS_OF_OWNER = 256, 64
"""Workers that are told or asked something at a time: by this process, and of one owner."""


class _Reach(NamedTuple):
    """Whether this process reaches the prediction's runner, and whether another one does."""

    here: bool
    elsewhere: bool


class Watching:
    """One loop of this process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        changes: Changes,
        provider: TunnelProvider,
        *,
        spawn: Spawn = in_thread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._changes = changes
        self._provider = provider
        self._spawn = spawn
        self._left: dict[int, float] = {}
        self._talking: dict[int, str] = {}
        self._told: dict[int, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-runner-watching", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def signal(self) -> None:
        """Something may be due sooner. Never waits."""
        self._wake.set()

    def _loop(self) -> None:
        pause = 0.0
        while not self._stopping:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                pause = min(max(self.tick() - self._clock.now(), REST), POLL)
            except StoreUnavailable:
                pause = POLL
            except Exception:
                log.exception("watching predictions failed")
                pause = POLL
            time.sleep(REST)

    def tick(self) -> float:
        """Look at everything that is due; returns when the next thing will be."""
        now = self._clock.now()
        self._left = {number: until for number, until in self._left.items() if until > now}
        with self._lock:
            self._told = {number: until for number, until in self._told.items() if until > now}
        due = self._store.read(partial(self._due, now=now))
        for number in due:
            try:
                self._look(number, now)
            except StoreUnavailable:
                raise
            except Exception:
                log.exception("prediction %d cannot be looked at", number)
                self._left[number] = now + 10 * POLL
        if due:
            return now  # what was done may make more due
        return self._store.read(lambda tx: tx.execute(_NEXT, {"now": now}).scalar()) or now + POLL

    def _due(self, tx: Transaction, now: float) -> list[int]:
        """Numbers, without those that are in hand already or left to others."""
        with self._lock:
            passed = self._left.keys() | self._talking.keys()
        rows = tx.execute(_DUE, {"now": now, "most": BATCH + len(passed)})
        return [row.number for row in rows if row.number not in passed][:BATCH]

    def _look(self, number: int, now: float) -> None:
        found = self._store.read(partial(by_number, number=number))
        if found is None or found.ended:
            return
        said = verdict(found, now, None, self._settings)
        if said.act not in (Act.TELL, Act.FAIL_AND_TELL, Act.ASK_HEALTH):
            self._carry_out(number, None)
            return
        reach = self._reach(found)
        if reach.elsewhere and self._is_theirs(number, now):
            return
        if said.act is Act.ASK_HEALTH and not reach.here:
            self._carry_out(number, None if reach.elsewhere else OFFLINE)
        elif said.act is Act.TELL and (not reach.here or number in self._told):
            self._carry_out(number, None)
        else:
            self._talk(found, said, reach.here)

    def _reach(self, prediction: Prediction) -> _Reach:
        if not is_callable(prediction):
            return _Reach(here=False, elsewhere=False)
        model_id, runner = prediction.model_id or "", prediction.runner
        runners = self._provider.runners(model_id)
        if any(runner in (None, one.instance) for one in runners):
            return _Reach(here=True, elsewhere=False)
        connected = runner is not None and self._store.read(lambda tx: is_connected(tx, model_id, runner))
        return _Reach(here=False, elsewhere=connected)

    def _is_theirs(self, number: int, now: float) -> bool:
        """The first time yes; once they had their time, no."""
        if number in self._left:
            return True
        found = self._store.read(partial(by_number, number=number))
        if found is not None and found.due_at + LEFT_TO_OTHERS <= now:
            return False
        self._left[number] = now + LEFT_TO_OTHERS
        return True

    # --- talking to workers -----------------------------------------------------------------------------------

    def _talk(self, found: Prediction, said: Verdict, here: bool) -> None:
        """Now, or after a moment where too many talks are under way: those that wait hold up nothing else."""
        with self._lock:
            of_owner = Counter(self._talking.values())[found.runner_owner]
            may = len(self._talking) < TALKS and of_owner < TALKS_OF_OWNER
            if may:
                self._talking[found.number] = found.runner_owner
        if may:
            self._spawn(partial(self._talk_alone, found, said, here))
        else:
            self._left[found.number] = self._clock.now() + POLL

    def _talk_alone(self, found: Prediction, said: Verdict, here: bool) -> None:
        """The boundary of its thread."""
        try:
            if said.act is Act.ASK_HEALTH:
                self._carry_out(found.number, self._status(found))
            else:
                self._carry_out(found.number, None)
                if here:
                    self._tell(found)
        except StoreUnavailable:
            log.warning("prediction %s waits for the database", found.id)
        except Exception:
            log.exception("prediction %s cannot be tended to", found.id)
        finally:
            with self._lock:
                self._talking.pop(found.number, None)
            self._wake.set()

    def _tell(self, found: Prediction) -> None:
        """Once a worker has understood, it is not told again; one that does not know the id may get it yet."""
        model_id, path = found.model_id or "", cancel_path(found.id)
        try:
            reply = self._provider.call(model_id, "POST", path, timeout_s=self._patience(found), runner=found.runner)
        except GridError as error:
            log.info("prediction %s: runner %s was not told of the cancel: %s", found.id, found.runner, error)
            return
        if reply.status == 200:
            with self._lock:
                self._told[found.number] = self._clock.now() + self._settings.cancel_grace_s

    def _patience(self, found: Prediction) -> float:
        """A worker that does not answer keeps no cancel open beyond its grace."""
        if found.cancel_at is None:
            return CALL_S
        left = found.cancel_at + self._settings.cancel_grace_s - self._clock.now()
        return min(CALL_S, max(REST, left))

    def _status(self, found: Prediction) -> str:
        """How the runner is; BUSY only if it can be busy with this one."""
        model_id, runner = found.model_id or "", found.runner
        try:
            reply = self._provider.call(model_id, "GET", HEALTH_PATH, timeout_s=CALL_S, runner=runner)
        except GridError:
            health = NO_ANSWER
        else:
            health = health_of(reply.json) if reply.status == 200 else NO_ANSWER
        if health.status == BUSY and runner is not None and not self._has_room_for(found, health):
            return READY
        return health.status

    def _has_room_for(self, found: Prediction, health: Health) -> bool:
        """Whether this may be among those that the worker has: the ones that it took later fill its hands else."""
        model_id, runner = found.model_id or "", found.runner or ""
        sent = self._store.read(lambda tx: in_hands(tx, model_id, runner))
        later = sum(at > (found.dispatched_at or 0.0) for at in sent)
        return later < (health.in_use or 1)

    # --- what the database must know --------------------------------------------------------------------------

    def _carry_out(self, number: int, runner: str | None) -> None:
        self._store.write(partial(self._decide, number=number, runner=runner))

    def _decide(self, tx: Transaction, number: int, runner: str | None) -> None:
        """The verdict again, on the held row."""
        before = held(tx, number)
        if before is None or before.ended:
            return
        now = self._clock.now()
        said = verdict(before, now, runner, self._settings)
        if said.act in (Act.FAIL, Act.FAIL_AND_TELL):
            self._changes.fail(tx, before, said.error or "")
        elif said.act is Act.CANCEL:
            self._changes.end(tx, before, CANCELED)
        else:
            self._changes.apply(tx, before, self._later(before, said, now))

    def _later(self, before: Prediction, said: Verdict, now: float) -> Prediction:
        """What stays open, with what has come to it."""
        if said.act is Act.ASK_CANCEL:
            return replace(before, cancel_at=now, due_at=now)
        if said.act is Act.QUEUE:
            due = queue_deadline(before, self._settings)
            return replace(before, state=QUEUED, claimed_until=None, dispatched_at=None, due_at=due)
        if said.act is Act.ASK_HEALTH:
            return replace(before, due_at=now + RELAY_EVERY)
        return replace(before, due_at=said.due_at)
