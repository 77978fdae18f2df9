"""One Engine.IO session: what comes in is checked and counted, what goes out takes the shortest way."""

from __future__ import annotations

import logging
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any, Protocol

from engineio import exceptions, packet
from engineio.socket import Socket

from grid_node.wire.frames import BINARY, INTERNAL, POLICY, TEXT, Message
from grid_node.wire.handshake import Environ, HandshakeError, end_response
from grid_node.wire.limits import WireLimits
from grid_node.wire.outbox import ConnectionClosed
from grid_node.wire.websocket import WebSocket

log = logging.getLogger(__name__)

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
TURN = 64
"""Messages of one socket that are taken up before others get their turn."""
PACKETS_PER_POST = 16
"""Packets in one polling body, as python-engineio has it."""

StartResponse = Callable[..., Any]


class ProtocolViolation(Exception):
    """A message that is no Engine.IO or Socket.IO packet: a strike against its sender."""


class SessionHost(Protocol):
    """What a session needs of its engine."""

    limits: WireLimits
    handlers: dict[str, Callable[..., Any]]
    reason: Any
    violated: Callable[[str, int], None]

    def accept(self, environ: Environ, session: WireSocket) -> WebSocket: ...
    def forget(self, session: WireSocket) -> None: ...
    def schedule_ping(self, session: WireSocket) -> None: ...
    def count(self, what: str) -> None: ...
    def count_close(self, end: ConnectionClosed) -> None: ...
    def create_queue(self) -> Any: ...
    def _bad_request(self, message: str) -> dict[str, Any]: ...
    def _trigger_event(self, event: str, *args: Any, run_async: bool) -> Any: ...


class WireSocket(Socket):
    """One Engine.IO session. Its writes go straight to the WebSocket once there is one."""

    __slots__ = (
        "_queue",
        "_queued_bytes",
        "closed",
        "closing",
        "connected",
        "in_flight",
        "joined",
        "last_ping",
        "max_bytes",
        "server",
        "session",
        "sid",
        "strikes",
        "upgraded",
        "upgrading",
        "ws",
    )

    def __init__(self, server: SessionHost, sid: str) -> None:
        # Not super().__init__(): it would make a queue, which only polling sessions need.
        self.server = server
        self.sid = sid
        self.ws: WebSocket | None = None
        self._queue: Any = None
        self._queued_bytes = 0
        self.last_ping: float | None = None
        self.connected = self.upgrading = self.upgraded = False
        self.closing = self.closed = self.joined = False
        self.max_bytes = server.limits.handshake_bytes
        """Of one message from the peer; above it the connection ends."""
        self.session: dict[str, Any] = {}
        self.in_flight = 0
        self.strikes = 0

    @property
    def queue(self) -> Any:
        if self._queue is None:
            self._queue = self.server.create_queue()
        return self._queue

    # Sending

    def send(self, pkt: Any) -> None:
        """Send one Engine.IO packet; raises SocketIsClosedError."""
        if self.closed:
            raise exceptions.SocketIsClosedError
        if self.ws is None:
            self._enqueue(pkt)
            return
        encoded = pkt.encode()
        if isinstance(encoded, str):
            self._write(TEXT, encoded.encode())
        else:
            self._write(BINARY, encoded)

    def send_text(self, text: str) -> None:
        """Send one Socket.IO packet that needs no attachment."""
        if self.ws is not None:
            self._write(TEXT, (MESSAGE + text).encode())
        elif not self.closed:
            self._enqueue(packet.Packet(packet.MESSAGE, text))

    def send_with_attachment(self, text: str, attachment: bytes) -> None:
        """Send one Socket.IO packet that has one attachment: nothing of another task comes between the two."""
        if self.ws is None:
            if not self.closed:
                self._enqueue(packet.Packet(packet.MESSAGE, text))
                self._enqueue(packet.Packet(packet.MESSAGE, attachment))
            return
        try:
            self.ws.send_joined((TEXT, (MESSAGE + text).encode()), (BINARY, attachment))
        except ConnectionClosed:
            pass  # the reader sees it too, and cleans up

    def _write(self, opcode: int, payload: bytes) -> None:
        try:
            self.ws.send_data(opcode, payload)  # type: ignore[union-attr]
        except ConnectionClosed:
            pass  # the reader sees it too, and cleans up

    def _enqueue(self, pkt: Any) -> None:
        limits = self.server.limits
        self._queued_bytes += len(pkt.data) if isinstance(pkt.data, str | bytes) else 0
        if self._queued_bytes > limits.backlog_bytes or self.queue.qsize() >= limits.backlog_items:
            self.server.count("slow_reader")
            self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)
            return
        self.queue.put(pkt)

    def poll(self) -> list[Any]:
        packets: list[Any] = super().poll()
        self._queued_bytes = 0
        return packets

    # Receiving

    def allow(self, max_bytes: int) -> None:
        """Take messages of up to so many bytes from now on; who may send larger ones already still may."""
        if max_bytes > self.max_bytes:
            self.max_bytes = max_bytes
            if self.ws is not None:
                self.ws.limit_messages(max_bytes)

    def violated(self, code: int) -> None:
        """The connection is about to end with this close code, for what its peer has sent."""
        try:
            self.server.violated(self.sid, code)
        except Exception:
            log.exception("the end of a connection could not be told")

    def receive_encoded(self, message: Message) -> None:
        """Take one encoded Engine.IO packet; raises ProtocolViolation."""
        if type(message) is bytes:
            self.server.handlers["message"](self.sid, message)
            return
        kind = message[:1]
        if kind == MESSAGE:
            self.server.handlers["message"](self.sid, message[1:])
        elif kind == PONG:
            self.pong()
        elif kind == CLOSE:
            self.close(wait=False, abort=True, reason=self.server.reason.CLIENT_DISCONNECT)
        elif kind == UPGRADE and message == UPGRADE:
            self.send(packet.Packet(packet.NOOP))
        else:
            raise ProtocolViolation("unknown Engine.IO packet")

    def handle_post_request(self, environ: Environ) -> None:
        """Take the body of one polling POST; raises EngineIOError (400) for anything that is no payload."""
        limit = self.max_bytes
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            if not 0 <= length <= limit:
                raise exceptions.ContentTooLongError
            encoded = environ["wsgi.input"].read(length).decode().split("\x1e")
            messages = [b64decode(item[1:], validate=True) if item[:1] == "b" else item for item in encoded]
        except (ValueError, OSError):
            raise exceptions.EngineIOError("body is not a payload") from None
        if len(messages) > PACKETS_PER_POST:
            raise exceptions.EngineIOError("too many packets")
        for message in messages:
            self._receive_guarded(message)

    def _receive_guarded(self, message: Message) -> None:
        """One packet at the boundary: violations are counted, and no exception of ours takes the reader down."""
        try:
            self.receive_encoded(message)
        except ProtocolViolation as violation:
            self.strike(str(violation))
        except exceptions.SocketIsClosedError:
            pass
        except Exception:
            log.exception("Engine.IO packet failed")
            self.cut(INTERNAL, "Internal Server Error")

    def strike(self, why: str) -> None:
        """Count a malformed message; too many of them end the session."""
        self.strikes += 1
        self.server.count("malformed")
        if self.strikes >= self.server.limits.strikes:
            self.cut(POLICY, why)

    def ping(self) -> None:
        if self.ws is not None:
            self._write(TEXT, PING.encode())
        else:
            self._enqueue(packet.Packet(packet.PING))

    def pong(self) -> None:
        if self.last_ping is not None:  # one answer buys one more round, however many are sent
            self.last_ping = None
            self.server.schedule_ping(self)

    def schedule_ping(self) -> None:
        self.server.schedule_ping(self)

    def check_ping_timeout(self) -> bool:
        """Whether the session lives: the deadline itself is kept by the engine's one timer task."""
        if self.closed:
            raise exceptions.SocketIsClosedError
        return True

    # The WebSocket

    def serve(self, ws: WebSocket) -> None:
        """Read until the connection ends, then clean the session up."""
        try:
            while not self.closed:
                self._take(ws, ws.recv_batch())
        except ConnectionClosed as end:
            self.server.count_close(end)
        finally:
            self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
            ws.let_go()

    def _take(self, ws: WebSocket, batch: list[Message]) -> None:
        if len(batch) == 1:
            self._receive_guarded(batch[0])
            return
        for start in range(0, len(batch), TURN):
            if start:
                time.sleep(0)
            self._take_some(ws, batch[start : start + TURN])

    def _take_some(self, ws: WebSocket, batch: list[Message]) -> None:
        ws.cork()
        try:
            for message in batch:
                if self.closed or ws.closed is not None:
                    break  # cut by one of the messages before
                self._receive_guarded(message)
        finally:
            uncork(ws)

    def _upgrade_websocket(self, environ: Environ, start_response: StartResponse) -> Any:
        """Move a polling session to a WebSocket: probe, probe, upgrade; a failed try leaves polling as it was."""
        if self.upgraded or self.upgrading:
            return self.server._bad_request("Already upgraded")
        try:
            ws = self.server.accept(environ, self)
        except HandshakeError as error:
            return self.server._bad_request(str(error))
        self.upgrading = True
        try:
            moved = self._probe(ws)
        except (ConnectionClosed, TimeoutError):
            moved = False
        self.upgrading = False
        if moved:
            self._move_queue(ws)
            self.serve(ws)
        else:
            ws.close(POLICY, "upgrade failed")
        return end_response(environ)

    def _probe(self, ws: WebSocket) -> bool:
        timeout = self.server.limits.join_seconds
        if ws.recv(timeout) != PING + "probe":
            return False
        ws.send_text(PONG + "probe")
        self.queue.put(packet.Packet(packet.NOOP))  # ends the poll that hangs
        return ws.recv(timeout) == UPGRADE and not self.closed

    def _move_queue(self, ws: WebSocket) -> None:
        """What waited for a poll goes out first; a second look catches what another thread put in meanwhile."""
        self.upgraded = True
        for _ in range(2):
            while not self.queue.empty():
                pkt = self.queue.get(block=False)
                if pkt is not None and pkt.packet_type != packet.NOOP:
                    encoded = pkt.encode()
                    binary = isinstance(encoded, bytes)
                    ws.send_data(BINARY if binary else TEXT, encoded if binary else encoded.encode())
            self.ws = ws
        ws.limit_messages(self.max_bytes)  # it may have joined while it moved

    # Ending

    def cut(self, code: int, why: str) -> None:
        """End the session with a close code, or at once where the peer does not read anyway."""
        if self.ws is not None:
            self.ws.abort() if self.ws.backlogged else self.ws.close(code, why)
        else:
            self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)

    def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the session: tell the application, then the peer (unless `abort`), then let go of the connection."""
        if self.closed or self.closing:
            return
        self.closing = True
        self.server._trigger_event(
            "disconnect", self.sid, reason or self.server.reason.SERVER_DISCONNECT, run_async=False
        )
        if not abort:
            self.send(packet.Packet(packet.CLOSE))
        self.closed = True
        self.server.forget(self)
        if self.ws is None:
            self.queue.put(None)
        elif self.ws.backlogged:
            self.ws.abort()  # nobody waits for a reader that does not read
        else:
            self.ws.close()


def uncork(ws: WebSocket) -> None:
    try:
        ws.uncork()
    except ConnectionClosed:
        pass  # the next read says so
