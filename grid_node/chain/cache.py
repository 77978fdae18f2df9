"""Ready answers, kept up to a number of bytes; what was longest unused goes first."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

OVERHEAD = 512
"""Bytes that an entry costs beside its body, roughly: many small ones must not escape the limit."""


class ByteCache(Generic[T]):
    """A map that holds at most `max_bytes`. Several threads may use it; a value is shared and must not be changed."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max = max_bytes
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep `value`, which takes `size` bytes, in the place of what the key had. One that is too large for the
        whole cache is not kept."""
        cost = size + OVERHEAD
        with self._lock:
            self._drop(key)
            if cost > self._max:
                return
            self._kept[key] = value, cost
            self.bytes += cost
            while self.bytes > self._max:
                _, (_, freed) = self._kept.popitem(last=False)
                self.bytes -= freed

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def values(self) -> list[T]:
        with self._lock:
            return [value for value, _cost in self._kept.values()]

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= found[1]
