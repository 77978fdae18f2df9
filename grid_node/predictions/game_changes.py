"""What a write makes of a game: the members that change, and whether they may. Pure but for the rows it reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from grid_node.database import Transaction
from grid_node.errors import GameLocked, InvalidGame, OutcomeConflict
from grid_node.predictions.game_rows import COLUMNS, MEMBERS, ODDS, games
from grid_node.predictions.game_schemas import REQUIRED
from grid_node.predictions.rules import UNFINISHED
from grid_node.predictions.tables import MinerPrediction
from grid_node.statements import prepared

predictions = MinerPrediction.__table__

DEFAULTS: dict[str, Any] = {
    "sport": "",
    "league": "",
    "active": True,
    "outcome": UNFINISHED,
    "tie_odds": None,
    "can_tie": False,
}
"""Members that a new game may leave out. One that is there keeps what is left out."""
TEAMS = frozenset({"team_a", "team_b"})
PAGE = 500
"""Ids of one query."""

_THERE = select(*COLUMNS, games.c.settled).where(games.c.game_id.in_(bindparam("ids", expanding=True)))
_THERE_HELD = _THERE.order_by(games.c.game_id).with_for_update()
_INSERT = prepared(insert(games))
_UPDATE = prepared(
    update(games)
    .where(games.c.game_id == bindparam("key"))
    .values({name: bindparam(f"new_{name}") for name in (*MEMBERS[1:], "settled")})
)
_PREDICTED = prepared(
    select(predictions.c.game_id)
    .where(predictions.c.game_id == bindparam("game_id"), predictions.c.accepted.is_(True))
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Change:
    """A game as it will be, and its members that are not as before, in the units of the row."""

    row: dict[str, Any]
    delta: dict[str, Any]
    is_new: bool

    @property
    def game_id(self) -> str:
        return str(self.row["game_id"])

    @property
    def renames(self) -> bool:
        return not self.is_new and not TEAMS.isdisjoint(self.delta)


def compare(there: Any, given: Mapping[str, Any], *, now: float, epsilon: int, force: bool) -> Change | None:
    """The change that the given members make to the row that is there, if any. None: nothing changes.

    `now` in seconds since 1970; odds that move by `epsilon` ten-thousandths or less stay as they are. Raises
    InvalidGame with `fields`, OutcomeConflict.
    """
    old: dict[str, Any] = {} if there is None else there._asdict()
    row = {**old, **given} if old else _new(given, now)
    for name in ODDS:
        if _is_noise(old.get(name), row[name], epsilon):
            row[name] = old[name]
    _check(row)
    delta = {name: row[name] for name in MEMBERS if not old or row[name] != old[name]}
    if delta.keys() <= {"last_update_date"}:
        return None
    if old:
        _update_date(row, delta, given.get("last_update_date", now), old)
        _check_outcome(old["outcome"], row["outcome"], force)
    if "outcome" in delta:
        row["settled"] = not old and row["outcome"] == UNFINISHED
    return Change(row, delta, not old)


def check_teams(tx: Transaction, change: Change) -> None:
    """Raises GameLocked when a game is renamed on which predictions were accepted."""
    if change.renames and tx.execute(_PREDICTED, {"game_id": change.game_id}).one_or_none() is not None:
        raise GameLocked()


def rows_of(tx: Transaction, ids: Sequence[str], *, held: bool) -> dict[str, Any]:
    """Rows by id. `held`: until the transaction ends nobody else changes them, nor accepts a prediction on them."""
    statement = _THERE_HELD if held else _THERE
    return {row.game_id: row for page in _pages(sorted(ids)) for row in tx.execute(statement, {"ids": page})}


def write(tx: Transaction, changes: Sequence[Change]) -> None:
    new = [change.row for change in changes if change.is_new]
    changed = [
        {"key": change.game_id, **{f"new_{name}": value for name, value in change.row.items() if name != "game_id"}}
        for change in changes
        if not change.is_new
    ]
    if new:
        tx.execute(_INSERT, new)
    if changed:
        tx.execute(_UPDATE, changed)


def _new(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    row = {**DEFAULTS, "create_date": now, "last_update_date": now, **given}
    missing = {name: [REQUIRED] for name in MEMBERS if name not in row}
    if missing:
        raise InvalidGame(fields=missing)
    return row


def _is_noise(before: int | None, after: int | None, epsilon: int) -> bool:
    return before is not None and after is not None and abs(after - before) <= epsilon


def _check(row: Mapping[str, Any]) -> None:
    """Raises InvalidGame for members that do not go together."""
    wrong = {}
    if row["team_a"].casefold() == row["team_b"].casefold():
        wrong["team_b"] = ["must be another team than team_a"]
    if row["tie_odds"] is not None and not row["can_tie"]:
        wrong["tie_odds"] = ["must be null while can_tie is false"]
    if wrong:
        raise InvalidGame(fields=wrong)


def _update_date(row: dict[str, Any], delta: dict[str, Any], at: float, old: Mapping[str, Any]) -> None:
    row["last_update_date"] = at
    delta.pop("last_update_date", None)
    if at != old["last_update_date"]:
        delta["last_update_date"] = at


def _check_outcome(before: int, after: int, force: bool) -> None:
    if before not in (UNFINISHED, after) and not force:
        raise OutcomeConflict(outcome=before)


def _pages(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), PAGE):
        yield ids[start : start + PAGE]
