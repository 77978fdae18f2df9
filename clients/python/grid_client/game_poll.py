"""Game updates by long poll, from the position where the socket stopped to the one where it begins again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from grid_client.backoff import Backoff
from grid_client.clock import Clock
from grid_client.errors import GridError
from grid_client.game_feed import GameFeed, InvalidUpdate, Step
from grid_client.miner_identity import MinerIdentity
from grid_client.prediction_http import PredictionHttp
from grid_client.prediction_pauses import pause_after
from grid_client.trust import UPDATE, Trust

log = logging.getLogger(__name__)

LOOK = 0.25
"""Seconds between two looks at whether polling is wanted, and at the clock."""


class GamePoll:
    """Run `run` in a thread. Polls while `is_wanted` and no socket has taken the feed over."""

    def __init__(
        self,
        http: PredictionHttp,
        miner: MinerIdentity,
        feed: GameFeed,
        trust: Trust,
        *,
        is_wanted: Callable[[], bool],
        clock: Clock,
        backoff: Backoff,
        longest_pause: float,
    ) -> None:
        self._http = http
        self._miner = miner
        self._feed = feed
        self._trust = trust
        self._is_wanted = is_wanted
        self._clock = clock
        self._backoff = backoff
        self._longest_pause = longest_pause

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(0 if self._is_polling() else LOOK):
            if not self._is_polling():
                self._feed.leave(self)
                continue
            try:
                self._take(self._http.updates(self._feed.position))
                self._backoff.reset()
            except GridError as error:
                if self._is_polling() and not stopping.is_set():
                    self._pause(error, stopping)

    def _is_polling(self) -> bool:
        return self._is_wanted() and self._feed.follow_unless(self)

    def _take(self, body: Mapping[str, Any]) -> None:
        """Raises GridError when the answer brings nobody further."""
        updates = body.get("updates") if body.get("recovered") else body.get("snapshot")
        if not isinstance(updates, list):
            raise GridError("bad_answer", "the node's answer holds no updates")
        for message in updates:
            self._apply(message)

    def _apply(self, message: object) -> None:
        try:
            step = self._feed.apply(self, message)
        except InvalidUpdate as error:
            self._trust.doubt(UPDATE, error)
            raise
        self._trust.restore(UPDATE)
        if step is Step.GAP:
            raise GridError("bad_answer", "the node left out an update")

    def _pause(self, error: GridError, stopping: threading.Event) -> None:
        pause = pause_after(error, self._backoff, self._longest_pause)
        log.warning("game updates: %s; asking again in %.1f s", self._miner.explained(error), pause)
        until = self._clock.steady() + pause
        while (left := until - self._clock.steady()) > 0 and not stopping.wait(min(LOOK, left)):
            pass
