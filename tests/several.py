"""Grids of two nodes: on one SQLite file, on PostgreSQL, on PostgreSQL and Redis; and a line that can be cut."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import text

import app  # noqa: F401 - it loads every table
from grid_node.database import Base, make_engine
from tests.integration.sockets import Socket, worker
from tests.nodes import LiveNode
from tests.stores import postgres_database

REDIS = f"redis://127.0.0.1:6379/{11 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]) % 4}"
"""A database of its own for each process of the suite: each empties it."""
KINDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgres),
    pytest.param("postgresql-redis", marks=[pytest.mark.postgres, pytest.mark.redis]),
]
QUICK = {"public_api_settle": 1, "scoring_processes": 0}


@dataclass
class Pair:
    """Two running nodes of one grid."""

    kind: str
    a: LiveNode
    b: LiveNode
    worker_key: str

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """What stands in the database that they share."""
        with self.a._engine.connect() as connection:
            return list(connection.execute(text(statement), values).all())


@contextlib.contextmanager
def started_pair(folder: Path, kind: str, **settings: Any) -> Iterator[Pair]:
    """Two nodes; only the first runs job processes, if `settings` say so."""
    with contextlib.ExitStack() as stack:
        shared = {**QUICK, **settings, **_shared(stack, folder, kind)}
        a = LiveNode(folder / "a", **shared)
        stack.callback(_end, a)
        a.start()
        b = a.another(folder / "b", scoring_processes=0)
        stack.callback(_end, b)
        b.start()
        yield Pair(kind, a, b, a.add_key("worker", ["worker"]))


def _end(node: LiveNode) -> None:
    """At once: how a node lets go of its connections is tested elsewhere."""
    if node.is_running:
        node.kill()
    node.stop()


def _shared(stack: contextlib.ExitStack, folder: Path, kind: str) -> dict[str, Any]:
    if kind == "sqlite":
        return {}
    shared = {"database_url": stack.enter_context(tables()), "blobs_url": str(folder / "blobs")}
    if kind == "postgresql-redis":
        shared["redis_url"] = empty_redis()
    return shared


@contextlib.contextmanager
def tables() -> Iterator[str]:
    """URL of a PostgreSQL database with every table; skips where there is no server."""
    with postgres_database() as url:
        engine = make_engine(url)
        Base.metadata.create_all(engine)
        engine.dispose()
        yield url


def empty_redis() -> str:
    """URL of an empty Redis database; skips where there is no server."""
    client = redis.Redis.from_url(REDIS, socket_connect_timeout=1)
    try:
        client.flushdb()
    except redis.ConnectionError:
        pytest.skip("no Redis on 127.0.0.1:6379")
    finally:
        client.close()
    return REDIS


@contextlib.contextmanager
def sockets() -> Iterator[Callable[[Socket], Socket]]:
    """Closes what was opened through it."""
    with contextlib.ExitStack() as stack:

        def track(opened: Socket) -> Socket:
            stack.callback(opened.close)
            return opened

        yield track


def generate(client: Socket, **fields: Any) -> dict[str, Any]:
    answer = client.call("generate", {"prompt": "a chair", "kind": "text", "copies": 1, **fields})
    assert answer["success"], answer
    task: dict[str, Any] = answer["task"]
    return task


def hand_in(socket: Socket, lease: dict[str, Any], data: bytes = b"a poem about the prompt", form: str = "text") -> Any:
    message = {
        "task_id": lease["task_id"],
        "lease_id": lease["lease_id"],
        "format": form,
        "sha256": hashlib.sha256(data).hexdigest(),
        "asset": data,
    }
    return socket.call("submit_result", message)


def pull(socket: Socket, wait_s: float = 10, **fields: Any) -> Any:
    return socket.call("pull_task", {"wait_s": wait_s, **fields})["task"]


class TimedSocket(Socket):
    """Notes when each push came."""

    def __init__(self, url: str, namespace: str = "/", **auth: Any) -> None:
        self.times: list[float] = []
        super().__init__(url, namespace, **auth)

    def _heard(self, event: str, body: Any = None) -> None:
        self.times.append(time.monotonic())
        super()._heard(event, body)


class Line:
    """A TCP line to a server; `cut` ends every connection and refuses new ones until `mend`."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def cut(self) -> None:
        _shut(self._listener)
        with self._lock:
            for one in self._open:
                _shut(one)
            self._open.clear()

    def mend(self) -> None:
        self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                with self._lock:
                    self._open |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _shut(source)
        _shut(sink)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


__all__ = ["KINDS", "Line", "Pair", "Socket", "TimedSocket", "started_pair", "worker"]
