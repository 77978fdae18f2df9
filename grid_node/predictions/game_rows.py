"""Games as rows, and as the TeamGame of the wire: dates as RFC 3339, odds as text with four decimals."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import bindparam, select

from grid_node.clock import rfc3339
from grid_node.database import Transaction
from grid_node.predictions.money import odds_text
from grid_node.predictions.rules import Offer
from grid_node.predictions.tables import Game
from grid_node.statements import prepared

games = Game.__table__

MEMBERS = (
    "game_id",
    "team_a",
    "team_b",
    "sport",
    "league",
    "create_date",
    "last_update_date",
    "event_start_date",
    "active",
    "outcome",
    "team_a_odds",
    "team_b_odds",
    "tie_odds",
    "can_tie",
)
DATES = ("create_date", "last_update_date", "event_start_date")
ODDS = ("team_a_odds", "team_b_odds", "tie_odds")

COLUMNS = [games.c[name] for name in MEMBERS]
_BETWEEN = prepared(
    select(*COLUMNS)
    .where(games.c.event_start_date >= bindparam("first"), games.c.event_start_date <= bindparam("last"))
    .order_by(games.c.event_start_date, games.c.game_id)
)
_OFFER = prepared(
    select(*(games.c[name] for name in Offer.__dataclass_fields__))
    .where(games.c.game_id == bindparam("game_id"))
    .with_for_update(read=True)
)


def offer_of(tx: Transaction, game_id: str) -> Offer | None:
    """What the node offers on a game now. For a transaction that writes: on PostgreSQL the game stays as it is until
    that ends, so that no prediction is accepted on a game whose settlement has begun."""
    row = tx.execute(_OFFER, {"game_id": game_id}).one_or_none()
    return None if row is None else Offer(*row)


def games_between(tx: Transaction, first: float, last: float) -> dict[str, dict[str, Any]]:
    """{game_id: TeamGame} of the games that start in [first, last], seconds since 1970, earliest first."""
    return {row.game_id: team_game(row) for row in tx.execute(_BETWEEN, {"first": first, "last": last})}


def team_game(row: Any) -> dict[str, Any]:
    """The whole game of a row. Written out: a list may have thousands of them."""
    return {
        "game_id": row.game_id,
        "team_a": row.team_a,
        "team_b": row.team_b,
        "sport": row.sport,
        "league": row.league,
        "create_date": rfc3339(row.create_date),
        "last_update_date": rfc3339(row.last_update_date),
        "event_start_date": rfc3339(row.event_start_date),
        "active": row.active,
        "outcome": row.outcome,
        "team_a_odds": odds_text(row.team_a_odds),
        "team_b_odds": odds_text(row.team_b_odds),
        "tie_odds": _odds_or_none(row.tie_odds),
        "can_tie": row.can_tie,
    }


def on_wire(members: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a row as the wire has them."""
    return {name: _WRITERS[name](value) if name in _WRITERS else value for name, value in members.items()}


def _odds_or_none(units: int | None) -> str | None:
    return None if units is None else odds_text(units)


_WRITERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(DATES, rfc3339),
    "team_a_odds": odds_text,
    "team_b_odds": odds_text,
    "tie_odds": _odds_or_none,
}
