"""Server side of RFC 6455: one connection with a limit on everything that its peer can make us hold.

One reader, any number of writers. A write goes straight to the kernel; only what the kernel does not take waits in a
bounded backlog that a flusher drains, so a connection needs neither a writer thread nor a queue of its own.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from grid_node.wire.frames import (
    ABNORMAL,
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    NORMAL,
    PING,
    PONG,
    TEXT,
    ControlFrame,
    FrameError,
    FrameReader,
    Message,
    close_payload,
    frame_header,
    parse_close,
)
from grid_node.wire.handshake import Environ, check_upgrade, early_bytes, raw_socket, switching_protocols
from grid_node.wire.outbox import ConnectionClosed, Outbox, Spawn, wait_until

CHUNK = 64 * 1024
READS = 8
"""Reads of one message each after which others get their turn."""
DRAIN_SECONDS = 2.0
DRAIN_BYTES = 64 * 1024 * 1024

Clock = Callable[[], float]


def start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, daemon=True).start()


class WebSocket:
    """One open connection. `recv` belongs to one reader; every other method may be called from anywhere.

    `stall_seconds`: a peer that takes no byte for so long is cut. `backlog_bytes` and `backlog_items` bound what waits
    for it. `ping_seconds`: `recv` sends a ping after so much silence and gives up after twice that (None: never).
    `violated` is told the close code before the connection ends for what the peer has sent, and may still send.
    """

    __slots__ = (
        "_clock",
        "_close_received",
        "_early",
        "_inbox",
        "_last_item",
        "_outbox",
        "_ping_seconds",
        "_pinged",
        "_polls",
        "_reader",
        "_reading",
        "_reads",
        "_sock",
        "_violated",
    )

    def __init__(
        self,
        sock: Any,
        *,
        max_bytes: int,
        stall_seconds: float = 20.0,
        backlog_bytes: int = 8 * 1024 * 1024,
        backlog_items: int = 4096,
        ping_seconds: float | None = None,
        spawn: Spawn = start_thread,
        clock: Clock = time.monotonic,
        violated: Callable[[int], None] | None = None,
    ) -> None:
        # No timeout on the socket itself: it would cost a timer each read. Waits with a deadline use a selector.
        sock.settimeout(None)
        self._polls = hasattr(sock, "cipher") and os.get_blocking(sock.fileno())
        if self._polls:  # TLS under real threads: a write that waits for its reader would hold up whoever sends
            sock.settimeout(0)
        self._sock = sock
        self._outbox = Outbox(
            sock,
            stall_seconds=stall_seconds,
            backlog_bytes=backlog_bytes,
            backlog_items=backlog_items,
            spawn=spawn,
        )
        self._reader = FrameReader(max_bytes)
        self._inbox: deque[Message] | None = None
        self._last_item: ControlFrame | FrameError | None = None
        self._ping_seconds = ping_seconds
        self._pinged = False
        self._reading = False
        self._reads = 0
        self._close_received = False
        self._early = b""
        self._clock = clock
        self._violated = violated

    @classmethod
    def accept(cls, environ: Environ, **options: Any) -> WebSocket:
        """Answer the upgrade with 101 and no extension; raises HandshakeError before anything is written."""
        key = check_upgrade(environ)
        sock = raw_socket(environ)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = cls(sock, **options)
        connection._early = early_bytes(environ)
        sock.sendall(switching_protocols(key))
        return connection

    @property
    def closed(self) -> ConnectionClosed | None:
        """How the connection ended; None while it lives."""
        return self._outbox.end

    @property
    def backlogged(self) -> bool:
        """Whether the peer has yet to read what was sent before."""
        return self._outbox.backlogged

    def limit_messages(self, max_bytes: int) -> None:
        """Change the limit of incoming messages, as after authentication."""
        self._reader.max_bytes = max_bytes

    # Reading

    def recv(self, timeout: float | None = None) -> Message:
        """The next message. Raises TimeoutError (the connection stays usable) and ConnectionClosed."""
        deadline = None if timeout is None else self._clock() + timeout
        while not self._inbox:
            if self._last_item is None and not self._early:
                self._await_bytes(deadline)
            messages = self.recv_batch()
            if messages:
                self._inbox = deque(messages)
        return self._inbox.popleft()

    def recv_batch(self) -> list[Message]:
        """All messages of one read, perhaps none; waits for as long as the peer is silent.

        Control frames are answered here. Raises ConnectionClosed when the peer closes, goes away, or breaks the
        protocol or a limit; it has then already been told why.
        """
        if self._inbox:
            left, self._inbox = list(self._inbox), None  # what `recv` has read but not handed out
            return left
        if self._outbox.end is not None:
            raise self._outbox.end.again()
        if self._last_item is not None:
            raise self._finish(self._last_item)
        chunk = self._read()
        if not chunk:
            raise self._ended(ConnectionClosed(ABNORMAL))
        messages: list[Message] = []
        for item in self._reader.feed(chunk):
            if type(item) is str or type(item) is bytes:
                messages.append(item)
            elif type(item) is tuple and item[0] != CLOSE:
                self._control(*item)
            else:
                self._last_item = item  # type: ignore[assignment]
                break
        if self._last_item is not None and not messages:
            raise self._finish(self._last_item)
        self._reads += 1
        if len(messages) != 1 or self._reads % READS == 0:
            time.sleep(0)  # the bytes of a fast sender are always there: reading alone would let nobody else run
        return messages

    def _read(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        self._reading = True
        try:
            return self._polled() if self._polls else self._sock.recv(CHUNK)
        except (OSError, EOFError):
            return b""
        finally:
            self._reading = False

    def _polled(self) -> bytes:
        """OpenSSL's state of a connection is one for both directions, so nothing is read while something is written."""
        while True:
            try:
                return self._outbox.alone(partial(self._sock.recv, CHUNK))
            except ssl.SSLWantReadError:
                wait_until(self._sock, selectors.EVENT_READ, None)
            except ssl.SSLWantWriteError:
                wait_until(self._sock, selectors.EVENT_WRITE, None)

    def _await_bytes(self, deadline: float | None) -> None:
        """Wait for bytes until the deadline, sending a ping for each `ping_seconds` of silence."""
        while True:
            now = self._clock()
            left = None if deadline is None else max(0.0, deadline - now)
            pause = self._ping_seconds if left is None else min(left, self._ping_seconds or left)
            if pause is None or self._outbox.end is not None or self._wait_readable(pause):
                self._pinged = False
                return
            if left is not None and pause >= left:
                raise TimeoutError("no message in time")
            if self._pinged:
                self.abort()
                raise self._ended(ConnectionClosed(ABNORMAL, "ping timeout"))
            self._pinged = True
            self.ping()

    def _wait_readable(self, seconds: float) -> bool:
        self._reading = True
        try:
            return wait_until(self._sock, selectors.EVENT_READ, seconds)
        finally:
            self._reading = False

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._outbox.write(frame_header(PONG, len(payload)) + payload)

    def _finish(self, item: ControlFrame | FrameError) -> ConnectionClosed:
        """Answer the close frame, or tell the peer what it broke; returns how the connection ended."""
        if isinstance(item, FrameError):
            if self._violated is not None:
                self._violated(item.code)
            self.close(item.code, item.reason)
            return ConnectionClosed(item.code, item.reason)
        self._close_received = True
        try:
            code, reason = parse_close(item[1])
        except FrameError as error:
            code, reason = error.code, error.reason
        self.close(NORMAL if code == NO_STATUS else code)
        return ConnectionClosed(code, reason)

    # Writing

    def send_text(self, text: str, wait: bool = True) -> None:
        """Send one text message; with `wait` returns when the kernel has taken it, otherwise at once."""
        self.send_data(TEXT, text.encode(), wait)

    def send_binary(self, data: bytes, wait: bool = True) -> None:
        self.send_data(BINARY, data, wait)

    def send_data(self, opcode: int, payload: bytes, wait: bool = False) -> None:
        """Send one unfragmented frame; raises ConnectionClosed."""
        self._outbox.write(frame_header(opcode, len(payload)) + payload, wait)

    def send_joined(self, *messages: tuple[int, bytes]) -> None:
        """Send several messages, given as opcode and payload, with nothing in between; raises ConnectionClosed."""
        self._outbox.write(b"".join(frame_header(opcode, len(data)) + data for opcode, data in messages))

    def send_fragments(self, fragments: Iterable[bytes], opcode: int = TEXT) -> None:
        """Send one message in pieces, FIN on the last; other work runs between them and memory holds one piece.

        The pieces of a text message may split a character. No other data message may be sent meanwhile.
        """
        pending: bytes | None = None
        for fragment in fragments:
            if pending is not None:
                self._outbox.write(frame_header(opcode, len(pending), final=False) + pending, wait=True)
                opcode = CONTINUATION
                time.sleep(0)
            pending = fragment
        self._outbox.write(frame_header(opcode, len(pending or b"")) + (pending or b""), wait=True)

    def ping(self, payload: bytes = b"") -> None:
        self._outbox.write(frame_header(PING, len(payload)) + payload)

    def cork(self) -> None:
        """Hold writes back until `uncork`, so that the answers to one batch of messages leave in one system call."""
        self._outbox.cork()

    def uncork(self) -> None:
        self._outbox.uncork()

    # Ending

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye and end the connection; further calls do nothing. Never raises for a peer that is gone."""
        payload = close_payload(code, reason)
        try:
            self._outbox.uncork()
            self._outbox.write(frame_header(CLOSE, len(payload)) + payload, wait=True, last=True)
        except ConnectionClosed:
            return
        if self._outbox.finish(ConnectionClosed(code, reason)):
            self._leave()

    def abort(self) -> None:
        """End the connection at once, without a close frame."""
        self._outbox.abort("aborted")

    def _leave(self) -> None:
        """Half-close, then read on for a moment: a close with unread bytes is a reset, which eats our goodbye."""
        if self._reading:
            self._outbox.shutdown(socket.SHUT_RDWR)  # wakes the reader, which ends with the code just recorded
            return
        self._outbox.shutdown(socket.SHUT_WR)
        if not self._close_received:
            self._discard()

    def _discard(self) -> None:
        deadline, left, scratch = self._clock() + DRAIN_SECONDS, DRAIN_BYTES, bytearray(CHUNK)
        try:
            while left > 0 and (seconds := deadline - self._clock()) > 0:
                if not wait_until(self._sock, selectors.EVENT_READ, seconds):
                    return
                got = self._sock.recv_into(scratch)
                if not got:
                    return
                left -= got
        except (OSError, EOFError):
            return

    def _ended(self, end: ConnectionClosed) -> ConnectionClosed:
        """Record the end that the reader has seen; returns the one that was recorded first."""
        self._outbox.finish(end)
        return (self.closed or end).again()

    def let_go(self) -> None:
        """Its reader has ended. Without a way back to its owner all of it goes at once, half a message too."""
        self._violated = None
