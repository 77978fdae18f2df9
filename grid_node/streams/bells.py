"""Bells between processes: a datagram, or a message through Redis, says "look at the database", nothing else.

Each node process listens on a Unix socket of its own in the data folder; whoever committed something rings all of
them. A lost ring costs nothing but the time until the next poll.
"""

import errno
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

log = logging.getLogger(__name__)


REST = 0.005
"""Seconds after a ring in which further ones are part of it: hundreds of commits a second need but some looks."""
SETTLED = 0.1
"""Seconds for which a folder must have been unchanged before its time of change tells of every later one."""
HAS_PROC = Path("/proc/self/fd").is_dir()


class Bells:
    """Rings every listening process; `listen` makes this one hear."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "bells"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own = self._folder / str(os.getpid())
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._listener: socket.socket | None = None
        self._rest = threading.Event()
        self._listed: list[str] = []
        self._listed_at = 0.0
        # The name of such a socket has at most 107 bytes, the folder's own may have more.
        self._handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._handle}/{name}" if HAS_PROC else str(self._folder / name)

    def ring(self) -> None:
        """Never waits, never raises: a full or dead socket is passed over."""
        for name in self._others():
            try:
                self._sender.sendto(b"!", self._address(name))
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                    (self._folder / name).unlink(missing_ok=True)

    def _others(self) -> list[str]:
        """Who listens; the folder is read anew only when it changed, for this is asked at every commit."""
        changed = os.fstat(self._handle).st_mtime
        if changed != self._listed_at:
            self._listed = [path.name for path in self._folder.iterdir() if path != self._own]
            settled = time.time() - changed > SETTLED
            self._listed_at = changed if settled else 0.0
        return self._listed

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` for each ring, in a thread of its own; many rings may become one call."""
        self._own.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(self._address(self._own.name))
        threading.Thread(target=self._loop, args=(self._listener, heard), name="grid-bell", daemon=True).start()

    def _loop(self, listener: socket.socket, heard: Callable[[], None]) -> None:
        while True:
            try:
                listener.recv(16)
                self._rest.wait(REST)
                _drain(listener)
            except OSError:
                return
            try:
                heard()
            except Exception:
                log.exception("answering a bell failed")

    def close(self) -> None:
        self._own.unlink(missing_ok=True)
        if self._listener is not None:
            self._listener.close()
        self._sender.close()
        os.close(self._handle)


def _drain(listener: socket.socket) -> None:
    """Take every ring that is there already."""
    listener.setblocking(False)
    try:
        while listener.recv(16):
            pass
    except BlockingIOError:
        pass
    finally:
        listener.setblocking(True)


class RedisBells:
    """Rings between machines: a message on one channel of Redis.

    A thread of its own publishes, so that nobody waits for the network; rings that come while it does are one.
    """

    CHANNEL = "grid:bell"
    PAUSE = 5.0
    """Seconds before a lost connection is tried again; until then the poll alone carries news."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
        self._name = uuid.uuid4().hex.encode()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        threading.Thread(target=self._publish, name="grid-redis-ring", daemon=True).start()

    def ring(self) -> None:
        self._wanted.set()

    def listen(self, heard: Callable[[], None]) -> None:
        threading.Thread(target=self._listen, args=(heard,), name="grid-redis-bell", daemon=True).start()

    def close(self) -> None:
        self._stopping.set()
        self._wanted.set()

    def _publish(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._client.publish(self.CHANNEL, self._name)
            except redis.RedisError as error:
                log.warning("a bell could not be rung through Redis: %s", error)
                self._stopping.wait(self.PAUSE)

    def _listen(self, heard: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(self.CHANNEL)
                    self._hear(channel, heard)
            except redis.RedisError as error:
                log.warning("the bell of Redis is not heard: %s", error)
                self._stopping.wait(self.PAUSE)

    def _hear(self, channel: Any, heard: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            message = channel.get_message(timeout=5.0)
            if message is None or message["data"] == self._name:
                continue
            try:
                heard()
            except Exception:
                log.exception("answering a bell failed")


class BellTower:
    """All bells of a node as one."""

    def __init__(self, *bells: "Bells | RedisBells") -> None:
        self._bells = bells

    def ring(self) -> None:
        for bell in self._bells:
            bell.ring()

    def listen(self, heard: Callable[[], None]) -> None:
        for bell in self._bells:
            bell.listen(heard)

    def close(self) -> None:
        for bell in self._bells:
            bell.close()


def make_bells(data_dir: Path, redis_url: str) -> BellTower:
    """The machine's own bells, and those of Redis where there is one."""
    return BellTower(Bells(data_dir), RedisBells(redis_url)) if redis_url else BellTower(Bells(data_dir))
