"""The open connections of the HTTP face, so that a removed key and the end of the node reach them."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

INVALID_KEY = (4003, "Invalid API Key")
SHUTDOWN = (1001, "Server Shutdown")
FACES = ("websocket", "sse")
FAREWELL = 3.0
"""Seconds within which every connection must have taken its goodbye when the node stops."""


@dataclass(eq=False)
class Held:
    """One open connection. `end(code, reason)` may wait for a slow peer; it is called in a thread of its own.

    `key_id` is None before it has shown its key.
    """

    key_id: str | None
    face: str
    end: Callable[[int, str], None]


class Connections:
    """What is open now."""

    def __init__(self) -> None:
        self._held: set[Held] = set()

    def add(self, held: Held) -> None:
        self._held.add(held)

    def discard(self, held: Held) -> None:
        self._held.discard(held)

    def count(self) -> dict[str, int]:
        """Open connections by face."""
        found = Counter(held.face for held in list(self._held))
        return {face: found[face] for face in FACES}

    def keys(self) -> set[str]:
        return {held.key_id for held in list(self._held) if held.key_id is not None}

    def drop(self, key_ids: set[str]) -> None:
        """These keys are no longer in force."""
        for held in list(self._held):
            if held.key_id in key_ids:
                _say_goodbye(held, INVALID_KEY)

    def shut_down(self) -> None:
        """Returns when all have heard it, or after FAREWELL seconds."""
        threads = [_say_goodbye(held, SHUTDOWN) for held in list(self._held)]
        for thread in threads:
            thread.join(FAREWELL)


def _say_goodbye(held: Held, farewell: tuple[int, str]) -> threading.Thread:
    thread = threading.Thread(target=held.end, args=farewell, daemon=True)
    thread.start()
    return thread
