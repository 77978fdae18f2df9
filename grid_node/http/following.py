"""Following a durable stream from a connection: nothing waits in memory, each entry is read when it can be sent."""

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from grid_node.streams.service import Entry, Streams


class Follower:
    """The entries of one stream above `after`, in order and once. `stop` may be called from anywhere."""

    def __init__(self, streams: Streams, stream: str, after: int) -> None:
        self._streams = streams
        self._stream = stream
        self._seq = after
        self._bell = threading.Event()
        self._subscription = streams.subscribe(stream, after, lambda _entry: self._bell.set())
        self.stopped = False

    def wait(self, seconds: float | None) -> Iterator[Entry]:
        """What has come, if need be after at most so many seconds; nothing when the time is over or it is stopped."""
        found = self._fresh()
        if not found and not self.stopped:
            self._bell.wait(seconds)
            found = self._fresh()
        for entry in found:
            self._seq = entry.seq
            yield entry

    def stop(self) -> None:
        self.stopped = True
        self._bell.set()

    def _fresh(self) -> list[Entry]:
        if self.stopped:
            return []
        self._bell.clear()
        return self._streams.after(self._stream, self._seq)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscription.close()
