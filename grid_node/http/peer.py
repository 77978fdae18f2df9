"""Noticing that a peer has gone while its request waits for an answer."""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def watched_peer(environ: Mapping[str, Any], gone: Callable[[], None]) -> Iterator[None]:
    """Within the block `gone` is called once, as soon as the peer closes its side of the connection.

    Where the server does not show us its socket nothing is watched. The watcher has ended when the block is left,
    so that nobody else reads the socket when the server goes on with it.
    """
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if sock is None or hasattr(sock, "cipher"):
        yield
        return
    told, tell = os.pipe()
    watcher = threading.Thread(target=_watch, args=(sock, told, gone), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.write(tell, b"!")
        watcher.join()
        os.close(tell)
        os.close(told)


def _watch(sock: Any, told: int, gone: Callable[[], None]) -> None:
    """A descriptor that becomes readable before the block ends is a peer that left, or one that sends ahead."""
    with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(told, selectors.EVENT_READ)
        ready = {key.fileobj for key, _ in selector.select()}
        if told not in ready and _has_left(sock):
            gone()


def _has_left(sock: Any) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
