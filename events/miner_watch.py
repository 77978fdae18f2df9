"""What goes on beside the events of `/predictions`: games to all, heartbeats, deadlines, and how sockets end."""

import json
import logging
import threading
from typing import Any

from events.miners import MinerSession, MinerSessions, State
from events.publisher import (
    AUTH_TIMEOUT,
    BLACKLISTED,
    DEREGISTERED,
    PAYLOAD_TOO_LARGE,
    SHUTDOWN,
    SLOW_CONSUMER,
    STALE,
    Publisher,
)
from grid_node.errors import Blacklisted, GridError, NotAuthenticated, NotRegistered
from grid_node.predictions.broadcast import Broadcast
from grid_node.predictions.ports import Miner
from grid_node.predictions.update_log import Update
from grid_node.services import Services
from grid_node.wire.frames import TOO_BIG
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between two looks at every socket."""
YIELD_EACH = 32
"""Hotkeys that are looked up before others get their turn."""


class MinerWatch:
    """One task for all sockets, from the first of them on."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher, sessions: MinerSessions) -> None:
        self._settings = services.settings
        self._clock = services.clock
        self._metrics = services.metrics
        self._predicting = services.predicting
        self._server = server
        self._publisher = publisher
        self._sessions = sessions
        self.broadcast = Broadcast(
            services.predicting.log, services.clock, services.settings, services.metrics.broadcast.observe
        )
        self._starting = threading.Lock()
        self._is_running = False

    def start(self) -> None:
        with self._starting:
            starts, self._is_running = not self._is_running, True
        if starts:
            self._server.start_background_task(self._run)

    def _run(self) -> None:
        looked_at = self._clock.steady()
        while True:
            self.broadcast.news.wait(TICK)
            try:
                if self.broadcast.serve() and len(self.broadcast):
                    log.info("Broadcasting game updates to connected miners")
                if self._clock.steady() - looked_at >= TICK:
                    looked_at = self._clock.steady()
                    self.tick()
            except Exception:
                log.exception("miners' sockets could not be tended")

    def tick(self) -> None:
        """Look at every socket: heartbeats that are due, and deadlines that have passed."""
        now, interval = self._clock.steady(), self._settings.websocket_heartbeat_interval
        heartbeat = json.dumps(self.heartbeat(), separators=(",", ":"))
        for session in self._sessions.all():
            over = self._deadline(session, now)
            if over is not None:
                self.close(session, over)
            elif session.state is State.OPEN and now >= session.heartbeat_at:
                session.heartbeat_at = now + interval
                self._publisher.heartbeat(session.sid, heartbeat)
        self._measure()

    def _deadline(self, session: MinerSession, now: float) -> dict[str, Any] | None:
        if session.state is State.PENDING:
            waited = now - session.connected_at
            return AUTH_TIMEOUT if waited >= self._settings.websocket_auth_timeout else None
        if now - session.heard_at >= self._settings.websocket_connection_timeout:
            return STALE
        return SLOW_CONSUMER if self.broadcast.is_slow(session.follower) else None

    def heartbeat(self) -> dict[str, Any]:
        """The node's HeartbeatMessage: unsigned, the same for all."""
        newest = self._predicting.log.newest
        return {**self._predicting.signer.base_fields("heartbeat"), "epoch": newest.epoch, "seq": newest.seq}

    def heard(self, sid: str) -> None:
        """A packet came from this socket."""
        session = self._sessions.get(sid)
        if session is not None:
            session.heard_at = self._clock.steady()

    def violated(self, sid: str, code: int) -> None:
        """The transport of this socket ends with this close code."""
        session = self._sessions.get(sid)
        if session is not None and code == TOO_BIG:
            self.close(session, PAYLOAD_TOO_LARGE)

    def send_update(self, sid: str, update: Update) -> bool:
        """False when there is no room for it now."""
        session = self._sessions.get(sid)
        if session is None:
            return True
        large = update.canonical_size >= self._settings.games_compress_min_bytes
        return self._publisher.game_update(sid, session.compressed and large, update)

    # --- ending -----------------------------------------------------------------------------------------------

    def close(self, session: MinerSession, closing: dict[str, Any]) -> None:
        """Say why, and end the connection; the first reason counts."""
        if self.forget(session):
            self._metrics.miner_sockets_closed.labels(closing["code"]).inc()
            self._publisher.hang_up(session.sid, closing)

    def forget(self, session: MinerSession) -> bool:
        """False when it is forgotten already."""
        if not self._sessions.remove(session):
            return False
        self.broadcast.leave(session.follower)
        return True

    def recheck(self) -> None:
        """End the sockets of hotkeys that may no longer be here; where that is not known now they stay."""
        for number, (session, miner) in enumerate(self._sessions.with_miners(), 1):
            if miner.public_key is not None:
                self._recheck(session, miner.public_key)
            if number % YIELD_EACH == 0:
                self._server.sleep(0)

    def _recheck(self, session: MinerSession, public_key: bytes) -> None:
        try:
            self._predicting.registry.admit(public_key)
        except (NotRegistered, Blacklisted) as error:
            session.refusal = error
            self.close(session, BLACKLISTED if isinstance(error, Blacklisted) else DEREGISTERED)
        except GridError:
            return

    def keys(self) -> set[str]:
        """Ids of the API keys by which miners of a private grid came in."""
        miners = [miner for _, miner in self._sessions.with_miners()]
        return {miner.identity.removeprefix("key:") for miner in miners if miner.public_key is None}

    def drop_key(self, key_id: str, closing: dict[str, Any]) -> None:
        holder = Miner.of_key(key_id).identity
        for session, miner in self._sessions.with_miners():
            if miner.identity == holder:
                session.refusal = NotAuthenticated(closing["error"])
                self.close(session, closing)

    def shut_down(self) -> None:
        for session in self._sessions.all():
            self.close(session, SHUTDOWN)

    # --- counting ---------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """`connections`, those of them that were `active` in the last two heartbeats, and `pending` ones."""
        return self._sessions.counts(self._clock.steady() - 2 * self._settings.websocket_heartbeat_interval)

    def _measure(self) -> None:
        counts = self.counts()
        self._metrics.miner_sockets.labels("open").set(counts["connections"])
        self._metrics.miner_sockets.labels("pending").set(counts["pending"])
