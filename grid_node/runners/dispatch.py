"""Dispatch: queued predictions meet runners that this process reaches.

A round finds the models that have something queued, and starts a lane for each of their runners that may take it. A
lane sends one prediction after the other, oldest first, until nothing waits or the worker has no more room. Rounds are
woken by commits, by runners and by ends; a slow poll sees what other processes did.
"""

import logging
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

from grid_node.clock import Clock
from grid_node.database import Store, Unit
from grid_node.errors import GridError, RunnerGone, StoreUnavailable
from grid_node.runners import agents
from grid_node.runners.agents import DIRECT, Agent
from grid_node.runners.backoff import Backoffs, Lane
from grid_node.runners.calls import (
    HEADERS,
    HEALTH_PATH,
    Answer,
    Outcome,
    message,
    outcome_of,
    prediction_path,
)
from grid_node.runners.changes import Changes
from grid_node.runners.handover import Handover, Waiting, in_hands, waiting_models
from grid_node.runners.health import NO_ANSWER, READY, TAKING, UNKNOWN, Health, health_of
from grid_node.runners.ports import Runner, TunnelProvider
from grid_node.runners.prediction import Prediction
from grid_node.runners.spawning import Spawn, in_thread
from grid_node.runners.standing_log import StandingLog
from grid_node.settings import Settings

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between two looks where nothing woke the loop."""
LANES, LANES_OF_OWNER = 512, 128
"""Sends at a time: of this process, and to the workers of one owner. A worker that hangs takes one for 15 s."""
HEALTH_S = 5.0
"""Longest wait for a health-check, and how long a good one counts."""
AGAIN = 0.5
"""Seconds until what a worker answered is written again, where the database is away."""


class Dispatching:
    """One loop of this process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        changes: Changes,
        provider: TunnelProvider,
        secret: bytes,
        node_id: str,
        *,
        spawn: Spawn = in_thread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._provider = provider
        self._secret = secret
        self._node_id = node_id
        self._spawn = spawn
        self._handover = Handover(changes, settings)
        self._backoffs = Backoffs(clock)
        self._standings = StandingLog(clock)
        self._healthy: dict[Lane, float] = {}
        self._doubtful: set[Lane] = set()
        self._lanes: dict[Lane, str] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._signals = 0
        self._turn = 0
        self._turns: dict[str, int] = {}
        self._stopping = False

    # --- what wakes it ----------------------------------------------------------------------------------------

    def start(self) -> None:
        threading.Thread(target=self._loop, name="grid-runner-dispatch", daemon=True).start()

    def stop(self) -> None:
        """No new sends; those under way end by themselves."""
        self._stopping = True
        self._wake.set()

    def signal(self) -> None:
        """Something may have to be sent. Never waits."""
        self._signals += 1
        self._wake.set()

    def ready(self, model_id: str, instance: str) -> None:
        """The runner itself says that it has room."""
        self._backoffs.free((model_id, instance))
        self._doubtful.discard((model_id, instance))
        self.signal()

    # --- the loop ---------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.wait(min(POLL, self._backoffs.next_end() + 0.001))
            self._wake.clear()
            try:
                self.round()
            except StoreUnavailable:
                log.warning("dispatch waits for the database")
                time.sleep(AGAIN)
            except Exception:
                log.exception("a dispatch round of runners failed")
                time.sleep(AGAIN)

    def round(self) -> int:
        """Start what may be started; returns how many lanes."""
        started = 0
        self._look_at_resting()
        for waiting in self._in_turn(self._store.read(waiting_models)):
            for runner in self._provider.runners(waiting.model_id):
                started += self._start(waiting, runner)
        return started

    def _in_turn(self, waiting: list[Waiting]) -> list[Waiting]:
        """Who was served longest ago comes first: where lanes are short, no model waits for ever."""
        self._turns = {one.model_id: self._turns.get(one.model_id, 0) for one in waiting}
        return sorted(waiting, key=lambda one: self._turns[one.model_id])

    def _start(self, waiting: Waiting, runner: Runner) -> bool:
        lane = (waiting.model_id, runner.instance)
        if self._stopping or runner.status not in (*TAKING, UNKNOWN) or self._backoffs.rests(lane):
            return False
        with self._lock:
            if lane in self._lanes or len(self._lanes) >= LANES:
                return False
            if Counter(self._lanes.values())[waiting.owner] >= LANES_OF_OWNER:
                return False
            self._lanes[lane] = waiting.owner
        self._turn += 1
        self._turns[waiting.model_id] = self._turn
        self._spawn(partial(self._run, lane, runner.status))
        return True

    def _look_at_resting(self) -> None:
        """Who has fewer predictions in hand than when it said that it takes no more, may be asked again."""
        self._forget()
        resting = self._backoffs.resting()
        if not resting:
            return
        now_in_hands = self._store.read(lambda tx: {lane: len(in_hands(tx, *lane)) for lane in resting})
        for lane, before in resting.items():
            if now_in_hands[lane] < before:
                self._backoffs.free(lane)

    def _forget(self) -> None:
        """What was known of runners that have gone: owners choose their names, so there is no end of them."""
        self._backoffs.forget()
        now = self._clock.steady()
        for lane, until in list(self._healthy.items()):
            if until <= now:
                self._healthy.pop(lane, None)
        for lane in list(self._doubtful):
            if all(runner.instance != lane[1] for runner in self._provider.runners(lane[0])):
                self._doubtful.discard(lane)

    # --- a lane -----------------------------------------------------------------------------------------------

    def _run(self, lane: Lane, status: str) -> None:
        """Send until nothing waits, or the runner takes no more. The boundary of its thread."""
        seen = self._signals
        try:
            if self._takes(lane, status):
                while not self._stopping:
                    seen = self._signals
                    if not self._send_next(lane):
                        break
        except StoreUnavailable:
            log.warning("a runner waits for the database")
            self._backoffs.busy(lane, 0)
        except Exception:
            log.exception("sending to runner %s of model %s failed", lane[1], lane[0])
            self._backoffs.busy(lane, 0)
        finally:
            with self._lock:
                self._lanes.pop(lane, None)
            if self._signals != seen:  # it came while this lane was taken for busy
                self._wake.set()

    def _send_next(self, lane: Lane) -> bool:
        """Whether the runner may be sent another one."""
        others = [runner.instance for runner in self._provider.runners(lane[0])]
        claim = self._store.write(lambda tx: self._handover.claim(tx, lane[0], lane[1], others, self._clock.now()))
        if claim is None:
            return False
        try:
            outcome = outcome_of(self._put(lane, claim))
        except RunnerGone:
            self._write(partial(self._handover.returned, claim=claim, now=self._clock.now()))
            self._backoffs.busy(lane, 0)
            return False
        except GridError as error:
            log.info("prediction %s: no answer of runner %s: %s", claim.id, lane[1], error)
            self._write(partial(self._handover.unanswered, claim=claim, detail="", now=self._clock.now()))
            self._doubtful.add(lane)
            self._backoffs.busy(lane, 0)
            return False
        return self._settle(lane, claim, outcome)

    def _put(self, lane: Lane, claim: Prediction) -> Any:
        body = message(claim, self._settings.public_url, self._secret)
        path, timeout = prediction_path(claim.id), self._settings.runner_call_s
        return self._provider.call(lane[0], "PUT", path, body, HEADERS, timeout, lane[1])

    def _settle(self, lane: Lane, claim: Prediction, outcome: Outcome) -> bool:
        now = self._clock.now()
        if outcome.answer is Answer.ACCEPTED:
            self._write(partial(self._handover.accepted, claim=claim, now=now))
            self._backoffs.free(lane)
            return True
        if outcome.answer is Answer.REFUSED:
            self._write(partial(self._handover.refused, claim=claim, detail=outcome.detail))
            return True
        if outcome.answer is Answer.BUSY:
            self._write(partial(self._handover.returned, claim=claim, now=now))
            self._backoffs.busy(lane, self._store.read(lambda tx: len(in_hands(tx, *lane))))
            return False
        self._write(partial(self._handover.unanswered, claim=claim, detail=outcome.detail, now=now))
        self._backoffs.busy(lane, 0)
        return False

    def _write(self, unit: Unit[None]) -> None:
        """What a worker has answered must be kept: a prediction that it took, sent again, could run twice."""
        while True:
            try:
                self._store.write(unit)
            except StoreUnavailable:
                if self._stopping:
                    raise
                time.sleep(AGAIN)
            else:
                return

    # --- health of workers that do not tell it ----------------------------------------------------------------

    def _takes(self, lane: Lane, status: str) -> bool:
        """Whether the worker is there. One that says nothing by itself is asked, and so is one that gave no answer: a
        send into nowhere counts as a send."""
        told = status != UNKNOWN or self._healthy.get(lane, 0.0) > self._clock.steady()
        if told and lane not in self._doubtful:
            return True
        health = self._ask(lane)
        if health.status in TAKING:
            self._healthy[lane] = self._clock.steady() + HEALTH_S
            self._doubtful.discard(lane)
            return True
        self._healthy.pop(lane, None)
        self._backoffs.busy(lane, 0)
        return False

    def _ask(self, lane: Lane) -> Health:
        try:
            reply = self._provider.call(lane[0], "GET", HEALTH_PATH, timeout_s=HEALTH_S, runner=lane[1])
        except GridError:
            health = NO_ANSWER
        else:
            health = health_of(reply.json) if reply.status == 200 else NO_ANSWER
            if health.status == UNKNOWN and not _says_status(reply.json):
                health = health._replace(status=READY)  # no Cog, but there: what it is sent will tell
        if lane[1] == DIRECT:
            agent = Agent(lane[0], DIRECT, self._node_id, "")
            self._store.write(lambda tx: agents.probed(tx, agent, health, self._clock.now()))
            self._standings.note(lane[0], DIRECT, health.status)
        return health


def _says_status(body: Any) -> bool:
    return isinstance(body, dict) and "status" in body
