"""Reading ahead: while one piece is sent, the next is read and hashed.

That is worth a thread and three large pieces of memory for a few fast readers, not for thousands of slow ones: a
process has LANES of them, and who comes when all are taken reads piece by piece.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from grid_node.blobs.store import CHUNK, Blobs

LANES = 8
LARGE = 4 * CHUNK
"""Bytes of a piece in a lane, and of the smallest blob that takes one."""

_lanes = threading.BoundedSemaphore(LANES)


def read_whole(blobs: Blobs, sha256: str) -> Iterator[bytes]:
    """All bytes, checked as `open_checked` does, and raising what it raises; ahead where that is worth it.

    Whoever stops before the end closes the iterator.
    """
    if blobs.size(sha256) <= LARGE or not _lanes.acquire(blocking=False):
        return blobs.open_checked(sha256)
    try:
        return ReadAhead(blobs.open_checked(sha256, LARGE), _lanes.release)
    except BaseException:
        _lanes.release()
        raise


class ReadAhead(Iterator[bytes]):
    """The same pieces in the same order, read by a thread of their own that begins with the first wish for one.

    Whatever ends or breaks `pieces` reaches the reader in its place. `done` is called once, when nobody reads any more.
    """

    def __init__(self, pieces: Iterator[bytes], done: Callable[[], None]) -> None:
        self._pieces = pieces
        self._done = done
        self._ready: queue.Queue[bytes | Exception | None] = queue.Queue(1)
        self._is_started = False
        self._is_closed = False

    def __next__(self) -> bytes:
        if self._is_closed:
            raise StopIteration
        if not self._is_started:
            threading.Thread(target=self._read, name="grid-read-ahead", daemon=True).start()
            self._is_started = True
        piece = self._ready.get()
        if isinstance(piece, bytes):
            return piece
        self._is_closed = True
        if piece is None:
            raise StopIteration
        raise piece

    def close(self) -> None:
        """The thread finds room for what it has in hand, and then ends."""
        was_closed, self._is_closed = self._is_closed, True
        if self._is_started:
            with contextlib.suppress(queue.Empty):
                self._ready.get_nowait()
        elif not was_closed:
            self._end()

    def __del__(self) -> None:
        self.close()

    def _read(self) -> None:
        last: Exception | None = None
        try:
            for piece in self._pieces:
                self._ready.put(piece)
                if self._is_closed:
                    return
        except Exception as error:  # noqa: BLE001 - the reader's to deal with
            last = error
        finally:
            self._end()
        self._ready.put(last)

    def _end(self) -> None:
        getattr(self._pieces, "close", lambda: None)()
        self._done()
