"""Which models are loaded: the least recently used leave first, so that their bytes together stay inside a limit."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class TooLarge(Exception):
    """One model alone is above the limit."""


class Loaded(Generic[T]):
    """Models by number, with their size in bytes. The caller locks."""

    def __init__(self, bytes_max: int, count_max: int) -> None:
        self._bytes_max = bytes_max
        self._count_max = count_max
        self._entries: OrderedDict[int, tuple[int, T]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, number: int, size: int, value: T) -> list[T]:
        """Those that had to leave for it, oldest use first. Raises TooLarge; then nobody leaves."""
        if size > self._bytes_max:
            raise TooLarge
        gone = []
        while self._entries and (self.bytes + size > self._bytes_max or len(self._entries) >= self._count_max):
            _, (freed, leaver) = self._entries.popitem(last=False)
            self.bytes -= freed
            gone.append(leaver)
        self._entries[number] = (size, value)
        self.bytes += size
        return gone

    def use(self, number: int) -> T | None:
        """The model, which is now the most recently used; None when it is not loaded."""
        entry = self._entries.get(number)
        if entry is None:
            return None
        self._entries.move_to_end(number)
        return entry[1]

    def peek(self, number: int) -> T | None:
        """The model, without using it."""
        entry = self._entries.get(number)
        return None if entry is None else entry[1]

    def remove(self, number: int) -> T | None:
        entry = self._entries.pop(number, None)
        if entry is None:
            return None
        self.bytes -= entry[0]
        return entry[1]
