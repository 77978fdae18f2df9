"""The example miner: predicts each game once, as soon as its odds promise more than they cost.

client = PredictionClient(url, keypair, node_hotkey, "outbox.db")
miner = OddsMiner(client, fit(read_past_games()))
client.start()
while True:
    miner.look()
    time.sleep(1)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, Protocol

from grid_client.errors import GridError
from grid_client.odds_model import Choice, Correction, choose

log = logging.getLogger(__name__)

UNFINISHED = 3
CENT = Decimal("0.01")
LEAD = 30.0
"""Seconds before its start from which on a game is left alone: a prediction has a way to go."""
MODEL_NAME = "odds-implied-logistic"


class Games(Protocol):
    """What the miner needs of a PredictionClient."""

    @property
    def games(self) -> Mapping[str, Mapping[str, Any]]: ...

    def submit(self, prediction: Mapping[str, Any]) -> str: ...


class OddsMiner:
    """Bets `fraction` of `budget` on the best outcome of every game whose expected win is at least `least_value`.

    A prediction's id follows from its game alone, so that a miner that starts anew bets on nothing twice.
    """

    def __init__(
        self,
        client: Games,
        correction: Correction,
        *,
        budget: Decimal = Decimal("1000.00"),
        fraction: Decimal = Decimal("0.01"),
        least_value: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._correction = correction
        self._wager = (budget * fraction).quantize(CENT, ROUND_DOWN)
        if self._wager <= 0:
            raise ValueError("budget times fraction must be a cent or more")
        self._least_value = least_value
        self._now = now
        self._done: set[str] = set()

    def look(self) -> list[str]:
        """Submit what is worth it now; the ids of the predictions."""
        return [found for game_id, game in sorted(self._client.games.items()) if (found := self._try(game_id, game))]

    def _try(self, game_id: str, game: Mapping[str, Any]) -> str | None:
        if game_id in self._done or not self._is_open(game):
            return None
        try:
            choice = choose(game, self._correction)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("No use for the odds of game %s: %s", game_id, error)
            return None
        return self._submit(game_id, game, choice) if choice.value >= self._least_value else None

    def _is_open(self, game: Mapping[str, Any]) -> bool:
        if not game.get("active") or game.get("outcome") != UNFINISHED:
            return False
        try:
            start = datetime.fromisoformat(str(game.get("event_start_date")))
        except ValueError:
            return False
        return start.tzinfo is not None and self._now() + LEAD < start.timestamp()

    def _submit(self, game_id: str, game: Mapping[str, Any], choice: Choice) -> str | None:
        self._done.add(game_id)
        try:
            return self._client.submit(prediction(game_id, game, choice, str(self._wager)))
        except GridError as error:
            if error.code not in ALREADY_THERE:
                self._done.discard(game_id)
                raise
            log.info("Game %s has a prediction already", game_id)
            return None


ALREADY_THERE = frozenset({"conflict", "duplicate_prediction"})


def prediction(game_id: str, game: Mapping[str, Any], choice: Choice, wager: str) -> dict[str, Any]:
    """The body of a prediction at the game's present odds."""
    odds = {name: game.get(name) for name in ("team_a_odds", "team_b_odds", "tie_odds")}
    return {
        "prediction_id": f"odds-{game_id}",
        "game_id": game_id,
        "team_a": game["team_a"],
        "team_b": game["team_b"],
        "wager": wager,
        "predicted_outcome": choice.outcome,
        "predicted_odds": list(odds.values())[choice.outcome],
        **odds,
        "model_name": MODEL_NAME,
        "confidence_score": round(choice.probability, 4),
    }
