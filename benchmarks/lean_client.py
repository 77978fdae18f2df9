"""A Socket.IO client that costs little: raw sockets, one epoll loop, frames written by hand.

With python-socketio's client the load generator, not the server, sets the pace. This one speaks Socket.IO 5 over
Engine.IO 4 on a WebSocket (RFC 6455): events with acks, events with one binary attachment, pushes, pings.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from websockets.speedups import apply_mask

MASK = b"\x37\xfa\x21\x3d"
TEXT, BINARY = 0x81, 0x82
HANDSHAKE_SECONDS = 30.0
Ack = Callable[[Any], None]


class Closed(Exception):
    """The server ended the connection, or did not take it."""


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole masked client frame."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + MASK + apply_mask(payload, MASK)


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Payloads of the whole server frames in `data`, and the rest. Raises Closed at a close frame."""
    payloads, start = [], 0
    while len(data) >= start + 2:
        size, begin = data[start + 1], start + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, begin = int.from_bytes(data[begin : begin + width], "big"), begin + width
        if len(data) < begin + size:
            break
        if data[start] & 0x0F == 8:
            raise Closed(data[begin : begin + size])
        payloads.append(data[begin : begin + size])
        start = begin + size
    return payloads, data[start:]


class Connection:
    """One socket in one namespace. `emit` never waits; acks and pushes arrive through `feed`."""

    def __init__(self, port: int, namespace: str = "/", auth: Any = None) -> None:
        self._prefix = "" if namespace == "/" else f"{namespace},"
        self._acks: dict[int, Ack] = {}
        self._next_ack = 0
        self._held: list[bytes] = []
        self._unsent = b""
        self.on_push: Callable[[str, Any], None] = lambda _event, _body: None
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = self._upgrade(port)
        self._join(auth)
        self.sock.setblocking(False)

    def _upgrade(self, port: int) -> bytes:
        self.sock.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise Closed(head[:200])
        return head.split(b"\r\n\r\n", 1)[1]

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise Closed("end of stream")
        return data

    def _join(self, auth: Any) -> None:
        """Ask for the namespace and wait until the server has let us in."""
        body = "" if auth is None else json.dumps(auth)
        self.sock.sendall(frame(TEXT, f"40{self._prefix}{body}".encode()))
        joined = f"40{self._prefix}".encode()
        while True:
            payloads, self._rest = split_frames(self._rest)
            for number, payload in enumerate(payloads):
                if payload.startswith(joined):
                    self._held = payloads[number + 1 :]
                    return
                if payload.startswith(b"44"):
                    raise Closed(payload)
            self._rest += self._receive()

    # --- sending ------------------------------------------------------------------------------------------------

    def emit(self, event: str, body: dict[str, Any], on_ack: Ack, attachment: bytes | None = None) -> None:
        """Send an event. With an attachment, `body` holds its placeholder."""
        self._next_ack += 1
        self._acks[self._next_ack] = on_ack
        text = json.dumps([event, body], separators=(",", ":"))
        kind = "42" if attachment is None else "451-"
        data = frame(TEXT, f"{kind}{self._prefix}{self._next_ack}{text}".encode())
        if attachment is not None:
            data += frame(BINARY, attachment)
        self._send(data)

    def _send(self, data: bytes) -> None:
        data = self._unsent + data
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]

    # --- receiving ----------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Read what is there and hand it on. Raises Closed."""
        payloads, self._rest = split_frames(self._rest + self._receive())
        if self._unsent:
            self._send(b"")
        held, self._held = self._held, []
        for payload in (*held, *payloads):
            self._take(payload)

    def _take(self, payload: bytes) -> None:
        if payload == b"2":
            self._send(frame(TEXT, b"3"))
            return
        body = payload.find(b"[")
        if payload[:2] == b"43":
            number = int(payload[2 + len(self._prefix) : body])
            self._acks.pop(number)(json.loads(payload[body:])[0])
        elif payload[:2] == b"42":
            event, told = json.loads(payload[body:])
            self.on_push(event, told)

    def close(self) -> None:
        self.sock.close()


class Loop:
    """Feeds connections as their sockets become readable."""

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._poll = select.epoll()
        self._connections = {connection.sock.fileno(): connection for connection in connections}
        for number in self._connections:
            self._poll.register(number, select.EPOLLIN)

    def run_until(self, done: Callable[[], bool], timeout: float) -> None:
        """Raises TimeoutError when `done` has not come true in `timeout` seconds."""
        ends = time.perf_counter() + timeout
        while not done():
            if time.perf_counter() > ends:
                raise TimeoutError("the server stopped answering")
            self.feed(0.1)

    def feed(self, timeout: float) -> None:
        """What has come by now, or comes first within `timeout` seconds."""
        for number, _ in self._poll.poll(timeout):
            self._connections[number].feed()
