"""Reports of many workers at a steady rate: an open loop, each worker on a kept connection of its own.

    hooks.py < {"port", "paths", "ids", "rate", "seconds", "log_bytes"}

The first prediction's log grows to `log_bytes`, and every report repeats it whole, as Cog's do; the others log a line
each time. Reports are made before the clock starts. A time counts from the moment at which a report was due, so that a
report held up by the one before it is late, and counts as such. Says `ready`, waits for a line, prints samples.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

READ = 1 << 16
LINE = "step {number:6}: 12.5 it/s, loss 0.0123, lr 1e-4\n"
INPUT = {"prompt": "a photo of sprite", "seed": 76551, "steps": 50, "guidance_scale": 5.0}
STARTED = "2026-01-01T00:00:00.185000+00:00"
LIMIT_SECONDS = 60.0
Due = tuple[float, bytes]


class BadAnswer(Exception):
    """The node ended a connection."""


class Sender:
    """One worker: one report at a time, the next once the last is answered."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.waiting: deque[Due] = deque()
        self._unsent = memoryview(b"")
        self._answer = b""

    def start(self) -> None:
        self._unsent = memoryview(self.waiting[0][1])
        self.write()

    def write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            pass

    @property
    def wants(self) -> int:
        return select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)

    def read(self) -> int | None:
        """The status of a whole answer, or None while more is to come."""
        data = self.sock.recv(READ)
        if not data:
            raise BadAnswer(self._answer)
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return None
        status, self._answer = int(head[9:12]), b""
        return status


class Load:
    """All workers, and what became of their reports."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._senders = [Sender(spec["port"]) for _ in spec["paths"]]
        self._of = {sender.sock.fileno(): sender for sender in self._senders}
        self._poll = select.epoll()
        for number in self._of:
            self._poll.register(number, select.EPOLLIN)
        self._plan = list(plan(spec))
        self.samples: list[tuple[float, float, int]] = []
        """When due, milliseconds until the answer, bytes."""
        self.statuses: Counter[int] = Counter()
        self.late = 0.0
        """Longest delay of this load itself, in milliseconds."""

    def run(self) -> None:
        began = time.monotonic() + 0.1
        for after, number, request in self._plan:
            while (left := began + after - time.monotonic()) > 0:
                self._turn(left)
            self.late = max(self.late, -1000 * left)
            sender = self._senders[number]
            sender.waiting.append((began + after, request))
            if len(sender.waiting) == 1:
                self._start(sender)
        ends = time.monotonic() + LIMIT_SECONDS
        while any(sender.waiting for sender in self._senders):
            self._turn(0.1)
            if time.monotonic() > ends:
                raise TimeoutError("the node stopped answering")

    def _start(self, sender: Sender) -> None:
        sender.start()
        self._poll.modify(sender.sock.fileno(), sender.wants)

    def _turn(self, seconds: float) -> None:
        for number, event in self._poll.poll(seconds):
            sender = self._of[number]
            if event & select.EPOLLOUT:
                sender.write()
                self._poll.modify(number, sender.wants)
            if event & ~select.EPOLLOUT:
                self._take(sender)

    def _take(self, sender: Sender) -> None:
        status = sender.read()
        if status is None:
            return
        due, request = sender.waiting.popleft()
        self.samples.append((due, 1000 * (time.monotonic() - due), len(request)))
        self.statuses[status] += 1
        if sender.waiting:
            self._start(sender)


def plan(spec: dict[str, Any]) -> Iterator[tuple[float, int, bytes]]:
    """Seconds after the beginning, the worker, the request; worker after worker, evenly spread."""
    count = len(spec["paths"])
    rounds = int(spec["rate"] * spec["seconds"]) // count
    lines = [LINE.format(number=number) for number in range(spec["log_bytes"] // len(LINE.format(number=0)) + 1)]
    log = "".join(lines)[: spec["log_bytes"]]
    for turn in range(1, rounds + 1):
        for number in range(count):
            due = ((turn - 1) * count + number) / spec["rate"]
            shown = log[: len(log) * turn // rounds] if number == 0 and log else "".join(lines[:turn])
            yield due, number, request_of(spec, number, shown)


def request_of(spec: dict[str, Any], number: int, logs: str) -> bytes:
    body = {"input": INPUT, "output": None, "id": spec["ids"][number], "created_at": STARTED, "started_at": STARTED}
    text = json.dumps({**body, "logs": logs, "status": "processing"}).encode()
    head = f"POST {spec['paths'][number]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


def main() -> None:
    load = Load(json.loads(sys.stdin.readline()))
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    load.run()
    print(json.dumps({"samples": load.samples, "statuses": load.statuses, "late_ms": load.late}))


if __name__ == "__main__":
    main()
