"""Requests of ordinary clients: many first reads at once, one read after the other, pings beside them, weights."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from chain_peers.servers import ID, OA, OPEN, TOKEN

LATEST = f"{OA}/block/latest/neurons"
PING_EVERY = 0.01
PATIENCE = 60.0


class Client:
    """One kept connection."""

    def __init__(self, port: int, token: str = OPEN) -> None:
        self._peer = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, bytes]:
        given = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if given else {})}
        self._peer.request(method, path, given, headers)
        answer = self._peer.getresponse()
        return answer.status, answer.read()

    def read(self, path: str) -> Any:
        """Body of a 200. Raises AssertionError."""
        status, body = self.ask(path)
        assert status == 200, (status, body[:200])
        return json.loads(body)

    def close(self) -> None:
        self._peer.close()


def at_once(port: int, count: int) -> float:
    """`count` clients read the latest neurons together; seconds until the last has its answer."""
    ready, statuses = threading.Barrier(count + 1), []

    def read() -> None:
        client = Client(port)
        ready.wait()
        statuses.append(client.ask(LATEST)[0])
        client.close()

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert statuses == [200] * count, statuses
    return time.monotonic() - began


@contextmanager
def pings(port: int, took: list[float]) -> Iterator[None]:
    """Meanwhile a client asks every 10 ms for what needs no chain, `/metrics` without a token; `took` in seconds."""
    ended = threading.Event()

    def ping() -> None:
        client = Client(port, token="")
        while not ended.wait(PING_EVERY):
            began = time.monotonic()
            assert client.ask("/metrics")[0] == 403
            took.append(time.monotonic() - began)
        client.close()

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def one_by_one(port: int, numbers: Sequence[int]) -> list[float]:
    """Seconds of each read of the neurons at a block that nobody has read so far."""
    client, took = Client(port), []
    for number in numbers:
        began = time.monotonic()
        assert client.read(f"{OA}/block/{number}/neurons")["block"]["number"] == number
        took.append(time.monotonic() - began)
    client.close()
    return took


def watched(port: int, seconds: float) -> list[tuple[float, int]]:
    """About fifty reads of the latest neurons a second: when each was answered, and the number of its block."""
    client, seen, ends = Client(port), [], time.monotonic() + seconds
    while time.monotonic() < ends:
        number = int(client.read(LATEST)["block"]["number"])
        seen.append((time.monotonic(), number))
        time.sleep(0.02)
    client.close()
    return seen


def ages(seen: Sequence[tuple[float, int]], heads: Sequence[tuple[float, int]]) -> list[int]:
    """Blocks by which each answer was behind the newest block at the time it came."""
    return [max(number for at, number in heads if at <= when) - block for when, block in seen if when > heads[0][0]]


def put_weights(port: int, hotkeys: Sequence[str], times: int) -> list[float]:
    """Seconds of each PUT; every one has other weights for all neurons. Returns once the last one is on the chain."""
    client, took = Client(port, TOKEN), []
    for number in range(times):
        weights = {hotkey: 1.0 + (place + number) % 7 for place, hotkey in enumerate(hotkeys)}
        began = time.monotonic()
        status, body = client.ask(f"{ID}/weights", "PUT", {"weights": weights})
        took.append(time.monotonic() - began)
        assert status == 200, body
        time.sleep(0.1)
    ends = time.monotonic() + PATIENCE
    while (told := client.read(f"{ID}/weights/status"))["status"] != "completed":
        assert time.monotonic() < ends, told
        time.sleep(0.1)
    client.close()
    return took


def until_up(port: int) -> float:
    """Seconds until the node has a chain's process again and answers from it."""
    client, began = Client(port), time.monotonic()
    while client.read("/api/v1/chain/status")["worker"] != "up" or client.ask(f"{OA}/block/1/validators")[0] != 200:
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.05)
    client.close()
    return time.monotonic() - began


def longest_gap(port: int, stage: str) -> dict[str, float]:
    """Milliseconds since the last time it was asked; of the ticking node alone."""
    client = Client(port)
    told = client.read("/bench/gap")
    client.close()
    assert told["ticks"] > 0
    return {f"{stage}_gap_ms": float(told["gap_ms"]), f"{stage}_own_ms": float(told["own_ms"])}
