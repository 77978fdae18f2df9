"""A page of memory that the node shares with a process: which models run at this moment, without a word on the wire.

The process writes, the node reads, also after the process has died: that is how it knows which models were running
then. A slot belongs to one load; the node gives it out. No torch here.
"""

import mmap
import os

SLOTS = 1024
DESCRIBING = 0
"""The slot of checks at serve time; loads have the others."""
_SIZE = SLOTS * 2 * 8


class Board:
    """Each slot holds two float64: when its batch (or its loading) started, 0.0 while nothing runs, and how many
    batches it has run. Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share."""

    def __init__(self, descriptor: int) -> None:
        self._cells = memoryview(mmap.mmap(descriptor, _SIZE)).cast("d")

    @staticmethod
    def create() -> int:
        """A descriptor of a fresh page, closed on exec unless passed on."""
        descriptor = os.memfd_create("grid-board")
        os.ftruncate(descriptor, _SIZE)
        return descriptor

    def begin(self, slot: int, now: float) -> None:
        self._cells[2 * slot] = now

    def end(self, slot: int) -> None:
        self._cells[2 * slot] = 0.0

    def count(self, slot: int) -> None:
        self._cells[2 * slot + 1] += 1.0

    def since(self, slot: int) -> float:
        """When what runs in `slot` started; 0.0 when nothing does."""
        return self._cells[2 * slot]

    @property
    def executions(self) -> int:
        """Batches run so far, over all slots."""
        return int(sum(self._cells[1::2].tolist()))
