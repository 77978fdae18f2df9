"""Updates of a prediction as server-sent events (WHATWG HTML, section 9.2), as the `replicate` client reads them.

Every event has an id, or that client drops it; it knows four names and takes comments alone for heartbeats.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grid_node.http.connections import Connections
from grid_node.http.following import Follower
from grid_node.http.sse import EventStream
from grid_node.runners.prediction import Prediction
from grid_node.runners.run_events import DONE, RunEvent, end_of, run_event

PING_EVERY = 15.0
"""Seconds of silence after which a comment shows that the stream lives; the client gives up after 30."""
LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
"""Where readers end a line: the standard names the first three, Python's clients split at all of them."""


def event_text(event: RunEvent) -> bytes:
    data = "".join(f"data: {line}\n" for line in LINE_ENDS.split(event.data))
    return f"id: {event.offset}\nevent: {event.event}\n{data}\n".encode()


class RunStream(EventStream):
    """The updates of a prediction; ends with `done`. `ended` is asked in silence: whether the end was missed."""

    def __init__(
        self,
        environ: Mapping[str, Any],
        prediction: Prediction,
        follower: Follower,
        connections: Connections,
        stall: float,
        ended: Callable[[], Prediction | None],
    ) -> None:
        self._prediction = prediction
        self._ended = ended
        super().__init__(environ, follower, connections, prediction.owner, stall)

    def _updates(self) -> Iterator[bytes]:
        while not self._follower.stopped:
            found = list(self._follower.wait(PING_EVERY))
            over = None if found or self._follower.stopped else self._ended()
            if over is not None:  # its last updates may have come just now; if not, they are not kept any more
                found = list(self._follower.wait(0))
            for entry in found:
                yield event_text(run_event(self._prediction, entry))
                if entry.body["event"] == DONE:
                    return
            if over is not None:
                yield event_text(end_of(over, f"{over.epoch}:{over.seq}"))
                return
            if not found and not self._follower.stopped:
                yield b": ping\n\n"
