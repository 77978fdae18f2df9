"""Which models one process has loaded, or is loading, as the node knows it."""

import itertools
import threading
from dataclasses import dataclass, field
from typing import Any

from models_store.board import DESCRIBING, SLOTS

FAILED_PAUSE = 10.0
"""Seconds after which a model that could not be loaded is tried again."""


@dataclass(slots=True)
class Load:
    """One load of a model. `state` is `loading`, `ready` or `failed`."""

    number: int
    slot: int
    key: str
    state: str = "loading"
    problem: dict[str, Any] = field(default_factory=dict)
    """Why it failed."""
    again_at: float = 0.0
    is_sent: bool = False
    """Requests for it may follow."""
    sent: threading.Event = field(default_factory=threading.Event)
    """Set when it was sent or came to nothing."""


class NoSlot(Exception):
    """Too many models are loaded."""


class Loads:
    """The table of one process; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[str, Load] = {}
        self._by_number: dict[int, Load] = {}
        self._free = [slot for slot in range(SLOTS - 1, -1, -1) if slot != DESCRIBING]
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Load | None:
        return self._by_key.get(key)

    def begin(self, key: str, now: float) -> tuple[Load, bool]:
        """The load of `key`, and whether it is new and the caller's to send. Raises NoSlot."""
        with self._lock:
            load = self._by_key.get(key)
            if load is not None and (load.state != "failed" or now < load.again_at):
                return load, False
            if not self._free:
                raise NoSlot
            load = Load(next(self._numbers), self._free.pop(), key)
            self._by_key[key] = self._by_number[load.number] = load
            return load, True

    def loaded(self, number: int) -> None:
        load = self._by_number.get(number)
        if load is not None:
            load.state = "ready"

    def gone(self, number: int, problem: dict[str, Any] | None, now: float) -> None:
        """The process has let go of it, or never had it: `problem` says why it failed."""
        with self._lock:
            load = self._by_number.pop(number, None)
            if load is None:
                return
            self._free.append(load.slot)
            if problem is not None:
                load.state, load.problem, load.again_at = "failed", problem, now + FAILED_PAUSE
            elif self._by_key.get(load.key) is load:
                del self._by_key[load.key]

    def drop(self, key: str) -> Load | None:
        """Forget the key; its slot stays taken until the process says that it is gone."""
        with self._lock:
            return self._by_key.pop(key, None)

    def slots(self) -> list[tuple[int, str]]:
        """Slots in use, with their keys."""
        with self._lock:
            return [(load.slot, load.key) for load in self._by_number.values()]
