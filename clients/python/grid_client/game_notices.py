"""Tells a miner's own code of game updates, in their order, in a thread that may take its time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from grid_client.game_feed import GameFeed, GameUpdate, Position

log = logging.getLogger(__name__)

WAITING = 1000
"""Updates that wait for slow code. Beyond it, it gets the state instead of the steps: one snapshot."""
Listener = Callable[[GameUpdate], object]


class GameNotices:
    """Run `run` in a thread."""

    def __init__(self) -> None:
        self._last: Position | None = None
        self._listeners: list[Listener] = []
        self._waiting: deque[GameUpdate] = deque()
        self._has_lost = False
        self._news = threading.Condition()

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def put(self, update: GameUpdate) -> None:
        """Never waits."""
        with self._news:
            if len(self._waiting) >= WAITING:
                self._waiting.clear()
                self._has_lost = True
            if not self._has_lost:
                self._waiting.append(update)
            self._news.notify()

    def run(self, feed: GameFeed, stopping: threading.Event) -> None:
        while not stopping.is_set():
            update = self._next(stopping) or feed.whole()
            if update is not None and not stopping.is_set() and not self._is_told(update):
                self._tell(update)

    def _is_told(self, update: GameUpdate) -> bool:
        """A snapshot that stood in for lost steps held this one too."""
        last, position = self._last, update.position
        is_old = last is not None and last.epoch == position.epoch and position.seq <= last.seq
        return is_old and update.kind == "delta"

    def _tell(self, update: GameUpdate) -> None:
        self._last = update.position
        for listener in list(self._listeners):
            try:
                listener(update)
            except Exception:  # foreign code: one bad listener must not end the news
                log.exception("a listener of game updates failed")

    def wake(self) -> None:
        with self._news:
            self._news.notify_all()

    def _next(self, stopping: threading.Event) -> GameUpdate | None:
        """Blocks; None when the client stops, or when steps were lost and the state is wanted instead."""
        with self._news:
            while not (self._waiting or self._has_lost or stopping.is_set()):
                self._news.wait()
            if self._has_lost or stopping.is_set():
                self._has_lost = False
                return None
            return self._waiting.popleft()
