"""The list of games as text: it is long, many ask for it, and it is the same until a game changes."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from grid_node.database import Store, Transaction
from grid_node.predictions.game_rows import COLUMNS, games, team_game
from grid_node.predictions.turns import in_turns
from grid_node.predictions.update_log import Position, UpdateLog
from grid_node.statements import Prepared, prepared

KEPT = 8
"""Lists that are kept, the ones asked for last."""

Question = tuple[tuple[str, Any], ...]


class Listing(NamedTuple):
    """The answer to GET /games as JSON text, and the position at which it holds."""

    position: Position
    text: str


class Listings:
    """Made once for each question and position, whoever asks meanwhile waits for it."""

    def __init__(self, store: Store, log: UpdateLog) -> None:
        self._store = store
        self._log = log
        self._making = threading.Lock()
        self._kept: OrderedDict[Question, Listing] = OrderedDict()

    def get(self, wanted: Mapping[str, Any]) -> Listing:
        """The games whose members are as wanted: sport, league, active."""
        question = tuple(sorted(wanted.items()))
        position = self._store.read(self._log.position)
        with self._making:
            kept = self._kept.get(question)
            if kept is None or kept.position != position:
                kept = self._kept[question] = self._make(dict(wanted))
            self._kept.move_to_end(question)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def _make(self, wanted: dict[str, Any]) -> Listing:
        position, found = self._store.read(partial(self._read, wanted=wanted))
        rows = (f'"{row.game_id}":{orjson.dumps(team_game(row)).decode()}' for row in in_turns(found))
        text = f'{{"success":true,"epoch":"{position.epoch}","seq":{position.seq},"games":{{{",".join(rows)}}}}}'
        return Listing(position, text)

    def _read(self, tx: Transaction, wanted: dict[str, Any]) -> tuple[Position, list[Any]]:
        found = tx.execute(_listed(tuple(sorted(wanted))), wanted).all()
        return self._log.position(tx), list(found)


@cache
def _listed(members: tuple[str, ...]) -> Prepared:
    """Games that have these members as asked, earliest first."""
    asked = [games.c[name] == bindparam(name) for name in members]
    return prepared(select(*COLUMNS).where(*asked).order_by(games.c.event_start_date, games.c.game_id))
