"""A TCP line to a server with faults that a test switches on and off: delay, stall, loss, cut, reset, refusal.

`Up` is from the client to the server, `down` is back. A fault works on every connection, open or to come, until `mend`.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

CHUNK = 65536
BUFFER = 32768
"""Bytes that the kernel holds for a direction that is stalled: a server feels soon that nobody reads."""
SOCKETS = b"GET /socket.io/"
"""How the connections begin that `block_sockets` knows by."""
END = 10.0
"""Seconds within which every thread of a closed proxy has ended."""
UP, DOWN = "up", "down"


@dataclass(frozen=True)
class Fault:
    """What a line does to the bytes of each direction."""

    delay: dict[str, float] = field(default_factory=dict)
    """Seconds that each piece is held."""
    stalled: frozenset[str] = frozenset()
    """Nothing is read from the sender any more: it gets to feel back pressure."""
    lost: frozenset[str] = frozenset()
    """Everything is read and thrown away: the sender notices nothing."""


class Connection:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.left: dict[str, int] = {}
        """Bytes that may still pass in a direction before the line is cut."""
        self.is_socket = False

    def shut(self) -> None:
        for one in (self.near, self.far):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Both peers get RST: what is on its way is lost."""
        for one in (self.near, self.far):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for one in (self.near, self.far):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RD)  # wakes the thread that reads it, which closes it
        self.near.close()
        self.far.close()


class Proxy:
    """Listens on a free loopback port in front of `port`."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._fault = Fault()
        self._budget: dict[str, int] = {}
        self._blocks_sockets = False
        self._changed = threading.Condition()
        self._open: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.passed = {UP: 0, DOWN: 0}
        self.accepted = 0
        self.resets = 0
        """Connections that a limit of bytes or a block has ended."""
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.port}"

    # --- faults

    def delay(self, seconds: float, *directions: str) -> None:
        self._become(replace(self._fault, delay=dict.fromkeys(directions or (UP, DOWN), seconds)))

    def stall(self, *directions: str) -> None:
        """Read nothing more of these directions; their senders fill their buffers and then wait."""
        self._become(replace(self._fault, stalled=frozenset(directions or (UP, DOWN))))

    def lose(self, *directions: str) -> None:
        """Swallow these directions: to their senders all looks well."""
        self._become(replace(self._fault, lost=frozenset(directions or (UP, DOWN))))

    def cut_after(self, count: int, direction: str) -> None:
        """Reset each connection once so many more bytes of it have passed in this direction."""
        with self._changed:
            self._budget = {direction: count}
            for one in self._open:
                one.left[direction] = count

    def cut(self) -> None:
        """End every connection with FIN; new ones are taken."""
        for one in self._connections():
            one.shut()

    def reset(self) -> None:
        """End every connection with RST; new ones are taken."""
        for one in self._connections():
            one.reset()

    def refuse(self) -> None:
        """Take no new connections; open ones stay."""
        with self._changed:
            listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)

    def block_sockets(self) -> None:
        """Reset the connections of Socket.IO, those that are open and those to come; other requests pass."""
        with self._changed:
            self._blocks_sockets = True
        for one in self._connections():
            if one.is_socket:
                one.reset()

    def mend(self) -> None:
        """No faults from here on; what was lost stays lost."""
        with self._changed:
            self._budget = {}
            self._blocks_sockets = False
            for one in self._open:
                one.left.clear()
        self._become(Fault())
        if self._listener is None:
            self._listener = self._listen(self.port)

    def close(self) -> None:
        with self._changed:
            self._closed = True
        self.refuse()
        self._become(Fault())
        self.reset()
        for thread in self._threads:
            thread.join(END)
        assert not [thread for thread in self._threads if thread.is_alive()], "the proxy did not end"

    def __len__(self) -> int:
        """Open connections."""
        return len(self._connections())

    # --- carrying

    def _become(self, fault: Fault) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def _connections(self) -> list[Connection]:
        with self._changed:
            return list(self._open)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._start(self._accept, listener)
        return listener

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads[:] = [one for one in self._threads if one.is_alive() or one.ident is None]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        try:
            far.connect(self._target)
        except OSError:
            far.close()
            near.close()
            return
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(near, far)
        with self._changed:
            if self._closed:
                connection.reset()
                return
            connection.left = dict(self._budget)
            self._open.add(connection)
            self.accepted += 1
        self._start(self._carry, connection, near, far, UP)
        self._start(self._carry, connection, far, near, DOWN)

    def _carry(self, connection: Connection, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while self._may_read(connection, direction) and (data := source.recv(CHUNK)):
                if not self._pass(connection, sink, direction, data):
                    connection.reset()
                    self.resets += 1
                    break
        with self._changed:
            self._open.discard(connection)
        connection.shut()
        source.close()

    def _may_read(self, connection: Connection, direction: str) -> bool:
        """Waits while the direction is stalled; false once the connection is gone."""
        with self._changed:
            while direction in self._fault.stalled and not self._closed and connection in self._open:
                self._changed.wait(0.05)
            return connection in self._open

    def _pass(self, connection: Connection, sink: socket.socket, direction: str, data: bytes) -> bool:
        """Hand on what the faults leave of `data`; false when the line is to be reset."""
        with self._changed:
            if direction == UP and data.startswith(SOCKETS):
                connection.is_socket = True
            if connection.is_socket and self._blocks_sockets:
                return False
            if wait := self._fault.delay.get(direction):
                self._changed.wait_for(lambda: self._closed or direction not in self._fault.delay, wait)
            if direction in self._fault.lost:
                return True
            left = connection.left.get(direction)
            kept = data if left is None else data[:left]
            if left is not None:
                connection.left[direction] = left - len(kept)
            self.passed[direction] += len(kept)
        if kept:
            sink.sendall(kept)
        return len(kept) == len(data)


@contextlib.contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy in front of this loopback port that ends with the block."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def _end(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
