"""Games of a node with their update log and their settlement, on a clock that stands still."""

import json
from typing import Any

from bittensor_wallet import Keypair
from sqlalchemy import func, insert, select

from grid_node.clock import ManualClock, rfc3339
from grid_node.database import Store
from grid_node.identity.hotkeys import check_message, decode_hotkey
from grid_node.identity.node_key import NodeKey
from grid_node.predictions.games import Games
from grid_node.predictions.settlement import Settling
from grid_node.predictions.tables import Game, GameUpdate, MinerPrediction, Settlement
from grid_node.predictions.update_log import Update, UpdateLog
from grid_node.settings import Settings

NODE_KEY = NodeKey(Keypair.create_from_seed("0x" + "07" * 32))
MINER = "11" * 32


class NodeSigner:
    """Signs as a node does, and counts how often."""

    hotkey = NODE_KEY.hotkey

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.signed_count = 0

    def base_fields(self, message_type: str) -> dict[str, Any]:
        return NODE_KEY.base_fields(message_type, self._clock)

    def signed(self, message: Any) -> dict[str, Any]:
        self.signed_count += 1
        return NODE_KEY.sign_message(message)


class Stadium:
    """The games of one process of a node. `beside` is another process with the same database."""

    def __init__(self, store: Store, clock: ManualClock, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.settings = Settings.load({}, **settings)
        self.signer = NodeSigner(clock)
        self.log = UpdateLog(store, clock, self.settings, self.signer)
        self.games = Games(store, clock, self.settings, self.log)
        self.settling = Settling(store, clock, self.settings)
        self.log.open()

    def beside(self) -> "Stadium":
        return Stadium(self.store, self.clock)

    def game(self, **members: Any) -> dict[str, Any]:
        """What a PUT of a new game says; it starts in an hour."""
        return {
            "team_a": "Giants",
            "team_b": "Cowboys",
            "sport": "football",
            "league": "NFL",
            "event_start_date": self.at(3600),
            "team_a_odds": "1.80",
            "team_b_odds": "2.10",
            **members,
        }

    def at(self, seconds: float) -> str:
        """RFC 3339 of so many seconds from now."""
        return rfc3339(self.clock.now() + seconds)

    def put(self, game_id: str = "g", **members: Any) -> dict[str, Any]:
        """The answer to a PUT of the members."""
        return self.games.put(game_id, members).body

    def add(self, game_id: str = "g", **members: Any) -> dict[str, Any]:
        return self.put(game_id, **self.game(**members))

    def rows(self, count: int, **members: Any) -> list[dict[str, Any]]:
        """Rows of an import."""
        return [{"game_id": f"game-{number:05d}", **self.game(**members)} for number in range(count)]

    def bet(
        self,
        prediction_id: str,
        game_id: str = "g",
        *,
        outcome: int = 1,
        wager: int = 1000,
        odds: int = 21000,
        accepted: bool = True,
        received_at: float | None = None,
        miner: str = MINER,
    ) -> None:
        """A prediction that got its verdict. `wager` in cents, `odds` in ten-thousandths."""
        at = self.clock.now() if received_at is None else received_at
        self.bet_many([bet_row(prediction_id, game_id, outcome, wager, odds, accepted, at, miner)])

    def bet_many(self, rows: list[dict[str, Any]]) -> None:
        def unit(tx: Any) -> None:
            there = self._count(tx, MinerPrediction)
            tx.execute(insert(MinerPrediction.__table__), [{**row, "seq": there + n} for n, row in enumerate(rows, 1)])

        self.store.write(unit)

    def count(self, model: Any = Game) -> int:
        return self.store.read(lambda tx: self._count(tx, model))

    def _count(self, tx: Any, model: Any) -> int:
        return int(tx.execute(select(func.count()).select_from(model.__table__)).scalar_one())

    def settle(self) -> int:
        """Settle all there is; how many pages it took."""
        pages = 0
        while self.settling.tick():
            pages += 1
        return pages

    def settlements(self) -> dict[str, tuple[int, int]]:
        """Outcome and payout in cents by prediction."""
        table = Settlement.__table__
        found = self.store.read(lambda tx: tx.execute(select(table)).all())
        return {row.prediction_id: (row.outcome, row.payout) for row in found}

    def is_settled(self, game_id: str = "g") -> bool:
        query = select(Game.__table__.c.settled).where(Game.__table__.c.game_id == game_id)
        return bool(self.store.read(lambda tx: tx.execute(query).scalar_one()))

    def logged(self) -> list[int]:
        """Every seq in the table, in order."""
        query = select(GameUpdate.__table__.c.seq).order_by(GameUpdate.__table__.c.seq)
        return list(self.store.read(lambda tx: tx.execute(query).scalars().all()))

    def delta(self, seq: int) -> dict[str, Any]:
        """What an entry says of games."""
        found = self.log.get(self.log.newest.epoch, seq)
        assert found is not None
        return dict(message(found)["updated_games"])


def message(update: Update) -> dict[str, Any]:
    """The message, if the node's signature holds."""
    said: dict[str, Any] = json.loads(update.text)
    check_message(decode_hotkey(NODE_KEY.hotkey), said)
    return said


def bet_row(
    prediction_id: str,
    game_id: str,
    outcome: int,
    wager: int,
    odds: int,
    accepted: bool,
    received_at: float,
    miner: str = MINER,
) -> dict[str, Any]:
    return {
        "miner": miner,
        "prediction_id": prediction_id,
        "game_id": game_id,
        "accepted": accepted,
        "code": "successful" if accepted else "odds_mismatch",
        "wager": wager if accepted else None,
        "outcome": outcome if accepted else None,
        "accepted_odds": odds if accepted else None,
        "received_at": received_at,
        "body_sha256": "0" * 64,
        "body": "{}",
        "receipt": "{}",
    }
