"""Registered models as workers: a lease becomes one prediction, its stored file the result.

A model is one worker, whatever runs it: worker = model id. It does tasks of the kind `cog`, or of the kind that its
registration names, beside whoever else does those. Everything is decided by rows, so several processes may do this for
the same models, and a restart goes on where the last one ended.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from grid_node.adapters import cog_leases
from grid_node.adapters.cog_kinds import TaskKinds
from grid_node.adapters.cog_leases import Lease, Mark, task_kind
from grid_node.adapters.cog_pulls import CogPulls, Offer
from grid_node.blobs.holds import Holds
from grid_node.blobs.store import Blob
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import (
    AssetTooLarge,
    GridError,
    InvalidInput,
    InvalidPayload,
    LeaseClosed,
    LeaseNotFound,
    StoreUnavailable,
)
from grid_node.generation.dispatch import Dispatcher
from grid_node.generation.holds import TASK_ROW
from grid_node.generation.leases import Kind
from grid_node.generation.work import Work, WorkerIdentity
from grid_node.runners import agents
from grid_node.runners.changes import Changes
from grid_node.runners.data_urls import with_stored
from grid_node.runners.file_rows import FileInfo
from grid_node.runners.health import TAKING
from grid_node.runners.ids import RandomBytes, prediction_id
from grid_node.runners.inputs import check_input, file_inputs
from grid_node.runners.models import READY, count_run, model_by_id, signature_at
from grid_node.runners.ports import RunnerCaller, TunnelProvider
from grid_node.runners.prediction import ENDED, NODE, QUEUED, SUCCEEDED, Prediction, by_number
from grid_node.settings import Settings

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two ticks."""


class CogFiles(Protocol):
    """Files, as far as tasks need them."""

    def keep_data(self, owner: str, url: str, prediction: Prediction | None) -> str:
        """Store what a data: URL holds; the URL of the file. Raises ValueError."""

    def known(self, tx: Transaction, urls: Iterable[str]) -> dict[str, FileInfo]:
        """Those of the addresses that are ours."""


class Cancelling(Protocol):
    """Predictions, as far as tasks end them."""

    def cancel(self, caller: RunnerCaller, id: str) -> Prediction: ...


class _Look(NamedTuple):
    offering: dict[str, int]
    live: dict[str, set[str]]
    unmarked: list[Lease]
    marks: list[Mark]


class CogWorkers:
    """Asks for tasks, runs them, hands their results in. `tick` is called every second."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        changes: Changes,
        provider: TunnelProvider,
        files: CogFiles,
        predictions: Cancelling,
        holds: Holds,
        work: Work,
        dispatcher: Dispatcher,
        kinds: Mapping[str, Kind],
        random: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._changes = changes
        self._provider = provider
        self._files = files
        self._predictions = predictions
        self._holds = holds
        self._work = work
        self._pulls = CogPulls(dispatcher, clock)
        self._kinds = TaskKinds(store, kinds)
        self._random = random

    def tick(self) -> None:
        """Begin leases that are new, tend those that run, ask for more."""
        look = self._store.read(_look)
        for lease in look.unmarked:
            self._alone(self._begin, lease)
        for mark in look.marks:
            self._alone(self._tend, mark)
        self._pulls.keep(self._offers(look))

    def stop(self) -> None:
        """No model asks for tasks any more. What runs is found again by the next start."""
        self._pulls.stop()

    def _alone(self, action: Callable[[Any], None], one: Lease | Mark) -> None:
        """What fails with one lease does not stop the others; it is tried again at the next tick."""
        try:
            action(one)
        except GridError as error:
            log.warning("lease %s of model %s has to wait: %s", one.lease_id, one.model_id, error.code)
        except Exception:
            log.exception("lease %s of model %s cannot be tended to", one.lease_id, one.model_id)

    def _offers(self, look: _Look) -> dict[str, Offer]:
        """The models whose workers this process reaches; each worker counts for one lease."""
        able = {id: most for id in look.offering if (most := self._able(id))}
        kinds = self._kinds.of({id: look.offering[id] for id in able})
        return {id: Offer(able[id], frozenset(look.live.get(id, ())), kind) for id, kind in kinds.items()}

    def _able(self, model_id: str) -> int:
        return sum(runner.status in TAKING for runner in self._provider.runners(model_id))

    # --- begin ------------------------------------------------------------------------------------------------

    def _begin(self, lease: Lease) -> None:
        """Make the prediction. A prompt that the model's signature does not take is not for this worker."""
        model, signature, task = self._store.read(partial(_asked, lease=lease))
        if signature is None or not _does(model, task):
            self._give_back(lease.model_id, lease.lease_id)
            return
        plan = json.loads(model.generation)
        try:
            given = check_input(signature, {**plan["inputs"], plan["prompt_input"]: task.prompt})
            for name in file_inputs(signature) & given.keys():
                given[name] = with_stored(given[name], lambda url: self._files.keep_data(model.owner, url, None))
        except (InvalidInput, ValueError):
            self._give_back(lease.model_id, lease.lease_id)
            return
        unit = partial(self._insert, lease=lease, version=model.version, given=given, index=plan["output_index"])
        self._store.write(unit)

    def _insert(self, tx: Transaction, lease: Lease, version: str, given: dict[str, Any], index: int) -> None:
        """`version` is that of the signature which the input was checked against."""
        if not cog_leases.is_free(tx, lease.lease_id) or not count_run(tx, lease.model_id):
            return
        model = model_by_id(tx, lease.model_id)
        deadline = float(tx.execute(TASK_ROW, {"id": lease.task_id}).one().deadline)
        made = self._changes.insert(tx, self._prediction(model, version, given, deadline))
        cog_leases.mark(tx, lease, index, made.id, made.created_at)

    def _prediction(self, model: Any, version: str, given: dict[str, Any], deadline: float) -> Prediction:
        now = self._clock.now()
        return Prediction(
            id=prediction_id(self._random),
            owner=model.owner,
            runner_owner=model.owner,
            model_id=model.id,
            model=f"{model.account}/{model.name}",
            version=version,
            source=NODE,
            state=QUEUED,
            input=given,
            deadline=deadline,
            due_at=min(now + self._settings.prediction_queue_ttl_s, deadline),
            created_at=now,
        )

    # --- tend -------------------------------------------------------------------------------------------------

    def _tend(self, mark: Mark) -> None:
        """Bring lease and prediction together: what has ended there ends here."""
        if mark.state == SUCCEEDED and mark.lease_state in ("leased", "expired"):
            self._hand_in(mark)
        elif mark.lease_state != "leased":
            self._end(mark)
        elif mark.state is None or mark.state in ENDED:
            self._fail(mark)
        elif self._waits_in_vain(mark):
            self._cancel(mark)
            self._fail(mark)
        elif self._is_running_out(mark):
            self._renew(mark)

    def _is_running_out(self, mark: Mark) -> bool:
        """Whether a renewal is due that could still lengthen the lease."""
        expires, last = mark.expires_at or 0.0, mark.lease_until or 0.0
        return expires < last and expires - self._clock.now() <= self._settings.worker_lease * 2 / 3

    def _hand_in(self, mark: Mark) -> None:
        """The stored bytes of the output that is wanted; one that is no file of ours, or no such file, is a failure."""
        file = self._store.read(partial(self._result, mark=mark))
        form = None if file is None else self._kinds.format_of(mark.task_kind, file.filename)
        if file is None or form is None:
            self._fail(mark)
            return
        blob = Blob(file.sha256, file.size)
        try:
            with self._holds.hold(blob):
                self._work.submit(_identity(mark.model_id), _submission(mark, blob, form), blob)
        except StoreUnavailable:
            if mark.lease_state == "leased":
                raise
            self._forget(mark)  # it is late already
        except (AssetTooLarge, InvalidPayload, LeaseClosed) as error:
            log.info("the result of lease %s is not taken: %s", mark.lease_id, error.code)
            self._fail(mark)
        else:
            self._forget(mark)

    def _result(self, tx: Transaction, mark: Mark) -> FileInfo | None:
        """The file that the output names, of this worker and still there."""
        prediction = by_number(tx, mark.number or 0)
        url = _output_at(prediction.output, mark.output_index) if prediction is not None else None
        if prediction is None or not isinstance(url, str):
            return None
        file = self._files.known(tx, [url]).get(url)
        if file is None or file.owner != prediction.runner_owner:
            return None
        return None if file.removed or file.expires_at <= self._clock.now() else file

    def _fail(self, mark: Mark) -> None:
        """This worker failed: the task may go to another."""
        self._give_back(mark.model_id, mark.lease_id)
        self._forget(mark)

    def _give_back(self, model_id: str, lease_id: str) -> None:
        try:
            self._work.skip(_identity(model_id), lease_id)
        except (LeaseClosed, LeaseNotFound):
            log.info("lease %s had ended already", lease_id)

    def _end(self, mark: Mark) -> None:
        """The lease has ended, so nobody waits for the prediction."""
        if mark.state is None or mark.state in ENDED:
            self._forget(mark)
        else:
            self._cancel(mark)

    def _cancel(self, mark: Mark) -> None:
        if mark.owner is not None and mark.cancel_at is None:
            self._predictions.cancel(RunnerCaller(mark.owner, ""), mark.prediction_id)

    def _waits_in_vain(self, mark: Mark) -> bool:
        """Whether it has waited as long as a lease for a worker, and there is none at any process."""
        if mark.state != QUEUED or self._clock.now() - (mark.created_at or 0.0) < self._settings.worker_lease:
            return False
        return self._store.read(partial(agents.standing, model_id=mark.model_id))["status"] not in TAKING

    def _renew(self, mark: Mark) -> None:
        try:
            self._work.renew(_identity(mark.model_id), mark.lease_id)
        except LeaseClosed:
            log.info("lease %s has ended", mark.lease_id)

    def _forget(self, mark: Mark) -> None:
        self._store.write(partial(cog_leases.forget, lease_id=mark.lease_id))


def _look(tx: Transaction) -> _Look:
    return _Look(
        cog_leases.offering(tx, READY), cog_leases.live_leases(tx), cog_leases.unmarked(tx), cog_leases.all_marks(tx)
    )


def _asked(tx: Transaction, lease: Lease) -> tuple[Any, Any, Any]:
    """The model, its signature as it is now, and the task."""
    model = model_by_id(tx, lease.model_id)
    task = tx.execute(TASK_ROW, {"id": lease.task_id}).one()
    signature = None if model is None else signature_at(tx, model.id, model.version)
    return model, signature, task


def _does(model: Any, task: Any) -> bool:
    """Whether the model, which may have been changed since it asked, does such tasks."""
    return model.state == READY and model.generation is not None and task_kind(model.generation) == task.kind


def _identity(model_id: str) -> WorkerIdentity:
    return WorkerIdentity(model_id, None, None, (), (), 1)


def _submission(mark: Mark, blob: Blob, form: str) -> dict[str, Any]:
    """As a loaded SubmitSchema."""
    given = {"lease_id": mark.lease_id, "task_id": mark.task_id, "format": form, "sha256": blob.sha256}
    return {**given, "signature": None, "wait_s": 0}


def _output_at(output: Any, index: int) -> Any:
    """The item that is wanted; an output that is no list is its own first item."""
    items = list(output.values()) if isinstance(output, dict) else output if isinstance(output, list) else [output]
    return items[index] if index < len(items) else None
