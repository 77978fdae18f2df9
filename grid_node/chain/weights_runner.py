"""Weights' jobs, worked off: read the subnet, sign, put on record, send, wait, try again.

For the writer thread of the chain's process. All that counts is in the rows: a process that is killed between any two
statements is followed by one that sends each job's weights once, because

- an extrinsic's hash and era are stored before it is sent, in the unit that checks that the job is still wanted;
- while such an extrinsic may land, nothing else of its identity is sent: its era's blocks are searched first.
"""

import logging
from functools import partial
from typing import Any, NamedTuple, Protocol

import orjson

from grid_node.chain import weights_rows as rows
from grid_node.chain.epochs import Epoch, epoch_of, retry_delay, to_u16
from grid_node.chain.lease import Lease
from grid_node.chain.ports import Block, ChainPort, ChainProblem, Hyperparams, Landed, Prepared, Signer, WriteRefused
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.sending import fate
from grid_node.chain.weights_tables import COMPLETED, EXPIRED, FAILED, SUPERSEDED, as_text, without
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import GridError
from grid_node.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 2.0
"""How often to look for work that nobody told of."""
STORE_AWAY_SECONDS = 1.0
LOOK_PAUSES = 2
"""Pauses between two looks for an extrinsic, in units of the retry delay; RETRY_CAP when a look itself failed."""
PAUSE_MIN_SECONDS = 0.25
SUBMIT_MIN_SECONDS = 1.0
NOT_INCLUDED = "Extrinsic was not included before its era ended"
DEFECT = "Internal error"
OTHER_CHAIN = "The weights were put for another chain"


class JobSamples(Protocol):
    """Of the process's samples, what is told of jobs. `status` is `success` or `error`."""

    def job(self, status: str, netuid: int, hotkey: str, seconds: float) -> None: ...

    def attempt(self, status: str, netuid: int, hotkey: str, seconds: float) -> None: ...


class _Plan(NamedTuple):
    """What an attempt is to send."""

    head: Block
    params: Hyperparams
    uids: list[int]
    values: list[int]
    missing: list[str]


class WeightsRunner:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        pylon: PylonSettings,
        port: ChainPort,
        samples: JobSamples,
        lease: Lease | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._port = port
        self._pylon = pylon
        self._samples = samples
        self._lease = lease or Lease(clock)
        self._hotkeys: dict[str, str] = {}

    def recover(self) -> None:
        """At the start: what a process was at that is gone is due at once. Raises StoreUnavailable."""

        def unit(tx: Transaction) -> None:
            if self._lease.take(tx):
                rows.hurry(tx, self._clock.now())

        self._store.write(unit)

    def close(self) -> None:
        """Let another process go on at once."""
        self._store.write(self._lease.release)

    def step(self) -> float | None:
        """Do one thing that is due. Returns the seconds after which to be called again."""
        try:
            return self._step()
        except GridError as error:
            log.warning("weights wait for the database: %s", error)
            return STORE_AWAY_SECONDS

    def _step(self) -> float:
        due, wait = self._due()
        if due is None:
            return wait
        if not self._store.write(self._lease.take):
            return IDLE_SECONDS
        try:
            self._advance(due)
        except GridError:
            raise
        except Exception:
            log.exception("weights of %s failed", due.identity)
            self._store.write(partial(self._postpone, number=due.number))
        return 0.0

    def _due(self) -> tuple[Any, float]:
        """The row that has been due for longest, or None and the seconds until one is."""
        waiting = [(row.next_attempt_at or 0.0, row.number, row) for row in self._store.read(rows.open_jobs)]
        if not waiting:
            return None, IDLE_SECONDS
        at, _number, row = min(waiting)
        wait = at - self._clock.now()
        if wait > self._delay(rows.RETRY_UNITS) + 1.0:  # somebody set the clock back
            return row, 0.0
        return (row, 0.0) if wait <= 0 else (None, min(wait, IDLE_SECONDS))

    def _advance(self, row: Any) -> None:
        if row.in_flight:
            self._look(row)
            return
        started = self._clock.steady()
        begun = self._store.write(partial(self._begin, number=row.number))
        if begun is None or begun.status == FAILED:
            self._tell_job(begun, FAILED)
            return
        signer = self._signer(begun)
        if signer is None:
            reason = f"Identity '{row.identity}' is not configured for subnet {row.netuid}"
            self._end(begun, FAILED, reason)
            return
        try:
            landed = self._attempt(begun, signer, started)
        except ChainProblem as error:
            self._retry(begun, None, str(error))
            landed = False
        self._samples.attempt(_word(landed), row.netuid, self._hotkey(signer), self._clock.steady() - started)

    def _mine(self, tx: Transaction, number: int) -> Any:
        """The row, if this process may send something for it now. The lease comes first, in each unit that has both."""
        if not self._lease.take(tx):
            return None
        row = rows.held(tx, number)
        return row if rows.is_unfinished(row) and not row.in_flight else None

    # --- one attempt ----------------------------------------------------------------------------------------------

    def _begin(self, tx: Transaction, number: int) -> Any:
        row = self._mine(tx, number)
        if row is None:
            return None
        now = self._clock.now()
        if row.attempts > self._pylon.weights_retry_attempts:
            rows.end(tx, row, now, FAILED, row.last_error or "The last attempt was interrupted")
        else:
            rows.begin(tx, row, now, now + self._delay(row.attempts + 1))
        return rows.held(tx, number)

    def _attempt(self, row: Any, signer: Signer, started: float) -> bool:
        """Whether the weights landed. Raises ChainProblem when nothing was sent."""
        plan = self._planned(row)
        if plan is None:
            return False
        prepared = self._port.prepare_weights(signer, plan.uids, plan.values, plan.params)
        if not self._store.write(partial(self._record, number=row.number, prepared=prepared, missing=plan.missing)):
            return False
        rest = self._settings.chain_submit_timeout_seconds - (self._clock.steady() - started)
        return self._submit(row, prepared, max(rest, SUBMIT_MIN_SECONDS))

    def _planned(self, row: Any) -> _Plan | None:
        """None: there is nothing to send, and the job has been ended."""
        if self._is_strange(row):
            self._end(row, FAILED, OTHER_CHAIN, attempts=row.attempts - 1)
            return None
        head = self._port.head()
        params = self._port.hyperparams(row.netuid, head)
        epoch = self._epoch(row, head, params)
        if head.number > epoch.end:
            self._end(
                row, EXPIRED, row.last_error or f"The epoch ended at block {epoch.end}", attempts=row.attempts - 1
            )
            return None
        uids = {neuron.hotkey: neuron.uid for neuron in self._port.neurons(row.netuid, head)}
        weights = orjson.loads(row.weights)
        missing = without(weights, uids)
        pairs = sorted((uids[hotkey], weight) for hotkey, weight in weights.items() if hotkey in uids)
        if not pairs:
            reason = f"None of the hotkeys is registered on subnet {row.netuid}"
            self._end(row, FAILED, reason, dropped=as_text(rows.all_dropped(row, missing)))
            return None
        return _Plan(head, params, [uid for uid, _ in pairs], to_u16([weight for _, weight in pairs]), missing)

    def _epoch(self, row: Any, head: Block, params: Hyperparams) -> Epoch:
        """The job's epoch: an automatic one is put with it, any other gets that in which it is first tried."""
        if row.epoch_end is not None:
            return Epoch(row.epoch_start, row.epoch_end)
        chain, epoch = self._port.genesis(), epoch_of(head.number, row.netuid, params.tempo)
        return self._store.write(lambda tx: rows.place(tx, row.number, self._clock.now(), chain, epoch))

    def _is_strange(self, row: Any) -> bool:
        """Whether the job is for another chain than this one."""
        return row.chain is not None and row.chain != self._port.genesis()

    def _record(self, tx: Transaction, number: int, prepared: Prepared, missing: list[str]) -> bool:
        """Whether it may be sent: the job is still wanted, and this process still the one that sends."""
        row = self._mine(tx, number)
        if row is None:
            return False
        rows.record(tx, row, self._clock.now(), prepared, missing)
        return True

    def _submit(self, row: Any, prepared: Prepared, timeout: float) -> bool:
        """Once on record, only what is certain is taken for the outcome: anything else is looked for later."""
        try:
            landed = self._port.submit(prepared, timeout)
        except WriteRefused as error:
            self._retry(row, prepared.extrinsic_hash, str(error))
            return False
        except ChainProblem as error:
            self._look_again(row, prepared.extrinsic_hash, LOOK_PAUSES, str(error))
            return False
        return self._landed(row, prepared.extrinsic_hash, landed)

    # --- what was sent --------------------------------------------------------------------------------------------

    def _look(self, row: Any) -> None:
        """Look for what was sent, by this process or by one before it."""
        try:
            if self._is_strange(row):
                self._end(row, FAILED, OTHER_CHAIN)
                return
            found = fate(self._port, rows.sent_of(row))
            is_past = found.problem is not None and self._port.head().number > (row.epoch_end or 0)
        except ChainProblem as error:
            self._look_again(row, row.extrinsic_hash, rows.RETRY_UNITS, str(error))
            return
        if found.landed is not None:
            self._landed(row, row.extrinsic_hash, found.landed)
        elif found.problem is not None and found.is_over and (row.status == SUPERSEDED or is_past):
            self._end(row, EXPIRED, f"Nobody can say whether the weights landed: {found.problem}")
        elif found.problem is not None:
            self._look_again(row, row.extrinsic_hash, rows.RETRY_UNITS, found.problem)
        elif found.is_over:
            self._retry(row, row.extrinsic_hash, NOT_INCLUDED)
        else:
            self._look_again(row, row.extrinsic_hash, LOOK_PAUSES, None)

    def _landed(self, row: Any, extrinsic_hash: str, landed: Landed) -> bool:
        if landed.error is not None:
            self._retry(row, extrinsic_hash, landed.error)
            return False

        def unit(tx: Transaction) -> Any:
            held = rows.held(tx, row.number)
            if not _is_of(held, extrinsic_hash):
                return None
            rows.land(tx, held, self._clock.now(), landed)
            return rows.held(tx, row.number)

        self._tell_job(self._store.write(unit), COMPLETED)
        return True

    # --- outcomes -------------------------------------------------------------------------------------------------

    def _retry(self, row: Any, extrinsic_hash: str | None, error: str) -> None:
        """The attempt is over and in vain. `extrinsic_hash` is of what was sent, if anything was."""

        def unit(tx: Transaction) -> Any:
            held, now = rows.held(tx, row.number), self._clock.now()
            if not _is_of(held, extrinsic_hash):
                return None
            if held.attempts > self._pylon.weights_retry_attempts or not rows.is_unfinished(held):
                rows.end(tx, held, now, FAILED, error)
            else:
                rows.again(tx, held, now, now + self._delay(held.attempts), error, in_flight=False)
            return rows.held(tx, row.number)

        log.warning("weights of %s, attempt %d: %s", row.identity, row.attempts, rows.shortened(error))
        self._tell_job(self._store.write(unit), FAILED)

    def _look_again(self, row: Any, extrinsic_hash: str, pauses: int, error: str | None) -> None:
        def unit(tx: Transaction) -> None:
            held, now = rows.held(tx, row.number), self._clock.now()
            if _is_of(held, extrinsic_hash):
                rows.again(tx, held, now, now + self._pause(pauses), error, in_flight=True)

        self._store.write(unit)

    def _end(self, row: Any, status: str, error: str, **values: Any) -> None:
        def unit(tx: Transaction) -> Any:
            held = rows.held(tx, row.number)
            if not _is_of(held, row.extrinsic_hash if row.in_flight else None):
                return None
            rows.end(tx, held, self._clock.now(), status, error, **values)
            return rows.held(tx, row.number)

        log.warning("weights of %s: %s, %s", row.identity, status, rows.shortened(error))
        self._tell_job(self._store.write(unit), status)

    def _postpone(self, tx: Transaction, number: int) -> None:
        """After a defect of ours: neither a busy loop nor a job that is forgotten."""
        row, now = rows.held(tx, number), self._clock.now()
        if row is not None:
            rows.again(tx, row, now, now + self._pause(rows.RETRY_UNITS), DEFECT, in_flight=row.in_flight)

    def _tell_job(self, row: Any, status: str) -> None:
        """After the commit, if the job ended so: what was superseded is not told. Only a completed one is a success."""
        if row is None or row.status != status:
            return
        signer = self._signer(row)
        hotkey = "N/A" if signer is None else self._hotkey(signer)
        now = self._clock.now()
        taken = max(0.0, now - (row.started_at or now))  # somebody may have set the clock back
        self._samples.job(_word(status == COMPLETED), row.netuid, hotkey, taken)

    # --- who ------------------------------------------------------------------------------------------------------

    def _delay(self, attempt: int) -> float:
        return retry_delay(attempt, self._pylon.weights_retry_delay_seconds)

    def _pause(self, times: int) -> float:
        return max(self._pylon.weights_retry_delay_seconds * times, PAUSE_MIN_SECONDS)

    def _signer(self, row: Any) -> Signer | None:
        identity = self._pylon.identity(row.identity)
        return identity.signer() if identity is not None and identity.netuid == row.netuid else None

    def _hotkey(self, signer: Signer) -> str:
        """For the metrics; `N/A` while its wallet cannot be read."""
        if signer.identity not in self._hotkeys:
            try:
                self._hotkeys[signer.identity] = self._port.hotkey(signer)
            except ChainProblem:
                return "N/A"
        return self._hotkeys[signer.identity]


def _is_of(row: Any, extrinsic_hash: str | None) -> bool:
    """Whether the row still waits for this extrinsic (None: for nothing that was sent) and may be written to."""
    if row is None:
        return False
    return row.in_flight and row.extrinsic_hash == extrinsic_hash if extrinsic_hash else not row.in_flight


def _word(is_good: bool) -> str:
    return "success" if is_good else "error"
