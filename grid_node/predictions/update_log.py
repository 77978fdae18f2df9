"""The log of changes of games: a gapless sequence that can be resumed, tailed and read as a snapshot.

An entry is written in the transaction of the change that it tells of. Its seq is counted in the one row of
`game_log`, which that transaction holds until it commits: what is below a visible seq is visible too. Entries of
other processes are seen by `poll`.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, func, insert, select, update

from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.fields import EPOCH_LENGTH
from grid_node.predictions.ports import Signer
from grid_node.predictions.snapshots import Snapshot, make_snapshot, pages
from grid_node.predictions.tables import GameLog, GameUpdate
from grid_node.predictions.updates import Position, RecentUpdates, Update, read_position
from grid_node.settings import MIB, Settings
from grid_node.statements import prepared

__all__ = ["Position", "Resumed", "Snapshot", "Update", "UpdateLog", "read_position"]

log = logging.getLogger(__name__)
rows = GameLog.__table__
entries = GameUpdate.__table__

GAMES_OF_A_DELTA = 200
MINUTE = 60.0
"""Seconds for which the window of a snapshot may lag."""
READ_AHEAD = 64
"""Entries that one read of the table takes."""
RECENT_BYTES = 32 * MIB
NOT_OPEN = Position("0" * EPOCH_LENGTH, 0)

_NEWEST = prepared(select(rows.c.epoch, rows.c.seq))
_HOLD = prepared(select(rows.c.seq).with_for_update())
_ADVANCE = prepared(update(rows).values(seq=rows.c.seq + bindparam("count")).returning(rows.c.epoch, rows.c.seq))
_RENEW = prepared(update(rows).values(epoch=bindparam("new_epoch"), seq=0))
_FIRST = prepared(insert(rows))
_INSERT = prepared(insert(entries))
_AFTER = prepared(
    select(entries.c.epoch, entries.c.seq, entries.c.at, entries.c.games)
    .where(entries.c.epoch == bindparam("epoch"), entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(bindparam("most"))
)
_HAS = prepared(
    select(entries.c.seq).where(entries.c.epoch == bindparam("epoch"), entries.c.seq == bindparam("number"))
)
_LAST_OLD = prepared(
    select(func.max(entries.c.seq)).where(entries.c.epoch == bindparam("epoch"), entries.c.at < bindparam("before"))
)
_FORGET = prepared(
    delete(entries).where((entries.c.epoch != bindparam("epoch")) | (entries.c.seq <= bindparam("upto")))
)


class Resumed(NamedTuple):
    """Whether a reader can go on where it was. If so `replayed` entries follow, up to `position`."""

    recovered: bool
    reason: str | None
    """epoch_changed, expired, ahead or too_many: then a snapshot must follow."""
    position: Position
    replayed: int


class UpdateLog:
    """The log of this node, read from memory wherever that is possible."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, signer: Signer) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._signer = signer
        most = max(settings.websocket_send_queue, settings.games_resume_max) + READ_AHEAD
        self._recent = RecentUpdates(most, RECENT_BYTES)
        self._newest = NOT_OPEN
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        self._making = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._snapshot_at = 0.0
        self._followers: list[Callable[[], None]] = []
        self.ring: Callable[[], None] = lambda: None
        """Called after a commit that appended; the node makes it ring the other processes."""

    @property
    def newest(self) -> Position:
        """The end of the log, as far as this process has seen it."""
        return self._newest

    def open(self) -> None:
        """Begin the log if there is none yet, and look where it ends."""
        self._store.write(self._begin)
        self.poll()

    # --- writing

    def hold(self, tx: Transaction) -> None:
        """From now to its end this transaction is the only one that changes games."""
        if tx.execute(_HOLD).one_or_none() is None:
            self._begin(tx)

    def append(self, tx: Transaction, games: Mapping[str, Mapping[str, Any]]) -> Position:
        """Add {game_id: what changed, as JSON data}, 200 games an entry. The position after it."""
        if not games:
            return self.position(tx)
        parts = pages(games, GAMES_OF_A_DELTA)
        newest = self._advance(tx, len(parts))
        first, at = newest.seq - len(parts) + 1, self._clock.now()
        new = [
            {"epoch": newest.epoch, "seq": seq, "at": at, "games": orjson.dumps(page).decode()}
            for seq, page in enumerate(parts, first)
        ]
        tx.execute(_INSERT, new)
        tx.on_commit(partial(self._committed, new))
        return newest

    def position(self, tx: Transaction) -> Position:
        """The end of the log as this transaction sees it."""
        row = tx.execute(_NEWEST).one_or_none()
        return NOT_OPEN if row is None else Position(row.epoch, row.seq)

    def new_epoch(self) -> Position:
        """Begin the log anew: every reader gets a snapshot. For after a backup was restored."""
        return self._store.write(self._renew)

    def purge(self, tx: Transaction, now: float) -> int:
        """Forget the oldest entries, by age and by number; how many went. What stays has no gap."""
        newest = self.position(tx)
        old = {"epoch": newest.epoch, "before": now - self._settings.games_log_max_age}
        by_age = tx.execute(_LAST_OLD, old).scalar() or 0
        upto = max(by_age, newest.seq - self._settings.games_log_max_entries)
        gone: int = tx.execute(_FORGET, {"epoch": newest.epoch, "upto": upto}).rowcount
        return gone

    def _advance(self, tx: Transaction, count: int) -> Position:
        row = tx.execute(_ADVANCE, {"count": count}).one_or_none()
        if row is None:
            self._begin(tx)
            row = tx.execute(_ADVANCE, {"count": count}).one()
        return Position(row.epoch, row.seq)

    def _begin(self, tx: Transaction) -> None:
        if tx.execute(_NEWEST).one_or_none() is None:
            tx.execute(_FIRST, {"id": 1, "epoch": self._fresh_epoch(), "seq": 0})

    def _renew(self, tx: Transaction) -> Position:
        self.hold(tx)
        position = Position(self._fresh_epoch(), 0)
        tx.execute(_RENEW, {"new_epoch": position.epoch})
        tx.execute(_FORGET, {"epoch": position.epoch, "upto": 0})
        tx.on_commit(self._renewed)
        return position

    def _fresh_epoch(self) -> str:
        return self._clock.new_id().replace("-", "")[:EPOCH_LENGTH]

    # --- following

    def follow(self, wake: Callable[[], None]) -> None:
        """From now on call `wake` whenever the log has grown. It must be quick: the writer waits for it."""
        self._followers.append(wake)

    def poll(self) -> bool:
        """Look for what other processes appended; whether there was anything."""
        with self._polling:
            position, found = self._store.read(self._news)
            moved = self._move(position, found)
        if moved:
            self._wake()
        return moved

    def _news(self, tx: Transaction) -> tuple[Position, list[Update]]:
        """The end of the log, and its newest entries that this process does not have yet."""
        position, known = self.position(tx), self._newest
        if position.epoch != known.epoch or position.seq <= known.seq:
            return position, []
        return position, self._read(tx, Position(position.epoch, max(known.seq, position.seq - READ_AHEAD)))

    def _wake(self) -> None:
        for wake in list(self._followers):
            try:
                wake()
            except Exception:
                log.exception("a follower of the update log failed")

    def _read(self, tx: Transaction, after: Position, most: int = READ_AHEAD) -> list[Update]:
        """Entries after a position, oldest first, as they are in the table."""
        found = tx.execute(_AFTER, {"epoch": after.epoch, "after": after.seq, "most": most})
        return [Update(self._signer, Position(row.epoch, row.seq), row.at, row.games) for row in found]

    def _move(self, position: Position, found: list[Update], *, polled: bool = True) -> bool:
        """Take what is new. Only a poll may say that the epoch is another one: polls come one after the other."""
        for one in found:
            self._recent.add(one)
        with self._lock:
            known = self._newest
            is_new = position.seq > known.seq if position.epoch == known.epoch else polled
            if not is_new:
                return False
            self._newest = position
            return True

    def _committed(self, new: list[dict[str, Any]]) -> None:
        """What this process has just appended goes straight into memory."""
        made = [Update(self._signer, Position(row["epoch"], row["seq"]), row["at"], row["games"]) for row in new]
        if self._move(made[-1].position, made, polled=False):
            self._wake()
        elif made[-1].position.epoch != self._newest.epoch:
            self.poll()
        self.ring()

    def _renewed(self) -> None:
        self.poll()
        self.ring()

    # --- reading

    def get(self, epoch: str, seq: int) -> Update | None:
        """The entry, or None where there is none, or none any more."""
        newest = self._newest
        if epoch != newest.epoch or not 0 < seq <= newest.seq:
            return None
        found = self._recent.get(Position(epoch, seq))
        return found if found is not None else self._load(Position(epoch, seq))

    def _load(self, position: Position) -> Update | None:
        after = Position(position.epoch, position.seq - 1)
        found = [self._recent.add(one) for one in self._store.read(lambda tx: self._read(tx, after))]
        return found[0] if found and found[0].position == position else None

    def updates(self, position: Position, limit: int) -> list[Update]:
        """At most `limit` entries after a position, oldest first, without a gap."""
        found: list[Update] = []
        for seq in range(position.seq + 1, min(position.seq + limit, self._newest.seq) + 1):
            one = self.get(position.epoch, seq)
            if one is None:
                break
            found.append(one)
        return found

    def resume(self, position: Position) -> Resumed:
        """Whether every entry after a position can be had. All of them or none: never a part."""
        if position != self._newest and self._is_beyond(position):
            self.poll()  # it may come from another process of this node
        newest = self._newest
        reason = self._obstacle(position, newest)
        return Resumed(reason is None, reason, newest, newest.seq - position.seq if reason is None else 0)

    def _is_beyond(self, position: Position) -> bool:
        return position.epoch != self._newest.epoch or position.seq > self._newest.seq

    def _obstacle(self, position: Position, newest: Position) -> str | None:
        if position.epoch != newest.epoch:
            return "epoch_changed"
        if position.seq > newest.seq:
            return "ahead"
        if newest.seq - position.seq > self._settings.games_resume_max:
            return "too_many"
        return None if self._is_whole(position, newest) else "expired"

    def _is_whole(self, after: Position, newest: Position) -> bool:
        """Entries go oldest first, so the next one stands for all."""
        wanted = range(after.seq + 1, newest.seq + 1)
        if all(self._recent.get(Position(after.epoch, seq)) is not None for seq in wanted):
            return True
        first = {"epoch": after.epoch, "number": after.seq + 1}
        return self._store.read(lambda tx: tx.execute(_HAS, first).one_or_none()) is not None

    def snapshot(self) -> Snapshot:
        """Whole games of the window around now. Made once for each position and minute."""
        with self._making:
            now = self._clock.now()
            made = self._snapshot
            if made is None or made.position != self._newest or now - self._snapshot_at >= MINUTE:
                made = self._snapshot = self._store.read(
                    lambda tx: make_snapshot(tx, self.position(tx), self._signer, now)
                )
                self._snapshot_at = now
        if made.position != self._newest:
            self.poll()
        return made
