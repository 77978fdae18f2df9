"""Requests that wait for the next update of games: how many may, and what ends their wait."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from grid_node.errors import Overloaded
from grid_node.http.peer import watched_peer

OF_ONE = 2
"""Requests of one reader that may wait at a time."""


class Followed(Protocol):
    """Something that grows, and tells of it."""

    def follow(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each growth, for ever."""


class GamePolls:
    """The waiting requests of this process."""

    def __init__(self, followed: Followed, most: int) -> None:
        self._most = most
        self._waiting: set[Poll] = set()
        self._of: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = False
        followed.follow(self._wake)

    @contextmanager
    def poll(self, reader: str, environ: Mapping[str, Any], seconds: float) -> Iterator["Poll"]:
        """A wait of at most so many seconds, which ends with the node and when the peer leaves. Raises Overloaded."""
        poll = Poll(seconds)
        self._begin(reader, poll)
        try:
            with watched_peer(environ, poll.end):
                yield poll
        finally:
            self._end(reader, poll)

    def shut_down(self) -> None:
        """End every wait, and each that would begin."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for poll in waiting:
            poll.end()

    def __len__(self) -> int:
        return len(self._waiting)

    def _begin(self, reader: str, poll: "Poll") -> None:
        with self._lock:
            if len(self._waiting) >= self._most or self._of[reader] >= OF_ONE:
                raise Overloaded("Too many requests wait for updates", retry_after=1)
            self._of[reader] += 1
            self._waiting.add(poll)
            if self._closed:
                poll.end()

    def _end(self, reader: str, poll: "Poll") -> None:
        with self._lock:
            self._waiting.discard(poll)
            self._of[reader] -= 1
            if not self._of[reader]:
                del self._of[reader]

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for poll in waiting:
            poll.wake()


class Poll:
    """One waiting request."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._bell = threading.Event()
        self._over = False

    def wake(self) -> None:
        self._bell.set()

    def end(self) -> None:
        self._over = True
        self._bell.set()

    def rings(self) -> bool:
        """Wait for a ring; False once nothing more is waited for. A ring that came since the last call counts."""
        left = self._until - time.monotonic()
        if self._over or left <= 0:
            return False
        self._bell.wait(left)
        self._bell.clear()
        return True
