"""Bells between the processes of one machine: a datagram says "look at the database", nothing else.

Each node process listens on a Unix socket of its own in the data folder; whoever committed something rings all of
them. A lost ring costs nothing but the time until the next poll.
"""

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


class Bells:
    """Rings every listening process; `listen` makes this one hear."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "bells"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own = self._folder / str(os.getpid())
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._listener: socket.socket | None = None

    def ring(self) -> None:
        """Never waits, never raises: a full or dead socket is passed over."""
        for path in self._folder.iterdir():
            if path == self._own:
                continue
            try:
                self._sender.sendto(b"!", str(path))
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                    path.unlink(missing_ok=True)

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` for each ring, in a thread of its own; many rings may become one call."""
        self._own.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(self._own))
        threading.Thread(target=self._loop, args=(self._listener, heard), name="grid-bell", daemon=True).start()

    def _loop(self, listener: socket.socket, heard: Callable[[], None]) -> None:
        while True:
            try:
                listener.recv(16)
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
