"""An HTTP/1.1 load that costs little: kept connections, one epoll loop, requests made beforehand.

With an ordinary client the load generator, not the server, sets the pace. A closed loop: each connection sends its
next request as soon as its answer is in. Answers are kept as they came and judged after the clock has stopped.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CONNECT_SECONDS = 30.0
READ = 1 << 18
STALL_SECONDS = 30.0
"""Without any answer for so long a run is given up."""


class BadAnswer(Exception):
    """The server ended a connection, or answered in a way that this client does not read."""


@dataclass
class Load:
    """What came of a run: for each answer its request's number, its status, body and seconds."""

    numbers: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0

    def take(self, peer: _Connection, data: bytes, now: float) -> None:
        self.seconds.append(now - peer.sent_at)
        self.numbers.append(peer.number)
        self.statuses.append(int(data[9:12]))
        self.heads.append(data[: peer.body_at])
        self.bodies.append(data[peer.body_at :])

    @property
    def per_second(self) -> float:
        return len(self.bodies) / self.wall


def request_bytes(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """One whole request; `content_type="…"` becomes Content-Type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection:
    """One kept connection with at most one request on its way."""

    __slots__ = ("_buffer", "_wanted", "body_at", "number", "sent_at", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._wanted = 0
        self.body_at = self.number = 0
        self.sent_at = 0.0

    def send(self, number: int, request: bytes) -> None:
        """Requests are small against the kernel's buffer, so a blocking send does not wait."""
        self.number, self._buffer, self._wanted = number, b"", 0
        self.sent_at = time.perf_counter()
        self.sock.sendall(request)

    def receive(self) -> bytes | None:
        """The whole answer, or None when more is to come. Raises BadAnswer."""
        data = self.sock.recv(READ)
        if not data:
            raise BadAnswer("the server ended the connection")
        self._buffer = data = self._buffer + data if self._buffer else data
        if not self._wanted:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return None
            self.body_at = end + 4
            self._wanted = self.body_at + _content_length(data[:end])
        return data if len(data) >= self._wanted else None


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        raise BadAnswer(head[:200])
    end = lowered.find(b"\r\n", at + 2)
    return int(lowered[at + 17 : end if end > 0 else len(lowered)])


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float, load: Load | None = None) -> Load:
    """Send `requests` over and over for `seconds`. Raises BadAnswer, TimeoutError. `load` takes the answers."""
    ends = time.perf_counter() + seconds
    return _run(port, requests, connections, lambda _sent, now: now < ends, load)


def run_while(port: int, requests: Sequence[bytes], connections: int, going: Callable[[], bool]) -> Load:
    """Send `requests` over and over while `going` is true. Raises BadAnswer, TimeoutError."""
    return _run(port, requests, connections, lambda _sent, _now: going())


def run_once(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Send each of `requests` once. Raises BadAnswer, TimeoutError."""
    total = len(requests)
    return _run(port, requests, min(connections, total), lambda sent, _now: sent < total)


More = Callable[[int, float], bool]
"""Whether another request goes out, by how many were sent and the time."""


def _run(port: int, requests: Sequence[bytes], connections: int, more: More, load: Load | None = None) -> Load:
    peers = [_Connection(port) for _ in range(connections)]
    poll = select.epoll()
    by_fd = {peer.sock.fileno(): peer for peer in peers}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    gc.collect()
    gc.disable()  # a pause of ours would count as one of the server
    try:
        return _loop(poll, by_fd, requests, more, load or Load())
    finally:
        gc.enable()
        poll.close()
        for peer in peers:
            peer.sock.close()


def _loop(poll: select.epoll, by_fd: dict[int, _Connection], requests: Sequence[bytes], more: More, load: Load) -> Load:
    clock, total = time.perf_counter, len(requests)
    began = last = clock()
    for sent, peer in enumerate(by_fd.values()):
        peer.send(sent % total, requests[sent % total])
    sent = on_their_way = len(by_fd)
    while on_their_way:
        events = poll.poll(1.0)
        if not events and clock() - last > STALL_SECONDS:
            raise TimeoutError("the server stopped answering")
        for fd, _ in events:
            peer = by_fd[fd]
            data = peer.receive()
            if data is None:
                continue
            last = clock()
            load.take(peer, data, last)
            if more(sent, last):
                peer.send(sent % total, requests[sent % total])
                sent += 1
            else:
                on_their_way -= 1
    load.wall = clock() - began
    return load
