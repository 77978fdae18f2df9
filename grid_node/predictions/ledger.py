"""The rows of miners' predictions, seen from one unit of work that gives many verdicts."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select, text

from grid_node.database import Transaction
from grid_node.predictions.game_rows import offer_of
from grid_node.predictions.messages import Prediction
from grid_node.predictions.receipts import Day
from grid_node.predictions.rules import Offer, Verdict
from grid_node.predictions.tables import MinerDailyWager, MinerPrediction, MinerSeq
from grid_node.statements import prepared

predictions = MinerPrediction.__table__
days = MinerDailyWager.__table__
seqs = MinerSeq.__table__

_FIND = prepared(
    select(predictions.c.receipt, predictions.c.body_sha256, predictions.c.accepted, predictions.c.code).where(
        predictions.c.miner == bindparam("miner"), predictions.c.prediction_id == bindparam("prediction_id")
    )
)
_INSERT = prepared(insert(predictions))
_SEQ = prepared(select(seqs.c.seq).where(seqs.c.miner == bindparam("miner")).with_for_update())
_FIRST_SEQ = prepared(text("INSERT INTO miner_seq (miner, seq) VALUES (:miner, 0) ON CONFLICT (miner) DO NOTHING"))
_SET_SEQ = prepared(seqs.update().where(seqs.c.miner == bindparam("m")).values(seq=bindparam("newest")))
_DAY = prepared(
    select(days.c.wagered, days.c.accepted).where(
        days.c.miner == bindparam("miner"), days.c.utc_day == bindparam("utc_day")
    )
)
_SET_DAY = prepared(
    text(
        "INSERT INTO miner_daily_wagers (miner, utc_day, wagered, accepted)"
        " VALUES (:miner, :utc_day, :wagered, :accepted)"
        " ON CONFLICT (miner, utc_day) DO UPDATE SET wagered = excluded.wagered, accepted = excluded.accepted"
    )
)


class Receipt(NamedTuple):
    """A receipt that was given, and the digest of the body that it was given for."""

    text: str
    body_sha256: str
    accepted: bool
    code: str


class Ledger:
    """What one transaction knows and will write. `save` writes it.

    A miner's row of `miner_seq` is held from the first look at the miner on: on PostgreSQL nobody else gives verdicts
    to it until the transaction ends.
    """

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._seqs: dict[str, int] = {}
        self._days: dict[tuple[str, str], Day] = {}
        self._changed_days: set[tuple[str, str]] = set()
        self._offers: dict[str, Offer | None] = {}
        self._new: dict[tuple[str, str], dict[str, Any]] = {}

    def hold(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Hold the rows of these (miner, game_id), in an order that all processes keep: no two wait for each other."""
        miners: set[str] = set()
        games: set[str] = set()
        for miner, game_id in wanted:
            miners.add(miner)
            games.add(game_id)
        for miner in sorted(miners):
            self._hold(miner)
        for game_id in sorted(games):
            self.offer(game_id)

    def find(self, miner: str, prediction_id: str) -> Receipt | None:
        """The receipt of this prediction, given now or before."""
        self._hold(miner)
        row = self._new.get((miner, prediction_id))
        if row is not None:
            return Receipt(row["receipt"], row["body_sha256"], row["accepted"], row["code"])
        found = self._tx.execute(_FIND, {"miner": miner, "prediction_id": prediction_id}).one_or_none()
        return None if found is None else Receipt(*found)

    def _hold(self, miner: str) -> None:
        if miner in self._seqs:
            return
        row = self._tx.execute(_SEQ, {"miner": miner}).one_or_none()
        if row is None:
            self._tx.execute(_FIRST_SEQ, {"miner": miner})
            row = self._tx.execute(_SEQ, {"miner": miner}).one()
        self._seqs[miner] = row.seq

    def next_seq(self, miner: str) -> int:
        return self._seqs[miner] + 1

    def day(self, miner: str, utc_day: str) -> Day:
        key = (miner, utc_day)
        if key not in self._days:
            row = self._tx.execute(_DAY, {"miner": miner, "utc_day": utc_day}).one_or_none()
            self._days[key] = Day(utc_day, 0, 0) if row is None else Day(utc_day, row.wagered, row.accepted)
        return self._days[key]

    def offer(self, game_id: str) -> Offer | None:
        if game_id not in self._offers:
            self._offers[game_id] = offer_of(self._tx, game_id)
        return self._offers[game_id]

    def record(
        self,
        miner: str,
        prediction: Prediction,
        verdict: Verdict,
        *,
        seq: int,
        received_at: float,
        day: Day,
        receipt: str,
    ) -> None:
        """Keep a verdict with its receipt; `day` is the miner's day after it."""
        self._seqs[miner] = seq
        if verdict.accepted:
            key = (miner, day.utc_day)
            self._days[key] = day
            self._changed_days.add(key)
        self._new[miner, prediction.prediction_id] = {
            "miner": miner,
            "prediction_id": prediction.prediction_id,
            "seq": seq,
            "game_id": prediction.game_id,
            "accepted": verdict.accepted,
            "code": verdict.code,
            "wager": verdict.wager if verdict.accepted else None,
            "outcome": verdict.outcome if verdict.accepted else None,
            "accepted_odds": verdict.accepted_odds,
            "received_at": received_at,
            "body_sha256": prediction.body_sha256,
            "body": prediction.body,
            "receipt": receipt,
        }

    def save(self) -> None:
        if not self._new:
            return
        self._tx.execute(_INSERT, list(self._new.values()))
        for miner in {miner for miner, _ in self._new}:
            self._tx.execute(_SET_SEQ, {"m": miner, "newest": self._seqs[miner]})
        for miner, utc_day in self._changed_days:
            day = self._days[miner, utc_day]
            row = {"miner": miner, "utc_day": utc_day, "wagered": day.wagered, "accepted": day.accepted}
            self._tx.execute(_SET_DAY, row)
