"""Until when predictions are sent, and what becomes of those for which it is too late."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from grid_client.clock import Clock
from grid_client.errors import ConnectionLost, GridError
from grid_client.game_feed import GameFeed
from grid_client.miner_identity import MinerIdentity
from grid_client.outbox import Ending, Entry, Outbox
from grid_client.prediction_answers import ending_by_receipt, ending_unsent
from grid_client.receipts import InvalidReceipt
from grid_client.trust import RECEIPT, Trust

GRACE = 60.0
"""Seconds after the start of its game for which a prediction is still sent: the node's clock decides, not ours."""
UNKNOWN_GAME = 24 * 3600.0
"""Seconds for which a prediction on a game that is not known is sent."""
PATIENCE = 60.0
"""Seconds for which a node that answers, but not now, is asked about an overdue prediction."""
PAGE = 100
Lookup = Callable[[str], dict[str, Any]]
"""What the node has under an id. Raises GridError, `prediction_not_found` if that is nothing."""


class Deadlines:
    def __init__(self, outbox: Outbox, miner: MinerIdentity, feed: GameFeed, trust: Trust, clock: Clock) -> None:
        self._outbox = outbox
        self._miner = miner
        self._feed = feed
        self._trust = trust
        self._clock = clock

    def of(self, prediction: dict[str, Any], otherwise: float) -> float:
        """Until when a prediction is worth sending, in seconds since 1970."""
        starts_at = self._feed.starts_at(prediction.get("game_id"))
        return otherwise if starts_at is None else starts_at + GRACE

    def in_time(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that may still be sent, by what is known of their games now; the outbox is told of each change."""
        known = {entry.number: self.of(entry.prediction, entry.deadline) for entry in entries}
        moved = {entry.number: known[entry.number] for entry in entries if known[entry.number] != entry.deadline}
        if moved:
            self._outbox.move_deadlines(moved)
        now = self._clock.now()
        return [entry for entry in entries if known[entry.number] > now]

    def overdue(self, flying: Collection[int]) -> list[Entry]:
        """Entries for which it is too late, less those (by number) whose answer is under way."""
        found = self._outbox.overdue(self._miner.node_hotkey, self._miner.outbox_name, self._clock.now(), PAGE)
        spared = {entry.number for entry in self.in_time(found)}
        return [entry for entry in found if entry.number not in spared and entry.number not in flying]

    def given_up(self) -> list[Entry]:
        """The newest entries that ended without anybody knowing how."""
        return self._outbox.unresolved(self._miner.node_hotkey, self._miner.outbox_name, PAGE)

    def endings(self, entries: Sequence[Entry], lookup: Lookup) -> Iterator[Ending]:
        """What the node says became of them. Who cannot be reached for one is not asked for the others."""
        unreachable: GridError | None = None
        for entry in entries:
            try:
                if unreachable is not None:
                    raise unreachable
                yield ending_by_receipt(entry, lookup(entry.prediction_id).get("receipt"), self._miner)
            except GridError as error:
                unreachable = error if isinstance(error, ConnectionLost) else None
                ending = self._without_receipt(entry, error)
                if ending is not None and ending.state != entry.state:
                    yield ending

    def _without_receipt(self, entry: Entry, error: GridError) -> Ending | None:
        if error.code == "prediction_not_found":
            return ending_unsent(entry, "expired", error)
        if isinstance(error, InvalidReceipt):
            self._trust.doubt(RECEIPT, error, entry.prediction_id)
        elif self._may_ask_again(entry, error):
            return None
        return ending_unsent(entry, "unresolved", error)

    def _may_ask_again(self, entry: Entry, error: GridError) -> bool:
        is_there = error.retryable and not isinstance(error, ConnectionLost)
        return is_there and self._clock.now() < entry.deadline + PATIENCE
