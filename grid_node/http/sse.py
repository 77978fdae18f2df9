"""Updates of a task as server-sent events (WHATWG HTML, section 9.2): `id` is the seq, `event` the status."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from grid_node.generation.selection import ENDED
from grid_node.http.bodies import peer_deadline
from grid_node.http.connections import Connections, Held
from grid_node.http.following import Follower
from grid_node.streams.service import Entry

COMMENT_EVERY = 15.0
"""Seconds of silence after which a comment line shows that the stream lives, and finds out a reader that left."""


def event_text(entry: Entry) -> bytes:
    data = json.dumps(entry.body, separators=(",", ":"))
    return f"id: {entry.seq}\nevent: {entry.body['status']}\ndata: {data}\n\n".encode()


class EventStream:
    """The body of an answer: runs while the server sends, after the request's context.

    A reader that takes nothing for `stall` seconds is cut. Ends when the updates do, or when the connection is told to:
    the reader comes again with its last id.
    """

    def __init__(
        self, environ: Mapping[str, Any], follower: Follower, connections: Connections, key_id: str, stall: float
    ) -> None:
        self._environ = environ
        self._follower = follower
        self._held = Held(key_id, "sse", self._end)
        self._connections = connections
        self._stall = stall
        self._events = self._run()
        connections.add(self._held)

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """Called by the server however the answer ended, even if it never began."""
        self._events.close()
        self._connections.discard(self._held)
        self._follower.__exit__(None, None, None)

    def _end(self, _code: int, _reason: str) -> None:
        self._follower.stop()

    def _run(self) -> Generator[bytes, None, None]:
        with ExitStack() as stack:
            stack.enter_context(peer_deadline(self._environ, self._stall))
            yield b": updates follow\n\n"
            yield from self._updates()

    def _updates(self) -> Iterator[bytes]:
        """The events, and comments in silence, until the last one or until the follower is stopped."""
        raise NotImplementedError


class TaskStream(EventStream):
    """The updates of a task; ends with the terminal one."""

    def _updates(self) -> Iterator[bytes]:
        while not self._follower.stopped:
            silent = True
            for entry in self._follower.wait(COMMENT_EVERY):
                silent = False
                yield event_text(entry)
                if entry.body["status"] in ENDED:
                    return
            if silent and not self._follower.stopped:
                yield b":\n\n"
