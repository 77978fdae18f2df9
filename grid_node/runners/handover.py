"""How a prediction passes from the queue to a runner: each step is a unit of work on its held row.

The send is counted before it is made, and one that came back unused is taken off again: so a node that dies in between
has counted it. A step finds its row as the claim left it, or leaves it alone: a report or the deadline was faster.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import String, bindparam, select, text

from grid_node.database import Transaction
from grid_node.runners.agents import is_connected
from grid_node.runners.changes import Changes
from grid_node.runners.prediction import (
    CANCELED,
    DISPATCHING,
    QUEUED,
    STARTING,
    WORKING,
    Prediction,
    held,
    predictions,
)
from grid_node.runners.verdict import Act, queue_deadline, verdict
from grid_node.settings import Settings
from grid_node.statements import prepared

CLAIM_SPARE = 5.0
"""Seconds of a claim beyond the longest wait for the answer."""
QUIET = 2.0
"""Seconds that a prediction rests whose send got no answer: if the worker has it all the same, its report comes."""
_LOOK = 32
"""Queued predictions that one claim looks at: those that wait for another runner are passed over."""

_QUEUED = text("state = 'queued'")
"""As the condition of the partial index is written: a parameter would not use it."""
_OLDEST = prepared(
    select(predictions.c.number, predictions.c.runner)
    .where(predictions.c.model_id == bindparam("model_id"), _QUEUED)
    .order_by(predictions.c.number)
    .limit(_LOOK)
)
_MODELS = prepared(
    text(
        "WITH RECURSIVE waiting(model_id) AS ("
        "SELECT min(model_id) FROM runner_predictions WHERE state = 'queued' UNION ALL "
        "SELECT (SELECT min(model_id) FROM runner_predictions"
        " WHERE state = 'queued' AND model_id > waiting.model_id) "
        "FROM waiting WHERE waiting.model_id IS NOT NULL) "
        "SELECT waiting.model_id AS model_id, (SELECT runner_owner FROM runner_predictions"
        " WHERE state = 'queued' AND runner_predictions.model_id = waiting.model_id ORDER BY number LIMIT 1) AS owner "
        "FROM waiting WHERE waiting.model_id IS NOT NULL"
    ).columns(model_id=String, owner=String)
)
"""One step of the index for each model, however long its queue is."""
_OPEN = text("finished_at IS NULL")
_HANDS = prepared(
    select(predictions.c.state, predictions.c.dispatched_at).where(
        predictions.c.model_id == bindparam("model_id"), _OPEN, predictions.c.runner == bindparam("runner")
    )
)


class Waiting(NamedTuple):
    """A model with queued predictions, and whose it is."""

    model_id: str
    owner: str


def waiting_models(tx: Transaction) -> list[Waiting]:
    return [Waiting(row.model_id, row.owner) for row in tx.execute(_MODELS)]


def in_hands(tx: Transaction, model_id: str, runner: str) -> list[float]:
    """When each of the predictions was sent that this runner has, as far as the node knows."""
    rows = tx.execute(_HANDS, {"model_id": model_id, "runner": runner})
    return [row.dispatched_at or 0.0 for row in rows if row.state in WORKING]


class Handover:
    """The steps. Each takes the transaction and what it is about."""

    def __init__(self, changes: Changes, settings: Settings) -> None:
        self._changes = changes
        self._settings = settings

    def claim(
        self, tx: Transaction, model_id: str, runner: str, others: Collection[str], now: float
    ) -> Prediction | None:
        """Take the oldest prediction that waits for this runner. One that another runner may have already, for its
        answer was lost, waits for that one while it is among `others`, or at another process."""
        for row in tx.execute(_OLDEST, {"model_id": model_id}).all():
            if row.runner not in (None, runner) and (row.runner in others or is_connected(tx, model_id, row.runner)):
                continue
            before = held(tx, row.number)
            if before is not None and self._is_good(before, now):
                return self._changes.apply(tx, before, self._claimed(before, runner, now))
        return None

    def _is_good(self, prediction: Prediction, now: float) -> bool:
        """Whoever looks at deadlines ends the others; and what a worker has reported on is not sent again."""
        if prediction.state != QUEUED or prediction.reported_at is not None:
            return False
        return verdict(prediction, now, None, self._settings).act is Act.WAIT

    def _claimed(self, before: Prediction, runner: str, now: float) -> Prediction:
        after = replace(
            before,
            state=DISPATCHING,
            runner=runner,
            attempts=before.attempts + 1,
            claimed_until=now + self._settings.runner_call_s + CLAIM_SPARE,
            dispatched_at=now,
        )
        return self._watched(after, now)

    def _watched(self, after: Prediction, now: float) -> Prediction:
        """With the time of the next look: the end of a claim, of the run or of its deadline, whichever is first."""
        return replace(after, due_at=verdict(after, now, None, self._settings).due_at)

    def accepted(self, tx: Transaction, claim: Prediction, now: float) -> None:
        """The worker has it. A report that was faster has said so, and from now on its silence counts."""
        before = self._of_claim(tx, claim)
        if before is None:
            return
        state = STARTING if before.state == DISPATCHING else before.state
        after = self._watched(replace(before, state=state, claimed_until=None), now)
        self._changes.apply(tx, before, after if before.cancel_at is None else replace(after, due_at=now))

    def returned(self, tx: Transaction, claim: Prediction, now: float) -> None:
        """The worker did not take it: back to its place in the queue, as if it had not been sent."""
        before = self._unheard(tx, claim)
        if before is None:
            return
        attempts = before.attempts - 1
        if before.cancel_at is not None and attempts == 0:
            self._changes.end(tx, before, CANCELED)
        elif before.cancel_at is not None:  # an earlier send may have reached the worker: it is told
            after = replace(before, attempts=attempts, claimed_until=now, due_at=now)
            self._changes.apply(tx, before, after)
        else:
            self._changes.apply(tx, before, self._queued(before, attempts))

    def _queued(self, before: Prediction, attempts: int) -> Prediction:
        return replace(
            before,
            state=QUEUED,
            attempts=attempts,
            runner=before.runner if attempts else None,
            claimed_until=None,
            dispatched_at=None,
            due_at=queue_deadline(before, self._settings),
        )

    def refused(self, tx: Transaction, claim: Prediction, detail: str) -> None:
        """The worker will never take it."""
        before = self._unheard(tx, claim)
        if before is not None:
            self._changes.fail(tx, before, "The runner refused the prediction", detail)

    def unanswered(self, tx: Transaction, claim: Prediction, detail: str, now: float) -> None:
        """The worker may have it, or not. It rests until a report comes or its deadline says what next; a fault of the
        worker, told in `detail`, ends it once it was sent often enough."""
        before = self._unheard(tx, claim)
        if before is None:
            return
        if detail and before.attempts >= self._settings.prediction_attempts:
            self._changes.fail(tx, before, "The runner failed to take the prediction", detail)
            return
        self._changes.apply(tx, before, self._watched(replace(before, claimed_until=now + QUIET), now))
        tx.on_commit(self._changes.watched)

    def _unheard(self, tx: Transaction, claim: Prediction) -> Prediction | None:
        """The same, unless a report says that the worker has it, whatever it answered."""
        before = self._as_claimed(tx, claim)
        return before if before is not None and before.reported_at is None else None

    @classmethod
    def _as_claimed(cls, tx: Transaction, claim: Prediction) -> Prediction | None:
        """The row, if it is still on its way."""
        before = cls._of_claim(tx, claim)
        return before if before is not None and before.state == DISPATCHING else None

    @staticmethod
    def _of_claim(tx: Transaction, claim: Prediction) -> Prediction | None:
        """The row, if this send is its last one and it has not ended."""
        before = held(tx, claim.number)
        if before is None or before.state not in WORKING:
            return None
        return before if before.attempts == claim.attempts and before.runner == claim.runner else None
