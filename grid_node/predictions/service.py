"""Predictions: handed in, looked up, listed. What a miner may ask for, whichever face it comes by."""

import json
from functools import partial
from typing import Any

from sqlalchemy import Row, bindparam, func, select

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import GridError, PredictionNotFound
from grid_node.metrics import Metrics
from grid_node.predictions.intake import Intake
from grid_node.predictions.messages import PREDICTION_ID
from grid_node.predictions.money import money_text
from grid_node.predictions.pending import Answer, Pending
from grid_node.predictions.ports import Miner, Signatures, Signer
from grid_node.predictions.submission import Guard, Reading, Refusal, Submission
from grid_node.predictions.tables import MinerPrediction, MinerSeq, Settlement
from grid_node.predictions.update_log import UpdateLog
from grid_node.predictions.verdicts import Verdicts
from grid_node.settings import Settings
from grid_node.statements import prepared

rows = MinerPrediction.__table__
settlements = Settlement.__table__
seqs = MinerSeq.__table__

_WITH_SETTLEMENT = select(
    rows.c.prediction_id, rows.c.accepted, rows.c.receipt, settlements.c.outcome, settlements.c.payout
).select_from(
    rows.outerjoin(
        settlements, (settlements.c.miner == rows.c.miner) & (settlements.c.prediction_id == rows.c.prediction_id)
    )
)
_ONE = prepared(
    _WITH_SETTLEMENT.where(rows.c.miner == bindparam("miner"), rows.c.prediction_id == bindparam("prediction_id"))
)
_PAGE = prepared(
    _WITH_SETTLEMENT.where(rows.c.miner == bindparam("miner"), rows.c.seq > bindparam("after"))
    .order_by(rows.c.seq)
    .limit(bindparam("most"))
)
_LAST_SEQ = prepared(select(func.coalesce(func.max(seqs.c.seq), 0)).where(seqs.c.miner == bindparam("miner")))


def _welcome() -> None:
    """Nobody is refused."""


class Predictions:
    """Takes predictions and gives receipts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        signer: Signer,
        signatures: Signatures,
        log: UpdateLog,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._reading = Reading(settings, signer.hotkey, signatures)
        self.intake = Intake(store, clock, settings, Verdicts(settings, signer, log).give)
        self.intake.observe = self._observe

    def submit(
        self,
        miner: Miner,
        payload: object,
        transport: str,
        *,
        refusal: Refusal = _welcome,
        guard: Guard | None = None,
    ) -> Pending:
        """Take one PredictionMessage or `{"messages": [...]}`; never waits and never raises.

        The answer holds one signed confirmation, or the error, for each message. `refusal` says, when the turn comes,
        whether this miner may still predict; `guard` runs in the transaction of the verdicts, and what it raises is
        the answer.
        """
        try:
            submission = self._reading.open(miner, payload, transport, refusal, guard)
        except GridError as error:
            self._count(error.code, transport)
            refused = Pending()
            refused.finish(Answer.of_error(error))
            return refused
        if self.intake.place(submission):
            self._reading.check(submission)
            self.intake.add(submission)
        return submission.pending

    def status(self, miner: Miner, prediction_id: object) -> dict[str, Any]:
        """Raises PredictionNotFound, for another miner's id as for none."""
        row = None
        if isinstance(prediction_id, str) and PREDICTION_ID.fullmatch(prediction_id):
            keys = {"miner": miner.identity, "prediction_id": prediction_id}
            row = self._store.read(lambda tx: tx.execute(_ONE, keys).one_or_none())
        if row is None:
            raise PredictionNotFound()
        return {"success": True, **_view(row)}

    def list(self, miner: Miner, after_seq: int, limit: int) -> dict[str, Any]:
        """Receipts above `after_seq`, oldest first; `last_seq` is the miner's newest."""
        found, last = self._store.read(partial(_page, miner=miner.identity, after=after_seq, most=limit))
        return {"success": True, "predictions": [_view(row) for row in found], "last_seq": last}

    def last_seq(self, miner: Miner) -> int:
        """The seq of the miner's newest receipt; 0 if it has none."""
        newest: int = self._store.read(lambda tx: tx.execute(_LAST_SEQ, {"miner": miner.identity}).scalar_one())
        return newest

    def _observe(self, submission: Submission) -> None:
        for reply in submission.replies:
            self._count("replayed" if reply.replayed else reply.code, submission.transport)
        self._metrics.miner_ack.observe(max(0.0, self._clock.now() - submission.received_at))

    def _count(self, code: str, transport: str) -> None:
        self._metrics.miner_predictions.labels(code, transport).inc()


def _page(tx: Transaction, miner: str, after: int, most: int) -> tuple[list[Any], int]:
    found = tx.execute(_PAGE, {"miner": miner, "after": after, "most": most}).all()
    return found, tx.execute(_LAST_SEQ, {"miner": miner}).scalar_one()


def _view(row: Row[Any]) -> dict[str, Any]:
    settled = row.payout is not None
    state = "settled" if settled else "accepted" if row.accepted else "rejected"
    return {
        "prediction_id": row.prediction_id,
        "state": state,
        "receipt": json.loads(row.receipt),
        "settlement": {"outcome": row.outcome, "payout": money_text(row.payout)} if settled else None,
    }
