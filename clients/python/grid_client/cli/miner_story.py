"""What `grid-client miner run` and `example` tell on stdout: a line for each thing that happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from grid_client.cli.printing import cell
from grid_client.game_feed import GameUpdate
from grid_client.outbox import Entry
from grid_client.receipts import Receipt

OUTCOMES = ("team A", "team B", "a draw", "unfinished")
UNTOLD = frozenset({"last_update_date"})
"""Members that change with every other one."""


class Story:
    """Knows the games as they were told, to say what a delta changed. Safe for threads."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._games: dict[str, dict[str, Any]] = {}

    def updated(self, update: GameUpdate) -> None:
        """Call with each update, in order."""
        with self._lock:
            if update.kind == "snapshot":
                self._games = {game_id: dict(game) for game_id, game in update.games.items()}
                self._tell(f"games: a snapshot of {len(update.games)} (seq {update.position.seq})")
                return
            for game_id, change in update.changes.items():
                before = self._games.get(game_id)
                self._games[game_id] = {**(before or {}), **change}
                self._tell(f"games: {game_line(game_id, before, change)} (seq {update.position.seq})")

    def submitted(self, prediction: Mapping[str, Any]) -> None:
        team = (prediction["team_a"], prediction["team_b"], "a draw")[prediction["predicted_outcome"]]
        odds, confidence = prediction["predicted_odds"], prediction["confidence_score"]
        told = f"{prediction['wager']} on {team} at {odds}, confidence {confidence:.2f}"
        self._tell(f"prediction {prediction['prediction_id']}: {told}")

    def finished(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._tell(ending_line(entry))


def game_line(game_id: str, before: Mapping[str, Any] | None, change: Mapping[str, Any]) -> str:
    """A new game, or old and new value of each member that changed."""
    if before is None:
        return f"{game_id} is new, {change.get('team_a')} v {change.get('team_b')}"
    told = (name for name in change if name not in UNTOLD)
    return f"{game_id} " + ", ".join(f"{name} {_value(name, before)} -> {_value(name, change)}" for name in told)


def ending_line(entry: Entry) -> str:
    receipt, error = entry.receipt, entry.error or {}
    if receipt is None:
        return f"{entry.state}: {entry.prediction_id}: {error.get('code')}: {error.get('error')}"
    verdict = f"accepted at {receipt.accepted_odds}" if receipt.accepted else f"rejected: {receipt.message}"
    return f"receipt {receipt.seq}: {entry.prediction_id} {verdict}"


def game_row(game_id: str, game: Mapping[str, Any]) -> str:
    """Tab-separated: id, start, teams, odds of team A, team B and draw, outcome, whether it is active."""
    odds = (game.get(name) for name in ("team_a_odds", "team_b_odds", "tie_odds"))
    teams = f"{game.get('team_a')} v {game.get('team_b')}"
    state = "active" if game.get("active") else "inactive"
    return "\t".join(map(cell, (game_id, game.get("event_start_date"), teams, *odds, _value("outcome", game), state)))


def prediction_text(answer: Mapping[str, Any]) -> str:
    """What GET /predictions/<id> says, in words, once its receipt was verified."""
    receipt, settlement = Receipt.of(answer["receipt"]), answer.get("settlement")
    lines = [f"{receipt.prediction_id}: {answer.get('state')}, receipt {receipt.seq}"]
    lines.append(f"  {receipt.message} ({receipt.code}) at {receipt.received_at}")
    if isinstance(settlement, Mapping):
        lines.append(f"  outcome {_value('outcome', settlement)}, payout {settlement.get('payout')}")
    return "\n".join(lines)


def _value(name: str, game: Mapping[str, Any]) -> object:
    value = game.get(name)
    if name == "outcome" and type(value) is int and 0 <= value < len(OUTCOMES):
        return OUTCOMES[value]
    return "none" if value is None else value
