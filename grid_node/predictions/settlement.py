"""Settlement: what accepted predictions came to once their game had a final outcome. Receipts never change.

A game is unsettled from the commit of its final outcome on; from then no prediction is accepted on it, so what there
is to settle does not grow. Every page is a transaction: a crash costs no more than looking at some rows again.
"""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, exists, insert, select, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.predictions.game_rows import games
from grid_node.predictions.money import payout
from grid_node.predictions.receipts import utc_day
from grid_node.predictions.rules import UNFINISHED
from grid_node.predictions.snapshots import DAY, WINDOW_BEFORE
from grid_node.predictions.tables import MinerDailyWager, MinerPrediction, Settlement
from grid_node.settings import Settings
from grid_node.statements import prepared

predictions = MinerPrediction.__table__
settlements = Settlement.__table__
days = MinerDailyWager.__table__

PAGE = 500
"""Rows of one transaction."""

_UNSETTLED = select(games.c.game_id, games.c.outcome).where(~games.c.settled).limit(1)
_ANY = prepared(_UNSETTLED)
_NEXT = prepared(_UNSETTLED.with_for_update())
_SETTLED = prepared(update(games).where(games.c.game_id == bindparam("key")).values(settled=True))
_SAME = (settlements.c.miner == predictions.c.miner) & (settlements.c.prediction_id == predictions.c.prediction_id)
_OPEN = prepared(
    select(
        predictions.c.miner,
        predictions.c.prediction_id,
        predictions.c.wager,
        predictions.c.outcome,
        predictions.c.accepted_odds,
        predictions.c.received_at,
        settlements.c.outcome.label("settled_as"),
    )
    .select_from(predictions.outerjoin(settlements, _SAME))
    .where(
        predictions.c.game_id == bindparam("game_id"),
        predictions.c.accepted,
        predictions.c.received_at >= bindparam("since"),
        settlements.c.outcome.is_(None) | (settlements.c.outcome != bindparam("final")),
    )
    .order_by(predictions.c.received_at)
    .limit(PAGE)
)
_OF_GAME = prepared(
    select(settlements.c.miner, settlements.c.prediction_id)
    .where(settlements.c.game_id == bindparam("game_id"))
    .limit(PAGE)
)
_PAST = prepared(
    select(predictions.c.miner, predictions.c.prediction_id)
    .select_from(predictions.outerjoin(games, games.c.game_id == predictions.c.game_id))
    .where(
        predictions.c.received_at < bindparam("before"),
        games.c.game_id.is_(None) | (games.c.settled & (games.c.event_start_date < bindparam("before"))),
    )
    .order_by(predictions.c.received_at)
    .limit(PAGE)
)
_INSERT = prepared(insert(settlements))
_WITHDRAW = prepared(
    delete(settlements).where(
        settlements.c.miner == bindparam("of_miner"), settlements.c.prediction_id == bindparam("of_prediction")
    )
)
_FORGET = prepared(
    delete(predictions).where(
        predictions.c.miner == bindparam("of_miner"), predictions.c.prediction_id == bindparam("of_prediction")
    )
)
_FORGET_DAYS = prepared(delete(days).where(days.c.utc_day < bindparam("first")))
_FORGET_GAMES = prepared(
    delete(games).where(
        games.c.event_start_date < bindparam("before"),
        games.c.settled,
        ~exists().where(predictions.c.game_id == games.c.game_id),
    )
)


class _Place(NamedTuple):
    """How far a game is settled with an outcome: every prediction received before `since`, seconds since 1970."""

    game_id: str
    outcome: int
    since: float


class Settling:
    """Settles what has an outcome, and forgets what is long past."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._retention = settings.prediction_retention_days * DAY
        self._place: _Place | None = None

    def tick(self) -> bool:
        """Settle a page of predictions; whether there may be more. For one loop of a process."""
        if self._store.read(lambda tx: tx.execute(_ANY).one_or_none()) is None:
            return False
        self._place = self._store.write(self._settle)
        return True

    def purge(self, tx: Transaction, now: float) -> bool:
        """Forget a page of predictions that are older than the retention, like their games; whether there may be more.

        A prediction whose game is still to come, or has just been, stays: its id must not be free again, it may be
        made long before its outcome is known, and its miner must find the settlement.
        """
        before = now - self._retention
        keys = _keys(tx.execute(_PAST, {"before": before}).all())
        if keys:
            tx.execute(_WITHDRAW, keys)
            tx.execute(_FORGET, keys)
        tx.execute(_FORGET_DAYS, {"first": utc_day(before)})
        tx.execute(_FORGET_GAMES, {"before": min(before, now - WINDOW_BEFORE)})
        return len(keys) == PAGE

    def _settle(self, tx: Transaction) -> _Place | None:
        """One page; how far it came, None when a game is done."""
        game = tx.execute(_NEXT).one_or_none()
        if game is None:
            return None
        if game.outcome == UNFINISHED:
            self._withdraw(tx, game.game_id)
            return None
        since = self._since(game)
        found = tx.execute(_OPEN, {"game_id": game.game_id, "since": since, "final": game.outcome}).all()
        self._write(tx, game, found)
        if len(found) == PAGE:
            return _Place(game.game_id, game.outcome, found[-1].received_at)
        if since == 0:  # else once more from the beginning: another process may have settled another outcome
            tx.execute(_SETTLED, {"key": game.game_id})
        return None

    def _since(self, game: Any) -> float:
        place = self._place
        return place.since if place is not None and place[:2] == (game.game_id, game.outcome) else 0.0

    def _write(self, tx: Transaction, game: Any, found: list[Any]) -> None:
        again = _keys([row for row in found if row.settled_as is not None])
        if again:
            tx.execute(_WITHDRAW, again)
        if found:
            tx.execute(_INSERT, [_settlement(game, row, self._clock.now()) for row in found])

    def _withdraw(self, tx: Transaction, game_id: str) -> None:
        """The game has no outcome any more."""
        keys = _keys(tx.execute(_OF_GAME, {"game_id": game_id}).all())
        if keys:
            tx.execute(_WITHDRAW, keys)
        if len(keys) < PAGE:
            tx.execute(_SETTLED, {"key": game_id})


def _settlement(game: Any, row: Any, now: float) -> dict[str, Any]:
    """The whole payout in cents: wager x accepted odds, half-even, or nothing."""
    return {
        "miner": row.miner,
        "prediction_id": row.prediction_id,
        "game_id": game.game_id,
        "outcome": game.outcome,
        "payout": payout(row.wager, row.accepted_odds) if row.outcome == game.outcome else 0,
        "settled_at": now,
    }


def _keys(rows: list[Any]) -> list[dict[str, str]]:
    return [{"of_miner": row.miner, "of_prediction": row.prediction_id} for row in rows]
