"""Verdicts: from a checked prediction to its signed receipt, inside one unit of work."""

from grid_node.canonical import canonical
from grid_node.database import Transaction
from grid_node.errors import DuplicatePrediction, GridError, RateLimited
from grid_node.predictions.buckets import Buckets
from grid_node.predictions.ledger import Ledger
from grid_node.predictions.messages import Prediction
from grid_node.predictions.ports import Miner, Signer
from grid_node.predictions.receipts import Day, confirmation, utc_day
from grid_node.predictions.rules import Limits, judge
from grid_node.predictions.submission import ACCEPTED, REJECTED, RETRYABLE, Item, Reply, Submission
from grid_node.predictions.update_log import UpdateLog
from grid_node.settings import Settings


class Verdicts:
    """Judges submissions in the order in which they are given."""

    def __init__(self, settings: Settings, signer: Signer, log: UpdateLog) -> None:
        self._signer = signer
        self._log = log
        self._buckets = Buckets(settings.prediction_rate, settings.prediction_burst)
        self._limits = Limits(settings.prediction_min_wager_cents, settings.prediction_daily_limit_cents)

    def give(self, tx: Transaction, submissions: list[Submission]) -> None:
        """The unit of work: fills in `replies` and writes what was decided."""
        ledger = Ledger(tx)
        ledger.hold(
            (submission.miner.identity, item.prediction.game_id)
            for submission in submissions
            for item in submission.items
            if item.prediction is not None
        )
        for submission in submissions:
            submission.replies = self._replies(tx, ledger, submission)
        ledger.save()

    def _replies(self, tx: Transaction, ledger: Ledger, submission: Submission) -> list[Reply]:
        submission.refused = None
        try:
            self._admit(tx, submission)
        except GridError as error:
            submission.refused = Reply.of_error(error)
            return [submission.refused] * len(submission.items)
        replies: list[Reply] = []
        for item in submission.items:
            if replies and replies[-1].status in RETRYABLE:
                replies.append(replies[-1])  # the same may succeed later: the rest waits its turn
            else:
                replies.append(item.refused or self._reply(tx, ledger, submission, item))
        return replies

    def _admit(self, tx: Transaction, submission: Submission) -> None:
        error = submission.refusal()
        if error is not None:
            raise error
        if submission.guard is not None:
            submission.guard(tx)

    def _reply(self, tx: Transaction, ledger: Ledger, submission: Submission, item: Item) -> Reply:
        prediction, miner = item.prediction, submission.miner
        assert prediction is not None
        known = ledger.find(miner.identity, prediction.prediction_id)
        if known is not None:
            if known.body_sha256 != prediction.body_sha256:
                text = f"Prediction {prediction.prediction_id} already exists in database"
                return Reply.of_error(DuplicatePrediction(text))
            return Reply(known.text, ACCEPTED if known.accepted else REJECTED, known.code, replayed=True)
        wait = None if item.charged else self._buckets.take(miner.identity, submission.received_at)
        if wait is not None:
            return Reply.of_error(RateLimited(retry_after=wait))
        item.charged = True
        return self._judge(tx, ledger, miner, prediction, submission.received_at)

    def _judge(
        self, tx: Transaction, ledger: Ledger, miner: Miner, prediction: Prediction, received_at: float
    ) -> Reply:
        day, offer = ledger.day(miner.identity, utc_day(received_at)), ledger.offer(prediction.game_id)
        verdict = judge(prediction, offer, day.wagered, self._limits, received_at)
        if verdict.accepted:
            day = Day(day.utc_day, day.wagered + (verdict.wager or 0), day.accepted + 1)
        seq = ledger.next_seq(miner.identity)
        message = confirmation(
            self._signer,
            miner,
            prediction,
            verdict,
            seq=seq,
            received_at=received_at,
            day=day,
            daily_limit=self._limits.daily_limit,
            offer=offer,
            position=self._log.position(tx) if verdict.code == "odds_mismatch" else None,
        )
        text = canonical(message).decode()
        ledger.record(miner.identity, prediction, verdict, seq=seq, received_at=received_at, day=day, receipt=text)
        return Reply(text, ACCEPTED if verdict.accepted else REJECTED, verdict.code)
