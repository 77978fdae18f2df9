"""Registered models: their owners make, change, look at and remove them."""

import json
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import ModelBusy, ModelChanged, ModelLimit, RunnerInvalidJson, TryAgain, TunnelProviderFailed
from grid_node.runners import agents, ids, models
from grid_node.runners.changes import Changes
from grid_node.runners.cursors import cursor_of, place_of
from grid_node.runners.model_documents import (
    ModelDocument,
    check_document,
    check_own_name,
    credential_of,
    described,
    fingerprint,
    listed,
    merged,
    public,
    registered,
)
from grid_node.runners.models import LIVING, PENDING, READY
from grid_node.runners.ports import RunnerCaller, TunnelProvider
from grid_node.runners.provisioning import PENDING_MAX, Provisioning
from grid_node.runners.replays import Replays
from grid_node.runners.secrets_box import SecretsBox
from grid_node.settings import Settings

log = logging.getLogger(__name__)

PAGE = 100
PAGE_MAX = 500
CREDENTIAL = "credential"
"""What `include` may ask for."""
_CURSOR = "models"
_PATCHES = 8
"""How often a patch is made anew because another change came first."""
_POLL = 0.05
"""Seconds between two looks at a registration that another request makes."""


class Registration:
    """`predict_signature` and `models` of the runners' API. A model of somebody else is not found."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        provider: TunnelProvider,
        box: SecretsBox,
        replays: Replays,
        changes: Changes,
        sleep: Callable[[float], None] = time.sleep,
        task_kinds: Collection[str] = (),
    ) -> None:
        """`task_kinds`: kinds of generation tasks that a model may do."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._provider = provider
        self._box = box
        self._replays = replays
        self._provisioning = Provisioning(store, clock, settings, provider, box, changes)
        self._sleep = sleep
        self._task_kinds = task_kinds

    # --- writing ----------------------------------------------------------------------------------------------------

    def create(self, caller: RunnerCaller, document: Any, idempotency_key: str | None = None) -> dict[str, Any]:
        """`{"id", "credential", "config"}`, once the model has its tunnel; 25 s at most.

        Raises RunnerInvalidJson, BodyTooLarge, InvalidSignature, RunnerIdempotencyConflict, ModelLimit, ModelNameTaken,
        TunnelProviderFailed, TryAgain.
        """
        checked = check_document(document, self._settings, self._task_kinds)
        asked, id = fingerprint(document), ids.model_id()
        check_own_name(checked.name, id)

        def unit(tx: Transaction) -> str:
            models.lock_owner(tx, caller.owner)
            first = self._replays.find(tx, caller.owner, idempotency_key, asked, self._clock.now())
            if first is None:
                self._accept(tx, caller, id, checked)
                self._replays.remember(tx, caller.owner, idempotency_key, asked, id, self._clock.now())
            return first or id

        made = self._store.write(unit)
        if made == id:
            self._provisioning.provision(id)
        else:
            self._wait_for(made)
        return self._registered(caller, made)

    def replace(self, caller: RunnerCaller, id: str, document: Any, if_match: str | None = None) -> dict[str, Any]:
        """A whole new document for a model that keeps its id and its tunnel. Answers like `create`.

        Raises ModelNotFound, ModelChanged when `if_match` names other revisions, and what `create` raises of documents.
        """
        self._store.read(lambda tx: models.owned(tx, caller.owner, id))
        checked = check_document(document, self._settings, self._task_kinds)
        self._store.write(partial(self._change, caller=caller, id=id, checked=checked, if_match=if_match))
        return self._registered(caller, id)

    def patch(self, caller: RunnerCaller, id: str, patch: Any, if_match: str | None = None) -> dict[str, Any]:
        """The same with a JSON merge patch of the stored document."""
        for _ in range(_PATCHES):
            row = self._store.read(lambda tx: models.owned(tx, caller.owner, id))
            if not isinstance(patch, dict):
                raise RunnerInvalidJson()
            _check_match(row, if_match)
            checked = check_document(merged(json.loads(row.document), patch), self._settings, self._task_kinds)
            try:
                seen = partial(self._change, caller=caller, id=id, checked=checked, if_match=etag_of(row))
                self._store.write(seen)
            except ModelChanged:
                continue
            return self._registered(caller, id)
        raise ModelChanged()

    def delete(self, caller: RunnerCaller, id: str, force: bool = False) -> dict[str, Any]:
        """The model is gone for everybody on return; its tunnel too, unless predictions still have to end or the
        provider fails: then the janitor goes on. Raises ModelNotFound, ModelBusy."""

        def unit(tx: Transaction) -> None:
            row = models.owned(tx, caller.owner, id, hold=True)
            if not force and models.is_busy(tx, id):
                raise ModelBusy()
            self._provisioning.mark_deleting(tx, row)

        self._store.write(unit)
        self._provisioning.finish_deleting(id)
        return {"id": id, "deleted": True}

    def tend(self) -> None:
        """One pass of the janitor."""
        self._provisioning.tend()

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, caller: RunnerCaller, id: str, include: str | None = None) -> tuple[dict[str, Any], str]:
        """The document with what the node knows of the model, and its ETag. Raises ModelNotFound."""

        def unit(tx: Transaction) -> tuple[Any, dict[str, Any]]:
            return models.owned(tx, caller.owner, id), agents.standing(tx, id)

        row, standing = self._store.read(unit)
        credential = self._credential(row)
        if include == CREDENTIAL:
            _audit(caller, id)
        elif credential is not None:
            credential = public(credential)
        return {**described(row, credential, self._settings), "runner": standing}, etag_of(row)

    def models(self, caller: RunnerCaller, cursor: str | None = None, limit: int | None = None) -> dict[str, Any]:
        """The caller's models, oldest first, and the cursor of what follows. Raises BadCursor."""
        at, behind = (0.0, "") if cursor is None else place_of(_CURSOR, cursor, float, str)
        size = limit or PAGE

        def unit(tx: Transaction) -> tuple[list[Any], list[dict[str, Any]]]:
            rows = models.page_of(tx, caller.owner, at, behind, size + 1)
            return rows, [listed(row, agents.standing(tx, row.id)) for row in rows[:size]]

        rows, shown = self._store.read(unit)
        last = rows[size - 1] if len(rows) > size else None
        return {"models": shown, "next": last and cursor_of(_CURSOR, last.created_at, last.id)}

    # --- units and their parts ----------------------------------------------------------------------------------------

    def _accept(self, tx: Transaction, caller: RunnerCaller, id: str, checked: ModelDocument) -> None:
        if models.count_of(tx, caller.owner) >= self._settings.models_per_owner:
            raise ModelLimit(limit=self._settings.models_per_owner)
        now, name = self._clock.now(), checked.name or id
        models.check_name_free(tx, caller.owner, name, id)
        fixed = {
            "id": id,
            "owner": caller.owner,
            "account": caller.account,
            "state": PENDING,
            "revision": 1,
            "provider": self._provider.name,
            "hostname": f"{id}.{self._settings.tunnel_domain}",
            "run_count": 0,
            "due_at": now + PENDING_MAX,
            "created_at": now,
            "updated_at": now,
        }
        models.insert_model(tx, fixed | _columns(checked, name))
        models.add_version(tx, id, checked.signature, now)

    def _change(
        self, tx: Transaction, caller: RunnerCaller, id: str, checked: ModelDocument, if_match: str | None
    ) -> None:
        models.lock_owner(tx, caller.owner)
        row = models.owned(tx, caller.owner, id, hold=True)
        _check_match(row, if_match)
        if row.document == checked.text:
            return
        name, now = check_own_name(checked.name, id), self._clock.now()
        models.check_name_free(tx, caller.owner, name, id)
        models.change_model(tx, id, **_columns(checked, name), revision=row.revision + 1, updated_at=now)
        models.add_version(tx, id, checked.signature, now)

    def _registered(self, caller: RunnerCaller, id: str) -> dict[str, Any]:
        row = self._store.read(lambda tx: models.owned(tx, caller.owner, id))
        credential = self._credential(row)
        if credential is None:
            raise TryAgain(retry_after=1)
        _audit(caller, id)
        return registered(row, credential, self._settings)

    def _credential(self, row: Any) -> dict[str, str] | None:
        """None before the model has its tunnel."""
        return None if row.envelope is None else credential_of(json.loads(self._box.open(row.envelope)))

    def _wait_for(self, id: str) -> None:
        """Until the request that came first has made this model. Raises TunnelProviderFailed, TryAgain."""
        until = self._clock.steady() + PENDING_MAX
        while self._clock.steady() < until:
            row = self._store.read(lambda tx: models.model_by_id(tx, id))
            if row is None or row.state not in LIVING:
                raise TunnelProviderFailed()
            if row.state == READY:
                return
            self._sleep(_POLL)
        raise TryAgain(retry_after=1)


def _audit(caller: RunnerCaller, id: str) -> None:
    log.info("audit: the credential of model %s was shown to key %s", id, caller.owner)


def etag_of(row: Any) -> str:
    return f'"{row.revision}"'


def _check_match(row: Any, if_match: str | None) -> None:
    """`if_match` as the header has it: `*`, or ETags of which one must be the model's. Raises ModelChanged."""
    if if_match is None or if_match.strip() == "*":
        return
    if etag_of(row) not in [tag.strip() for tag in if_match.split(",")]:
        raise ModelChanged()


def _columns(checked: ModelDocument, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "visibility": checked.visibility,
        "version": checked.signature.version,
        "document": checked.text,
        "generation": checked.generation,
    }
