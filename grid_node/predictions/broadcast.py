"""Who follows the games, and how far each one is. Knows no transport: a follower brings its own `send`.

The update log is the queue of everybody: a follower is a cursor into it and a window, so one that does not read costs
no more than one that does.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum

from grid_node.clock import Clock
from grid_node.errors import GridError
from grid_node.predictions.turns import in_turns
from grid_node.predictions.update_log import Position, Update, UpdateLog
from grid_node.settings import Settings

log = logging.getLogger(__name__)


class Place(Enum):
    """What a follower gets next."""

    PAUSED = "nothing, until it is told from where"
    SNAPSHOT = "a snapshot, as soon as one can be read"
    LIVE = "the update after the last one sent"
    GONE = "nothing any more"


class Follower:
    """One reader of the log.

    `send` hands one update to the transport and never waits; False: there is no room for it now. What is not sent
    stays in the log, so that nothing else of this reader has to wait behind it.
    """

    __slots__ = ("acked", "epoch", "lock", "parts", "place", "send", "sent", "since")

    def __init__(self, send: Callable[[Update], bool]) -> None:
        self.send = send
        self.lock = threading.RLock()
        """Reentrant: a transport that is full may end its connection, and so make the reader leave, within `send`."""
        self.place = Place.PAUSED
        self.epoch = ""
        self.parts: list[Update] = []
        """What is left to send of a snapshot, last part first."""
        self.sent = 0
        """Seq of the newest update handed to the transport."""
        self.acked = 0
        """Seq up to which the reader has everything; each part of a snapshot counts as one before its seq."""
        self.since = 0.0
        """When it last acknowledged something, or was first sent something after having acknowledged all."""

    def begin(self, position: Position, parts: list[Update], now: float) -> None:
        """Send the parts of a snapshot and then what follows `position`. Holds the lock."""
        self.place = Place.LIVE
        self.parts = parts[::-1]
        self.epoch, self.sent = position
        self.acked = self.sent - len(parts)
        self.since = now

    def advance(self, update: Update, now: float) -> bool:
        """Send the update that comes next; False when it did not go. Holds the lock."""
        if not self.send(update):
            return False
        if self.parts:
            self.parts.pop()
            self.since = now
        else:
            self.since = now if self.sent == self.acked else self.since
            self.sent += 1
        return True


class Broadcast:
    """Brings every update of the log to every follower, once and in order. All methods may be called from anywhere."""

    def __init__(
        self,
        updates: UpdateLog,
        clock: Clock,
        settings: Settings,
        observe: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`observe` hears the seconds from news in the log to the last follower."""
        self.news = threading.Event()
        """Set when `serve` has something to do."""
        self._updates = updates
        self._clock = clock
        self._window = settings.websocket_send_window
        self._queue = settings.websocket_send_queue
        self._slow_timeout = settings.websocket_slow_timeout
        self._observe = observe
        self._followers: set[Follower] = set()
        self._served = updates.newest
        self._rang_at: float | None = None
        updates.follow(self.wake)

    def __len__(self) -> int:
        return len(self._followers)

    # Followers

    def join(self, follower: Follower, after: Position | None) -> None:
        """Send what follows `after` from now on; None: a snapshot first. For one that follows already: from there."""
        with follower.lock:
            if follower.place is Place.GONE:
                return
            if after is None:
                follower.place = Place.SNAPSHOT
            else:
                follower.begin(after, [], self._clock.steady())
            self._followers.add(follower)
        self._advance(follower)

    def pause(self, follower: Follower) -> None:
        """When this returns, nothing more is sent until the next `join`."""
        with follower.lock:
            if follower.place is not Place.GONE:
                follower.place = Place.PAUSED

    def leave(self, follower: Follower) -> None:
        with follower.lock:
            follower.place = Place.GONE
            self._followers.discard(follower)

    def acknowledge(self, follower: Follower, position: Position) -> None:
        """The reader has everything up to `position`. One of another epoch, or beyond the log, says nothing."""
        with follower.lock:
            known = self._updates.newest
            if follower.place is not Place.LIVE or not position.epoch == follower.epoch == known.epoch:
                return
            if not follower.acked < position.seq <= known.seq:
                return
            follower.acked = position.seq
            follower.sent = max(follower.sent, position.seq)  # it may have come by another way
            follower.since = self._clock.steady()
        self._advance(follower)

    def is_slow(self, follower: Follower) -> bool:
        """Whether it is further behind than the queue, or acknowledges nothing in time."""
        if follower.place is not Place.LIVE:
            return False
        newest = self._updates.newest
        if newest.epoch == follower.epoch and newest.seq - follower.sent > self._queue:
            return True
        return follower.sent > follower.acked and self._clock.steady() - follower.since > self._slow_timeout

    # Updates

    def wake(self) -> None:
        """There is news in the log. Never waits."""
        if self._rang_at is None:
            self._rang_at = time.perf_counter()
        self.news.set()

    def serve(self) -> bool:
        """Send to everybody what is there for them; True if the log had news."""
        self.news.clear()
        rang_at, self._rang_at = self._rang_at, None
        before, self._served = self._served, self._updates.newest
        for follower in in_turns(list(self._followers)):
            self._advance(follower)
        had_news = self._served != before
        if had_news and rang_at is not None:
            self._observe(time.perf_counter() - rang_at)
        return had_news

    def _advance(self, follower: Follower) -> None:
        """Send one follower what its window has room for."""
        if follower.place is not Place.SNAPSHOT:
            self._push(follower)
        if follower.place is Place.SNAPSHOT:
            self._send_snapshot(follower)
            self._push(follower)

    def _push(self, follower: Follower) -> None:
        with follower.lock:
            while follower.place is Place.LIVE and (update := self._next(follower)) is not None:
                if not follower.advance(update, self._clock.steady()):
                    return  # the next round tries again

    def _next(self, follower: Follower) -> Update | None:
        try:
            return self._find_next(follower)
        except GridError as error:
            log.debug("no update for a miner: %s", error.code)  # the next round tries again
            return None

    def _find_next(self, follower: Follower) -> Update | None:
        """The update after the last one sent, if it may be sent now. Holds the follower's lock."""
        if follower.parts:
            return follower.parts[-1]
        newest = self._updates.newest
        if follower.epoch == newest.epoch:
            if follower.sent >= newest.seq or follower.sent - follower.acked >= self._window:
                return None
            update = self._updates.get(follower.epoch, follower.sent + 1)
            if update is not None:
                return update
        follower.place = Place.SNAPSHOT  # another log, or one that has forgotten what is missing
        return None

    def _send_snapshot(self, follower: Follower) -> None:
        try:
            snapshot = self._updates.snapshot()
        except GridError as error:
            log.debug("no snapshot for a miner: %s", error.code)  # the next round tries again
            return
        with follower.lock:
            if follower.place is Place.SNAPSHOT:
                follower.begin(snapshot.position, snapshot.parts, self._clock.steady())
