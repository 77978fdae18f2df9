"""Tunnels of models: how one comes to be, how it ends, and that none is left over.

A model's row is written before its tunnel is asked for and removed after its tunnel is gone, so at any time every
tunnel has a row that knows of it: pending -> ready, or -> failed (-> cleanup while undoing fails); ready -> deleting.
"""

import json
import logging
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import bindparam, or_, select

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import ModelNotFound, TunnelProviderFailed
from grid_node.runners import models
from grid_node.runners.changes import Changes
from grid_node.runners.model_documents import credential_of
from grid_node.runners.models import CLEANUP, DELETING, FAILED, PENDING, READY
from grid_node.runners.ports import TunnelProvider
from grid_node.runners.prediction import CANCELED, QUEUED, held, predictions
from grid_node.runners.secrets_box import SecretsBox
from grid_node.settings import Settings
from grid_node.statements import prepared

log = logging.getLogger(__name__)

PENDING_MAX = 40.0
"""Seconds after which a registration is over that nobody finished; it takes 25 at most."""
LOOK_AGAIN = 120.0
"""Age in seconds at which a failed registration is looked at a last time: a request whose answer was lost may still
have been carried out after the first look."""
RETRY = 30.0
"""Seconds between the janitor's tries; the first comes with its next pass."""
CLAIM = 60.0
"""Seconds for which a row that is being looked at is no other process's business."""
BATCH = 100
"""Predictions that one transaction cancels."""
AT_ONCE = 5
"""Rows that are claimed together."""
LOCAL = "socketio"
"""A provider whose tunnels are nothing outside of this node."""
LATE = 10.0
"""Seconds beyond the grace of a cancel after which a prediction holds up its model's end no more."""
ELSEWHERE = 3600.0
"""Seconds until a row is looked at again whose provider this node does not use."""

_OPEN = prepared(
    select(predictions.c.number)
    .where(
        predictions.c.model_id == bindparam("id"),
        predictions.c.finished_at.is_(None),
        or_(
            predictions.c.state == QUEUED,
            predictions.c.cancel_at.is_(None),
            predictions.c.cancel_at < bindparam("late"),
        ),
    )
    .order_by(predictions.c.number)
    .limit(BATCH)
)


class Provisioning:
    """The life of tunnels, through one provider."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        provider: TunnelProvider,
        box: SecretsBox,
        changes: Changes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._provider = provider
        self._box = box
        self._changes = changes

    # --- coming to be -----------------------------------------------------------------------------------------------

    def provision(self, id: str) -> None:
        """Give a pending model its tunnel. When that fails, its row and tunnel are on the way out on return.

        Raises TunnelProviderFailed, and ModelNotFound when its owner removed it meanwhile.
        """
        done = False
        try:
            envelope = self._provider.create_tunnel(id)
            credential = credential_of(envelope)
            target = f"{credential['TunnelID']}.cfargotunnel.com"
            hostname = self._provider.create_hostname(id, target)
            self._store.write(partial(self._ready, id=id, columns=self._columns(envelope, credential, hostname)))
            done = True
        finally:
            if not done:
                self._undo(id)

    def _columns(self, envelope: Any, credential: dict[str, str], hostname: Any) -> dict[str, Any]:
        record = hostname.get("result") if isinstance(hostname, dict) else None
        return {
            "tunnel_id": credential["TunnelID"][:64],
            "dns_record_id": str(record["id"])[:64] if isinstance(record, dict) and record.get("id") else None,
            "envelope": self._box.seal(json.dumps(envelope)),
            "secret_hash": sha256(credential["token"].encode()).hexdigest(),
        }

    def _ready(self, tx: Transaction, id: str, columns: dict[str, Any]) -> None:
        row = models.held_model(tx, id)
        if row is None or row.state != PENDING:
            raise ModelNotFound()
        models.change_model(tx, id, state=READY, due_at=None, **columns)

    def _undo(self, id: str) -> None:
        log.warning("the tunnel of model %s could not be made", id)
        self._store.write(partial(self._failed, id=id))
        self._end(id, again=0.0)

    def _failed(self, tx: Transaction, id: str) -> None:
        """The name is free again at once."""
        row = models.held_model(tx, id)
        if row is not None and row.state == PENDING:
            self._leave(tx, row, FAILED, self._clock.now() + CLAIM)

    @staticmethod
    def _leave(tx: Transaction, row: Any, state: str, due: float, **more: Any) -> None:
        """The model is there for nobody any more: not under its name, and not for the request that made it."""
        models.change_model(tx, row.id, state=state, name=row.id, due_at=due, **more)
        models.forget_request(tx, row.owner, row.id)

    # --- ending -----------------------------------------------------------------------------------------------------

    def mark_deleting(self, tx: Transaction, row: Any) -> None:
        """From here on the model is there for nobody. One whose tunnel may be in the making ends after that."""
        now = self._clock.now()
        due = row.created_at + PENDING_MAX if row.state == PENDING else now + CLAIM
        self._leave(tx, row, DELETING, due, updated_at=now)

    def finish_deleting(self, id: str) -> None:
        """Cancel what its predictions do, and end it if nothing runs any more; else the janitor will."""
        row = self._store.read(lambda tx: models.model_by_id(tx, id))
        if row is None or row.state != DELETING or row.tunnel_id is None or not self._is_ours(row):
            return
        if self._is_idle(row):
            self._end(id, again=0.0)

    def tend(self) -> None:
        """One pass of the janitor: go on with everything that is on its way out. Called every few seconds."""
        until = self._clock.steady() + CLAIM
        while self._clock.steady() < until and (due := self._store.write(self._claim)):
            for row in due:
                try:
                    self._look_at(row)
                except Exception:
                    log.exception("model %s could not be tended", row.id)

    def _claim(self, tx: Transaction) -> list[Any]:
        now = self._clock.now()
        due = models.due_models(tx, now, AT_ONCE)
        for row in due:
            if row.state == PENDING:
                self._leave(tx, row, FAILED, now + CLAIM)
            else:
                models.change_model(tx, row.id, due_at=now + CLAIM)
        return due

    def _look_at(self, row: Any) -> None:
        if not self._is_ours(row):
            log.warning("model %s has a tunnel of %s, which this node does not use now", row.id, row.provider)
            self._put_off(row.id, ELSEWHERE)
        elif row.state != DELETING or self._is_idle(row):
            self._end(row.id, again=RETRY)

    def _is_ours(self, row: Any) -> bool:
        return row.provider in (self._provider.name, LOCAL)

    def _end(self, id: str, again: float) -> None:
        """The tunnel goes, then the row. What fails is tried again `again` seconds later."""
        try:
            self._provider.delete(id)
        except TunnelProviderFailed:
            log.warning("the tunnel of model %s could not be deleted", id)
            self._store.write(partial(self._not_ended, id=id, again=again))
        else:
            self._store.write(partial(self._ended, id=id))

    def _not_ended(self, tx: Transaction, id: str, again: float) -> None:
        row = models.held_model(tx, id)
        if row is not None:
            state = CLEANUP if row.state == FAILED else row.state
            models.change_model(tx, id, state=state, due_at=self._clock.now() + again)

    def _ended(self, tx: Transaction, id: str) -> None:
        row = models.held_model(tx, id)
        if row is None:
            return
        last_look = row.created_at + LOOK_AGAIN
        if row.state in (FAILED, CLEANUP) and self._clock.now() < last_look:
            models.change_model(tx, id, due_at=last_look)
        elif row.state in (FAILED, CLEANUP, DELETING):
            models.remove_model(tx, id)

    def _put_off(self, id: str, seconds: float) -> None:
        due = self._clock.now() + seconds
        self._store.write(lambda tx: models.change_model(tx, id, due_at=due))

    # --- predictions of a model that ends -----------------------------------------------------------------------------

    def _is_idle(self, row: Any) -> bool:
        """Cancel all that waits or runs, and say whether nothing is left; who runs has the grace of a cancel."""
        while self._store.write(partial(self._cancel_some, id=row.id)) == BATCH:
            pass
        busy = self._store.read(lambda tx: models.is_busy(tx, row.id))
        if busy:
            self._put_off(row.id, 1.0)
        return not busy

    def _cancel_some(self, tx: Transaction, id: str) -> int:
        """How many there were to cancel, BATCH at most."""
        now = self._clock.now()
        late = now - self._settings.cancel_grace_s - LATE
        numbers = [found.number for found in tx.execute(_OPEN, {"id": id, "late": late})]
        for number in numbers:
            self._cancel(tx, number, now, late)
        return len(numbers)

    def _cancel(self, tx: Transaction, number: int, now: float, late: float) -> None:
        before = held(tx, number)
        if before is None or before.ended:
            return
        if before.state == QUEUED or (before.cancel_at is not None and before.cancel_at < late):
            self._changes.end(tx, before, CANCELED)
        elif before.cancel_at is None:
            self._changes.apply(tx, before, replace(before, cancel_at=now, due_at=now))
