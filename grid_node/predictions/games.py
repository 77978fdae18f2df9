"""Games: written by the operator, each change with its entry in the update log; listed for miners."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, cast

import orjson

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.errors import GridError, InvalidGame, NotFound
from grid_node.predictions.game_changes import Change, check_teams, compare, rows_of, write
from grid_node.predictions.game_rows import MEMBERS, offer_of, on_wire, team_game
from grid_node.predictions.game_schemas import load_filter, load_put, load_row
from grid_node.predictions.listings import Listing, Listings
from grid_node.predictions.money import ODDS_UNIT
from grid_node.predictions.rules import UNFINISHED
from grid_node.predictions.update_log import Position, UpdateLog
from grid_node.settings import Settings

__all__ = ["BadRows", "Games", "ImportReport", "PutGame", "offer_of"]

ROWS_MAX = 20_000
"""Games of one import."""


class PutGame(NamedTuple):
    """`body` is the answer of PUT /games/<id>, status 201 if the game was created."""

    created: bool
    body: dict[str, Any]


class ImportReport(NamedTuple):
    """How many games of a file were new, changed, and as they are here already."""

    new: int
    changed: int
    unchanged: int


class BadRows(Exception):
    """Rows of an import that cannot be taken, by number from 1, and why. Nothing was written."""

    def __init__(self, rows: Mapping[int, GridError]) -> None:
        self.rows = dict(sorted(rows.items()))
        super().__init__("1 row is wrong" if len(self.rows) == 1 else f"{len(self.rows)} rows are wrong")


class Games:
    """The games of this node."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, log: UpdateLog) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._listings = Listings(store, log)
        self._epsilon = int(Decimal(str(settings.games_odds_epsilon)) * ODDS_UNIT)

    def put(self, game_id: str, payload: object, force: bool = False) -> PutGame:
        """Make a game, or change the members that are given. `force` (or the member `force`) changes a final outcome.

        Raises InvalidGame with `fields`, GameLocked, OutcomeConflict.
        """
        given, forced = load_put(game_id, payload)
        return self._store.write(partial(self._put, given=given, force=force or forced))

    def close(self, game_id: str, outcome: int, force: bool = False) -> PutGame:
        """Give a game its outcome. Raises NotFound, InvalidGame, OutcomeConflict."""
        given, _ = load_put(game_id, {"outcome": outcome})
        return self._store.write(partial(self._put, given=given, force=force, is_known=True))

    def import_games(self, rows: Sequence[object], *, assume_utc: bool = False, dry_run: bool = False) -> ImportReport:
        """Write all of the games or none; `dry_run`: none. Raises BadRows, InvalidGame for too many."""
        if len(rows) > ROWS_MAX:
            raise InvalidGame(f"An import takes {ROWS_MAX} games at most")
        loaded = _loaded(rows, assume_utc)
        if dry_run:
            return _report(loaded, self._store.read(partial(self._changes, loaded=loaded, held=False)))
        return self._store.write(partial(self._import, loaded=loaded))

    def listing(self, filters: object) -> Listing:
        """Body of GET /games; filters: sport, league, active. Raises InvalidMessage with `fields`."""
        return self._listings.get(load_filter(filters))

    def list(self, filters: object) -> dict[str, Any]:
        """The same as data."""
        return cast(dict[str, Any], orjson.loads(self.listing(filters).text))

    def _put(self, tx: Transaction, given: dict[str, Any], force: bool, is_known: bool = False) -> PutGame:
        self._log.hold(tx)
        there = rows_of(tx, [given["game_id"]], held=True).get(given["game_id"])
        if there is None and is_known:
            raise NotFound("Game not found.")
        change = compare(there, given, now=self._now(), epsilon=self._epsilon, force=force)
        if change is not None:
            check_teams(tx, change)
        position = self._write(tx, [] if change is None else [change])
        created = change is not None and change.is_new
        return PutGame(
            created,
            {
                "success": True,
                "created": created,
                "changed": change is not None,
                "game": team_game(there) if change is None else _whole(change),
                "epoch": position.epoch,
                "seq": position.seq,
            },
        )

    def _import(self, tx: Transaction, loaded: dict[int, dict[str, Any]]) -> ImportReport:
        self._log.hold(tx)
        changes = self._changes(tx, loaded, held=True)
        self._write(tx, changes)
        return _report(loaded, changes)

    def _changes(self, tx: Transaction, loaded: dict[int, dict[str, Any]], held: bool) -> Sequence[Change]:
        """What an import changes. Raises BadRows."""
        there = rows_of(tx, [given["game_id"] for given in loaded.values()], held=held)
        now = self._now()
        changes = []
        bad: dict[int, GridError] = {}
        for number, given in loaded.items():
            try:
                row = there.get(given["game_id"])
                change = compare(row, _without_reopening(row, given), now=now, epsilon=self._epsilon, force=False)
                if change is not None:
                    check_teams(tx, change)
                    changes.append(change)
            except GridError as error:
                bad[number] = error
        if bad:
            raise BadRows(bad)
        return changes

    def _write(self, tx: Transaction, changes: Sequence[Change]) -> Position:
        write(tx, changes)
        return self._log.append(tx, {change.game_id: on_wire(change.delta) for change in changes})

    def _now(self) -> float:
        """To the millisecond, as the wire has it."""
        return round(self._clock.now(), 3)


def _whole(change: Change) -> dict[str, Any]:
    return on_wire({name: change.row[name] for name in MEMBERS})


def _without_reopening(there: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A list that was made before a game ended says nothing about its end."""
    if there is None or there.outcome == UNFINISHED or given.get("outcome") != UNFINISHED:
        return given
    return {name: value for name, value in given.items() if name != "outcome"}


def _loaded(rows: Sequence[object], assume_utc: bool) -> dict[int, dict[str, Any]]:
    """Members by row number, from 1. Raises BadRows."""
    loaded: dict[int, dict[str, Any]] = {}
    first: dict[str, int] = {}
    bad: dict[int, GridError] = {}
    for number, row in enumerate(rows, 1):
        try:
            given = load_row(row, assume_utc=assume_utc)
            earlier = first.setdefault(given["game_id"], number)
            if earlier != number:
                raise InvalidGame(fields={"game_id": [f"is that of row {earlier} too"]})
            loaded[number] = given
        except GridError as error:
            bad[number] = error
    if bad:
        raise BadRows(bad)
    return loaded


def _report(loaded: Mapping[int, object], changes: Sequence[Change]) -> ImportReport:
    new = sum(change.is_new for change in changes)
    return ImportReport(new, len(changes) - new, len(loaded) - len(changes))
