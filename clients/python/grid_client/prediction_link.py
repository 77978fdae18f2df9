"""Keeps a miner connected: one socket after the other, with pauses that grow until the node lets it in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from grid_client.backoff import Backoff
from grid_client.clock import Clock
from grid_client.errors import GridError
from grid_client.miner_identity import MinerIdentity
from grid_client.prediction_pauses import pause_after
from grid_client.prediction_socket import PredictionSocket

log = logging.getLogger(__name__)

LOOK = 0.25
"""Seconds between two ticks of a connection, and between two looks at the clock."""
SWITCHED_OFF = "websocket_disabled"


class Link:
    """Run `run` in a thread. `socket` is the open connection, or None."""

    def __init__(
        self,
        connect: Callable[[Callable[[], None]], PredictionSocket],
        miner: MinerIdentity,
        *,
        clock: Clock,
        backoff: Backoff,
        longest_pause: float,
        on_change: Callable[[bool], None],
    ) -> None:
        """`connect` makes a socket that calls back at its end; `on_change` hears whether there is an open one."""
        self._connect = connect
        self._miner = miner
        self._clock = clock
        self._backoff = backoff
        self._longest_pause = longest_pause
        self._on_change = on_change
        self._bell = threading.Event()
        self._opening: PredictionSocket | None = None
        self._socket: PredictionSocket | None = None
        self._offline_since = clock.steady()
        self.authenticated_at: float | None = None
        """Seconds since 1970."""
        self.last_error: GridError | None = None

    @property
    def socket(self) -> PredictionSocket | None:
        socket = self._socket
        return None if socket is None or socket.ended else socket

    def offline_for(self) -> float:
        """Seconds without an open socket."""
        return 0.0 if self.socket is not None else self._clock.steady() - self._offline_since

    def begin(self) -> None:
        """Time without a socket counts from here."""
        self._offline_since = self._clock.steady()

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                error = self._live(stopping)
            except GridError as refusal:
                error = refusal
            except Exception:  # the loop outlives a fault of ours
                log.exception("a connection failed")
                error = GridError("client_fault", "see the log")
            if not stopping.is_set():
                self._pause(error, stopping)

    def close(self) -> None:
        """Ends the connection that is open, or about to be."""
        if self._opening is not None:
            self._opening.close()
        self._bell.set()

    def _live(self, stopping: threading.Event) -> GridError:
        """One connection from its beginning to its end; returns why it ended. Raises GridError if it never began."""
        socket = self._opening = self._connect(self._bell.set)
        if stopping.is_set():
            return socket.reason
        socket.open()
        self._backoff.reset()
        self.authenticated_at = self._clock.now()
        self._socket = socket
        self._on_change(True)
        try:
            while not (socket.ended or stopping.is_set()):
                socket.tick()
                self._bell.wait(LOOK)
                self._bell.clear()
        finally:
            self._offline_since = self._clock.steady()
            self._socket = None
            socket.close()
            self._on_change(False)
        return socket.reason

    def _pause(self, error: GridError, stopping: threading.Event) -> None:
        pause = pause_after(error, self._backoff, self._longest_pause)
        level = logging.DEBUG if self._is_told(error) else logging.WARNING
        log.log(level, "%s; connecting again in %.1f s", self._miner.explained(error), pause)
        until = self._clock.steady() + pause
        self.last_error = error
        while (left := until - self._clock.steady()) > 0 and not stopping.wait(min(LOOK, left)):
            pass

    def _is_told(self, error: GridError) -> bool:
        """A node without sockets is no news the second time, and nothing that is missed."""
        return error.code == SWITCHED_OFF and self.last_error is not None and self.last_error.code == SWITCHED_OFF
