"""Engine.IO on our WebSocket: no writer thread, no ping thread and no queue for each session.

python-engineio keeps two tasks and an unbounded queue a session, plus a sleeping one for the next ping. Here a packet
goes to the kernel in the task that sends it, and one task of the process keeps all deadlines. Long polling stays
python-engineio's, with its queue bounded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import engineio
from engineio import packet

from grid_node.wire.frames import GOING_AWAY
from grid_node.wire.handshake import Environ, HandshakeError, end_response
from grid_node.wire.limits import WireLimits
from grid_node.wire.outbox import STALLED, TOO_SLOW, ConnectionClosed
from grid_node.wire.session import StartResponse, WireSocket
from grid_node.wire.websocket import WebSocket

log = logging.getLogger(__name__)


class Deadlines:
    """Items that fall due a fixed time after they were added, so that the queue is in order by itself."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._queue: deque[tuple[float, Any]] = deque()

    def add(self, now: float, item: Any) -> None:
        self._queue.append((now + self.seconds, item))

    def due(self, now: float) -> list[Any]:
        items = []
        while self._queue and self._queue[0][0] <= now:
            items.append(self._queue.popleft()[1])
        return items


class WireEngine(engineio.Server):
    """engineio.Server with limits on sessions, one timer task, and our WebSocket in place of the driver's."""

    def __init__(self, *, limits: WireLimits, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        super().__init__(max_http_buffer_size=limits.transport_bytes, **options)
        self.limits = limits
        self.start_service_task = True
        self.clock = clock
        self.pending = 0
        self.counts: dict[str, int] = {}
        self.violated: Callable[[str, int], None] = _nothing
        """Told the id of a session and the close code before the connection ends for what its peer has sent."""
        self._pings = Deadlines(self.ping_interval)
        self._pongs = Deadlines(self.ping_timeout)
        self._joins = Deadlines(limits.join_seconds)

    def count(self, what: str) -> None:
        """One more of what went wrong; the names are ours, so the table stays small."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def count_close(self, end: ConnectionClosed) -> None:
        if end.reason in (TOO_SLOW, STALLED):
            self.count("slow_reader")
        elif end.code not in (1000, 1001, 1005):
            self.count(f"close_{end.code}" if end.code < 3000 else "close_application")

    def accept(self, environ: Environ, session: WireSocket) -> WebSocket:
        limits = self.limits
        return WebSocket.accept(
            environ,
            max_bytes=session.max_bytes,
            violated=session.violated,
            stall_seconds=limits.stall_seconds,
            backlog_bytes=limits.backlog_bytes,
            backlog_items=limits.backlog_items,
            spawn=self.start_background_task,
        )

    def mark_joined(self, session: WireSocket, max_bytes: int | None = None) -> None:
        """The session has joined a namespace: its messages may have `max_bytes`, and it counts as pending no more."""
        if session.closed:
            return
        session.allow(self.limits.transport_bytes if max_bytes is None else max_bytes)
        if not session.joined:
            session.joined = True
            self.pending -= 1

    def mark_left(self, session: WireSocket) -> None:
        """The session has left its last namespace: it counts as pending again, and has as long to join another one."""
        if session.joined and not session.closed:
            session.joined = False
            self.pending += 1
            self._joins.add(self.clock(), session)

    # Connecting

    def _handle_connect(
        self, environ: Environ, start_response: StartResponse, transport: str, jsonp_index: int | None = None
    ) -> Any:
        if len(self.sockets) >= self.limits.connections or self.pending >= self.limits.pending:
            self.count("refused_full")
            return service_unavailable()
        if self.start_service_task:
            self.start_service_task = False
            self.service_task_handle = self.start_background_task(self._service_task)
        session = WireSocket(self, self.generate_id())
        if transport == "websocket":
            return self._connect_websocket(session, environ)
        return self._connect_polling(session, environ, jsonp_index)

    def _connect_polling(self, session: WireSocket, environ: Environ, jsonp_index: int | None) -> Any:
        self._admit(session, environ)
        session.connected = True
        session.send(self._open_packet(session, "polling"))
        return self._ok(session.poll(), jsonp_index=jsonp_index)

    def _connect_websocket(self, session: WireSocket, environ: Environ) -> Any:
        try:
            session.ws = self.accept(environ, session)
        except HandshakeError as error:
            return self._bad_request(str(error))
        session.connected = session.upgraded = True
        self._admit(session, environ)
        session.send(self._open_packet(session, "websocket"))
        session.serve(session.ws)
        return end_response(environ)

    def _admit(self, session: WireSocket, environ: Environ) -> None:
        self.sockets[session.sid] = session
        self.pending += 1
        now = self.clock()
        self._joins.add(now, session)
        self._pings.add(now, session)
        self._trigger_event("connect", session.sid, environ, run_async=False)

    def _open_packet(self, session: WireSocket, transport: str) -> Any:
        interval = self.ping_interval + self.ping_interval_grace_period
        data = {
            "sid": session.sid,
            "upgrades": self._upgrades(session.sid, transport),
            "pingTimeout": int(self.ping_timeout * 1000),
            "pingInterval": int(interval * 1000),
            "maxPayload": self.max_http_buffer_size,
        }
        return packet.Packet(packet.OPEN, data)

    def forget(self, session: WireSocket) -> None:
        """Called when a session has ended, whatever ended it."""
        if self.sockets.pop(session.sid, None) is not None and not session.joined:
            self.pending -= 1

    def close_all(self, code: int = GOING_AWAY, reason: str = "Server Shutdown") -> None:
        """End every session, as on SIGTERM, each in its own task; the sessions' readers do their own cleaning up."""
        for session in list(self.sockets.values()):
            self.start_background_task(session.cut, code, reason)

    # Deadlines

    def schedule_ping(self, session: WireSocket) -> None:
        self._pings.add(self.clock(), session)

    def _service_task(self) -> None:
        """The one timer of all sessions: pings, missing pongs, and transports that join nothing."""
        self.service_task_event = self.create_event()
        shortest = min(self.ping_interval, self.ping_timeout, self.limits.join_seconds)
        while not self.service_task_event.wait(timeout=min(1.0, shortest / 4)):
            try:
                self.keep_deadlines(self.clock())
            except Exception:
                log.exception("Engine.IO timer failed")

    def keep_deadlines(self, now: float) -> None:
        """Send the pings that are due at `now`, and cut the sessions whose deadline has passed."""
        for session in self._pings.due(now):
            if not session.closed:
                session.last_ping = now
                self._pongs.add(now, (session, now))
                session.ping()
        for session, sent_at in self._pongs.due(now):
            if session.last_ping == sent_at and not session.closed:
                self._expire(session, "ping_timeout")
        for session in self._joins.due(now):
            if not session.joined and not session.closed:
                self._expire(session, "join_timeout")

    def _expire(self, session: WireSocket, why: str) -> None:
        """Only wake the session's reader where there is one: the application's disconnect may take its time."""
        self.count(why)
        if session.ws is not None:
            session.ws.abort()
        else:
            self.start_background_task(session.close, wait=False, abort=True, reason=self.reason.PING_TIMEOUT)


def _nothing(_sid: str, _code: int) -> None:
    pass


def service_unavailable() -> dict[str, Any]:
    headers = [("Content-Type", "text/plain"), ("Retry-After", "5")]
    return {"status": "503 SERVICE UNAVAILABLE", "headers": headers, "response": b"Too many connections"}
