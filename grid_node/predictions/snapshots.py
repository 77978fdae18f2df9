"""Whole games at one position of the update log: where a reader begins that cannot go on where it was."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from grid_node.database import Transaction
from grid_node.predictions.game_rows import games_between
from grid_node.predictions.ports import Signer
from grid_node.predictions.updates import Position, Update

GAMES_OF_A_PART = 500
DAY = 86400.0
WINDOW_BEFORE, WINDOW_AFTER = 4 * DAY, 8 * DAY
"""A snapshot holds the games that start in this window around now, in seconds."""


class Snapshot(NamedTuple):
    """Whole games, and the position at which they were read. Its parts are messages, one at least."""

    position: Position
    parts: list[Update]


def make_snapshot(tx: Transaction, position: Position, signer: Signer, now: float) -> Snapshot:
    """`position` is that of the same transaction."""
    found = pages(games_between(tx, now - WINDOW_BEFORE, now + WINDOW_AFTER), GAMES_OF_A_PART) or [{}]
    count = len(found)
    parts = [Update(signer, position, now, page, (number, count)) for number, page in enumerate(found, 1)]
    return Snapshot(position, parts)


def pages(games: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """The games in their order, `size` of them a page."""
    names = list(games)
    return [{name: games[name] for name in names[start : start + size]} for start in range(0, len(names), size)]
