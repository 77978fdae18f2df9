"""The sending side of one connection: straight to the kernel, with a bounded backlog for what it does not take."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from grid_node.wire.frames import ABNORMAL, NORMAL

PIECES = 64
"""Pieces of the backlog that go into one system call (well below IOV_MAX)."""

TLS_BYTES = 256 * 1024
"""Bytes that one call offers to TLS."""

TOO_SLOW, STALLED = "reader too slow", "reader stalled"

Piece = bytes | memoryview
Spawn = Callable[..., Any]


class ConnectionClosed(Exception):
    """The connection has ended; `code` is the close code (1006 where no close frame came)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason

    def again(self) -> ConnectionClosed:
        """The same, to be raised: one that is kept and raised keeps every frame that it passes through."""
        return ConnectionClosed(self.code, self.reason)


def wait_until(sock: Any, event: int, seconds: float | None) -> bool:
    """Wait until the socket is ready; False when the time is over."""
    if event == selectors.EVENT_READ and getattr(sock, "pending", int)():
        return True  # bytes that TLS has already decrypted do not make the socket readable
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, event)
            return bool(selector.select(seconds))
    except ValueError:  # closed under us: let the next call on the socket say so
        return True


def start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, daemon=True).start()


class Outbox:
    """Sends frames in order from any task, and knows whether the connection has ended (`end`).

    A peer that takes no byte for `stall_seconds`, or lets more than `backlog_bytes` or `backlog_items` wait, is cut by
    shutting the raw socket down. No lock is held while anything waits.
    """

    __slots__ = (
        "_backlog",
        "_bytes",
        "_bytes_limit",
        "_corked",
        "_drained",
        "_flushing",
        "_items_limit",
        "_lock",
        "_sealed",
        "_sendmsg",
        "_sock",
        "_spawn",
        "_stall_seconds",
        "end",
    )

    def __init__(
        self, sock: Any, *, stall_seconds: float, backlog_bytes: int, backlog_items: int, spawn: Spawn
    ) -> None:
        self._sock = sock
        self._sendmsg = tls_sendmsg(sock) if hasattr(sock, "cipher") else sock.sendmsg
        self._stall_seconds = stall_seconds
        self._bytes_limit = backlog_bytes
        self._items_limit = backlog_items
        self._spawn = spawn
        self._lock = threading.Lock()
        self._backlog: deque[Piece] | None = None
        self._bytes = 0
        self._corked: list[bytes] | None = None
        self._drained: threading.Condition | None = None
        self._flushing = False
        self._sealed = False
        self.end: ConnectionClosed | None = None

    @property
    def backlogged(self) -> bool:
        """Whether the peer has yet to read what was sent before."""
        return self._bytes > 0

    def cork(self) -> None:
        """Hold writes back until `uncork`, so that the answers to one batch of messages leave in one system call."""
        with self._lock:
            if self._corked is None:
                self._corked = []

    def uncork(self) -> None:
        with self._lock:
            held, self._corked = self._corked, None
        if held:
            self.write(b"".join(held))

    def write(self, frame: bytes, wait: bool = False, last: bool = False) -> None:
        """Send one frame; with `wait`, return when the kernel has all of it. After the `last` one nothing is taken.

        Raises ConnectionClosed.
        """
        with self._lock:
            if self._sealed or self.end is not None:
                raise self.end.again() if self.end is not None else ConnectionClosed(NORMAL, "closing")
            self._sealed = last
            if self._corked is not None:
                self._corked.append(frame)
                return
            start_flusher = self._enqueue(frame)
        if start_flusher and not wait:
            self._spawn(self._flush)
        elif start_flusher:
            self._flush()
        if wait and self._bytes:
            self._wait_drained()
        if self.end is not None:
            raise self.end.again()

    def _enqueue(self, frame: bytes) -> bool:
        """Hand the frame to the kernel or the backlog. True: the caller must see to the flusher. Holds the lock."""
        if not self._bytes:
            sent = self._send_now((frame,))
            if sent == len(frame) or self.end is not None:
                return False
            frame = memoryview(frame)[sent:] if sent else frame  # type: ignore[assignment]
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(frame)
        self._bytes += len(frame)
        if self._bytes > self._bytes_limit or len(self._backlog) > self._items_limit:
            self._cut(TOO_SLOW)
            return False
        starts, self._flushing = not self._flushing, True
        return starts

    def _send_now(self, pieces: tuple[bytes | memoryview, ...]) -> int:
        """Bytes that the kernel took without waiting. Holds the lock."""
        try:
            # Not `send`: a cooperative socket makes `send` wait, `sendmsg` is passed through to the real socket.
            return self._sendmsg(pieces, (), socket.MSG_DONTWAIT)
        except (BlockingIOError, TimeoutError):
            return 0
        except (OSError, EOFError):
            self._cut("connection lost")
            return 0

    def _flush(self) -> None:
        """Drain the backlog as the peer reads; cut a peer that takes nothing for `stall_seconds`."""
        while self.end is None:
            if not wait_until(self._sock, selectors.EVENT_WRITE, self._stall_seconds):
                with self._lock:
                    self._cut(STALLED)
                return
            with self._lock:
                if self._drain_some():
                    return

    def _drain_some(self) -> bool:
        """One system call's worth of backlog; True when nothing is left. Holds the lock."""
        backlog = self._backlog
        if backlog:
            sent = self._send_now(tuple(backlog[i] for i in range(min(len(backlog), PIECES))))
            self._bytes -= sent if self.end is None else 0
            while sent and backlog:
                piece = backlog.popleft()
                if len(piece) > sent:
                    backlog.appendleft(memoryview(piece)[sent:])
                sent = max(0, sent - len(piece))
        if backlog:
            return False
        self._release()
        return True

    def _release(self) -> None:
        """Forget the backlog and wake those that wait for it. Holds the lock."""
        self._backlog, self._bytes, self._flushing = None, 0, False
        if self._drained is not None:
            self._drained.notify_all()

    def _wait_drained(self) -> None:
        """Wait for a flusher that another writer started; it ends by itself within the stall deadline."""
        with self._lock:
            if self._drained is None:
                self._drained = threading.Condition(self._lock)
            while self._bytes and self.end is None:
                self._drained.wait()

    def alone(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, while nothing is written."""
        with self._lock:
            return call()

    # Ending

    def finish(self, end: ConnectionClosed) -> bool:
        """Record how the connection ended; the first record counts. True if this was it."""
        with self._lock:
            first = self.end is None
            self.end = self.end or end
            self._release()
            return first

    def abort(self, reason: str) -> None:
        """End the connection at once, without a goodbye."""
        with self._lock:
            self._cut(reason)

    def shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            pass  # the peer was faster

    def _cut(self, reason: str) -> None:
        """Shut the raw socket down: reader, flusher and waiting writers all end. Holds the lock."""
        if self.end is None:
            self.end = ConnectionClosed(ABNORMAL, reason)
        self._release()
        self.shutdown(socket.SHUT_RDWR)


def tls_sendmsg(sock: Any) -> Callable[..., int]:
    """TLS has no scatter write.

    A socket that never waits, as eventlet's are and a WebSocket's is, takes what it can: OpenSSL may have begun with
    bytes that it did not count, so the same bytes must be offered again, and they are, for they head the backlog. Any
    other socket takes all and waits for it.
    """
    if os.get_blocking(sock.fileno()):
        return partial(_send_all, sock)
    return partial(_send_some, sock._sslobj.write)


def _send_all(sock: Any, pieces: tuple[Piece, ...], _ancillary: tuple[()], _flags: int) -> int:
    data = b"".join(pieces)
    sock.sendall(data)
    return len(data)


def _send_some(write: Callable[[Piece], int], pieces: tuple[Piece, ...], _ancillary: tuple[()], _flags: int) -> int:
    data, sent = memoryview(b"".join(_first(pieces))), 0
    try:
        while sent < len(data):
            sent += write(data[sent:])
    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
        pass
    return sent


def _first(pieces: tuple[Piece, ...]) -> Iterator[Piece]:
    """Of so many pieces as fill TLS_BYTES: a backlog is not copied again for each part of it that leaves."""
    size = 0
    for piece in pieces:
        if size >= TLS_BYTES:
            return
        yield piece[: TLS_BYTES - size]
        size += len(piece)
