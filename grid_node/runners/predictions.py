"""Predictions from the side of whoever asks: run, look, wait, cancel, remove. One service behind every face."""

import json
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

from sqlalchemy import bindparam, func, literal_column, select, update

from grid_node.clock import Clock
from grid_node.database import Offload, Store, Transaction, plain_call
from grid_node.errors import (
    BodyTooLarge,
    InvalidInput,
    ModelNotFound,
    PredictionActive,
    RunnerPredictionNotFound,
    RunnerQueueFull,
)
from grid_node.runners.agents import standing
from grid_node.runners.changes import Changes
from grid_node.runners.data_urls import with_stored
from grid_node.runners.guarded_http import check_target
from grid_node.runners.ids import PREDICTION_ID, RandomBytes, prediction_id
from grid_node.runners.inputs import check_input, file_inputs
from grid_node.runners.models import count_run
from grid_node.runners.ports import Charge, RunnerCaller
from grid_node.runners.prediction import (
    CANCELED,
    NODE,
    QUEUED,
    Prediction,
    by_number,
    held,
    of_owner,
    predictions,
)
from grid_node.runners.prediction_pages import Page, page_named, page_of
from grid_node.runners.references import Choice, choose, choose_version
from grid_node.runners.removal import old, remove_records, remove_row, without_data
from grid_node.runners.replays import Replays
from grid_node.runners.replays import purge as forget_old
from grid_node.runners.run_requests import NewRun
from grid_node.runners.tables import RunnerFile
from grid_node.runners.views import prediction_view
from grid_node.settings import Settings
from grid_node.statements import prepared
from grid_node.streams.service import Entry, Streams

NO_RUNNER = "no_runner"
"""A warning of one that waits while no worker is there; told while it is so, and never kept."""
QUEUE_FULL_WAIT = 5
"""Seconds after which somebody who found the queue full may ask again."""

_IS_QUEUED = predictions.c.state == literal_column(f"'{QUEUED}'")
"""As the condition of the partial index is written: a parameter would not use it."""
_QUEUED_OF = (
    select(predictions.c.number)
    .where(predictions.c.model_id == bindparam("model_id"), _IS_QUEUED, predictions.c.number < bindparam("before"))
    .limit(bindparam("most"))
)
_COUNT_QUEUED = prepared(select(func.count()).select_from(_QUEUED_OF.subquery()))
files = RunnerFile.__table__
_ADOPT = prepared(
    update(files)
    .where(files.c.key == bindparam("file"), files.c.owner == bindparam("of"), files.c.prediction.is_(None))
    .values(prediction=bindparam("row"), prediction_id=bindparam("name"))
)
_NO_EDGE = 2**62


class DataFiles(Protocol):
    """Files, as far as inputs of predictions need them."""

    def keep_data(self, owner: str, url: str, prediction: Prediction | None) -> str:
        """Store what a data: URL holds; the URL of the file. Raises ValueError."""

    def forget_prediction(self, tx: Transaction, prediction: Prediction) -> None:
        """The files of this prediction go."""


class RunnerPredictions:
    """What clients may do with predictions. Unknown, malformed and foreign ids all raise RunnerPredictionNotFound."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        streams: Streams,
        changes: Changes,
        files: DataFiles,
        replays: Replays,
        charge: Charge,
        random: RandomBytes = secrets.token_bytes,
        offload: Offload = plain_call,
    ) -> None:
        """`offload(function, *args)` calls what takes long where nobody else waits for it."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._streams = streams
        self._changes = changes
        self._files = files
        self._replays = replays
        self._charge = charge
        self._random = random
        self._offload = offload

    # --- run --------------------------------------------------------------------------------------------------

    def create(self, caller: RunnerCaller, new: NewRun) -> Prediction:
        """Accept a prediction, durably. Raises ModelNotFound, UnknownVersion, InvalidInput, WebhookNotAllowed,
        BodyTooLarge, RunnerQueueFull, RunnerIdempotencyConflict and what the key's window raises."""
        choice = self._store.read(partial(self._first_look, caller=caller, new=new))
        if isinstance(choice, Prediction):
            return choice
        if new.webhook is not None:
            check_target(new.webhook, self._settings.webhook_allow_private)
        checked = self._checked(choice, new)
        given, kept = self._with_stored_data(caller, choice, checked)
        return self._store.write(partial(self._create, caller=caller, new=new, choice=choice, given=given, kept=kept))

    def _first_look(self, tx: Transaction, caller: RunnerCaller, new: NewRun) -> Prediction | Choice:
        """What an earlier request with the same key made, else the model that is meant."""
        replayed = self._replayed(tx, caller, new)
        return replayed or (choose if new.named else choose_version)(tx, caller, new.reference)

    def _replayed(self, tx: Transaction, caller: RunnerCaller, new: NewRun) -> Prediction | None:
        if new.idempotency_key is None:
            return None
        made = self._replays.find(tx, caller.owner, new.idempotency_key, new.asked(), self._clock.now())
        return None if made is None else of_owner(tx, caller.owner, made)

    def _checked(self, choice: Choice, new: NewRun) -> dict[str, Any]:
        limit = self._settings.input_max_bytes
        if len(json.dumps(new.input, ensure_ascii=False, separators=(",", ":")).encode()) > limit:
            raise BodyTooLarge(limit=limit)
        if any(one.rules.pattern is not None for one in choice.signature.inputs):  # some take tenths of a second
            checked: dict[str, Any] = self._offload(check_input, choice.signature, new.input)
            return checked
        return check_input(choice.signature, new.input)

    def _with_stored_data(
        self, caller: RunnerCaller, choice: Choice, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """The input with long data: URLs replaced by those of files, and these."""
        kept: list[str] = []

        def store(url: str) -> str:
            kept.append(self._files.keep_data(caller.owner, url, None))
            return kept[-1]

        changed = dict(given)
        for name in file_inputs(choice.signature) & given.keys():
            try:
                changed[name] = with_stored(given[name], store)
            except ValueError:
                raise InvalidInput(fields={name: ["Not a valid URL."]}) from None
        return changed, kept

    def _create(
        self,
        tx: Transaction,
        caller: RunnerCaller,
        new: NewRun,
        choice: Choice,
        given: dict[str, Any],
        kept: Iterable[str],
    ) -> Prediction:
        now = self._clock.now()
        replayed = self._replayed(tx, caller, new)
        if replayed is not None:
            return replayed
        self._take_place(tx, choice.model.id)
        made = self._changes.insert(tx, self._new(caller, new, choice, given, now))
        for url in kept:
            named = {"file": url.rpartition("/")[2], "of": caller.owner, "row": made.number, "name": made.id}
            tx.execute(_ADOPT, named)
        if new.idempotency_key is not None:
            self._replays.remember(tx, caller.owner, new.idempotency_key, new.asked(), made.id, now)
        self._charge(tx, caller.owner, now)
        return made

    def _take_place(self, tx: Transaction, model_id: str) -> None:
        """The row of the model is held from here on, so nobody else counts the same queue."""
        if not count_run(tx, model_id):
            raise ModelNotFound()
        most = self._settings.runner_queue_max
        if self._queued_before(tx, model_id, _NO_EDGE) >= most:
            raise RunnerQueueFull(retry_after=QUEUE_FULL_WAIT)

    def _new(self, caller: RunnerCaller, new: NewRun, choice: Choice, given: dict[str, Any], now: float) -> Prediction:
        deadline = None if new.cancel_after is None else now + new.cancel_after
        queued_until = now + self._settings.prediction_queue_ttl_s
        return Prediction(
            id=prediction_id(self._random),
            owner=caller.owner,
            runner_owner=choice.model.owner,
            model_id=choice.model.id,
            model=f"{choice.model.account}/{choice.model.name}",
            version=choice.version,
            source=NODE,
            state=QUEUED,
            input=given,
            webhook=new.webhook,
            webhook_events=",".join(new.webhook_events),
            deadline=deadline,
            due_at=queued_until if deadline is None else min(queued_until, deadline),
            created_at=now,
        )

    # --- look -------------------------------------------------------------------------------------------------

    def get(self, caller: RunnerCaller, id: str) -> Prediction:
        return self._store.read(partial(_own, owner=caller.owner, id=id))

    def page(self, caller: RunnerCaller, cursor: str | None = None, external_id: str | None = None) -> Page:
        """The key's predictions, newest first; or those that go by one id. Raises BadCursor."""
        if external_id is not None:
            if not PREDICTION_ID.fullmatch(external_id):
                return Page([], None, None)
            return self._store.read(partial(page_named, owner=caller.owner, id=external_id))
        return self._store.read(partial(page_of, owner=caller.owner, cursor=cursor))

    def page_view(self, page: Page) -> dict[str, Any]:
        """What clients see of it: the addresses of its neighbours are whole."""

        def address(cursor: str | None) -> str | None:
            query = urlencode({"cursor": cursor})
            return None if cursor is None else f"{self._settings.public_url}/v1/predictions?{query}"

        results = self.views(page.results)
        return {"previous": address(page.previous), "next": address(page.next), "results": results}

    def wait(self, caller: RunnerCaller, id: str, seconds: float) -> Prediction:
        """The prediction once it has ended, or after that many seconds."""
        found = self.get(caller, id)
        if found.ended or seconds <= 0:
            return found
        over = threading.Event()

        def heard(entry: Entry) -> None:
            if entry.body["event"] == "done":
                over.set()

        subscription = self._streams.subscribe(found.stream, found.seq, heard)
        try:
            subscription.catch_up()
            over.wait(seconds)
        finally:
            subscription.close()
        return self._store.read(partial(by_number, number=found.number)) or found

    def view(self, prediction: Prediction) -> dict[str, Any]:
        """What clients see of it."""
        return self.views([prediction])[0]

    def views(self, found: Iterable[Prediction]) -> list[dict[str, Any]]:
        return self._store.read(partial(self._views, found=list(found)))

    def _views(self, tx: Transaction, found: list[Prediction]) -> list[dict[str, Any]]:
        url = self._settings.public_url
        idle = {id for id in {one.model_id for one in found if one.state == QUEUED} if id and self._is_idle(tx, id)}
        views = [prediction_view(one, url, self._position(tx, one)) for one in found]
        for one, view in zip(found, views, strict=True):
            if one.state == QUEUED and one.model_id in idle:
                view["warnings"] = [*view["warnings"], NO_RUNNER]
        return views

    def _is_idle(self, tx: Transaction, model_id: str) -> bool:
        """Whether no worker of this model is there, as far as is known: one without an agent is not known before it
        was asked."""
        runner = standing(tx, model_id)
        unasked = runner["last_seen"] is None and self._settings.runner_tunnel_provider != "socketio"
        return not runner["connected"] and not unasked

    def _position(self, tx: Transaction, prediction: Prediction) -> int | None:
        """1 is next; None for one that does not wait."""
        if prediction.state != QUEUED or prediction.model_id is None:
            return None
        return self._queued_before(tx, prediction.model_id, prediction.number) + 1

    def _queued_before(self, tx: Transaction, model_id: str, number: int) -> int:
        """At most what a queue holds."""
        given = {"model_id": model_id, "before": number, "most": self._settings.runner_queue_max}
        return int(tx.execute(_COUNT_QUEUED, given).scalar() or 0)

    # --- end --------------------------------------------------------------------------------------------------

    def cancel(self, caller: RunnerCaller, id: str) -> Prediction:
        """One that waits ends now; one that runs as soon as its worker says so, or after a while; one that has ended
        stays as it is."""
        return self._store.write(partial(self._cancel, owner=caller.owner, id=id))

    def _cancel(self, tx: Transaction, owner: str, id: str) -> Prediction:
        found = _held_own(tx, owner, id)
        if found.state == QUEUED or found.model_id is None:  # nobody to tell
            return self._changes.end(tx, found, CANCELED)
        if found.ended or found.cancel_at is not None:
            return found
        now = self._clock.now()
        return self._changes.apply(tx, found, replace(found, cancel_at=now, due_at=now))

    def delete(self, caller: RunnerCaller, id: str) -> None:
        """Its input, output, logs, reports and files are gone; the row stays. Raises PredictionActive."""
        self._store.write(partial(self._delete, owner=caller.owner, id=id))

    def _delete(self, tx: Transaction, owner: str, id: str) -> None:
        found = _held_own(tx, owner, id)
        if not found.ended:
            raise PredictionActive()
        remove_records(tx, found)
        self._files.forget_prediction(tx, found)
        now = held(tx, found.number) or found  # the files' counts may have changed
        self._changes.apply(tx, now, without_data(now))

    def forget_requests(self) -> None:
        """Idempotency keys that are past their time, of registrations too."""
        self._store.write(partial(forget_old, now=self._clock.now()))

    def purge(self, limit: int = 100) -> int:
        """Forget the oldest of those that ended more than `prediction_ttl_s` ago; how many there were."""
        edge = self._clock.now() - self._settings.prediction_ttl_s
        numbers = self._store.read(partial(old, before=edge, limit=limit))
        for number in numbers:  # one by one: thousands of reports may go with each, and others want to write
            self._store.write(partial(self._purge, number=number))
        return len(numbers)

    def _purge(self, tx: Transaction, number: int) -> None:
        found = held(tx, number)
        if found is not None:
            self._files.forget_prediction(tx, found)
            remove_row(tx, found)


def _own(tx: Transaction, owner: str, id: str) -> Prediction:
    found = of_owner(tx, owner, id)
    if found is None:
        raise RunnerPredictionNotFound()
    return found


def _held_own(tx: Transaction, owner: str, id: str) -> Prediction:
    """The same, which nobody else changes until the transaction ends."""
    found = held(tx, _own(tx, owner, id).number)
    if found is None:
        raise RunnerPredictionNotFound()
    return found
