"""One call for many who want the same at the same time."""

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from grid_node.errors import ChainError, ChainFault, ChainTimeout, ChainUnreachable

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(eq=False)
class _Flight:
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: ChainError | None = None


class Flights(Generic[T]):
    """Runs each call in a thread of its own, so that whoever leaves takes nothing but its wait along."""

    def __init__(self) -> None:
        self._open: dict[Hashable, _Flight] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def join(self, key: Hashable, run: Callable[[], T], timeout: float) -> T:
        """What `run` returns, or what the call under the same key returns that is under way already.

        Raises the ChainError that `run` raises, and ChainTimeout after `timeout` seconds; the call goes on then.
        """
        flight = self._board(key, run)
        if not flight.done.wait(max(0.0, timeout)):
            raise ChainTimeout()
        if flight.error is not None:
            raise type(flight.error)(flight.error.message, **flight.error.data)
        result: T = flight.result
        return result

    def _board(self, key: Hashable, run: Callable[[], T]) -> _Flight:
        with self._lock:
            flight = self._open.get(key)
            if flight is not None:
                return flight
            flight = self._open[key] = _Flight()
        try:
            threading.Thread(target=self._fly, args=(key, flight, run), name="grid-chain-read", daemon=True).start()
        except BaseException:
            self._land(key, flight)
            raise
        return flight

    def _fly(self, key: Hashable, flight: _Flight, run: Callable[[], T]) -> None:
        flight.error = ChainUnreachable("Chain node is unreachable: the call was given up")
        try:
            flight.result, flight.error = run(), None
        except ChainError as error:
            flight.error = error
        except Exception:
            log.exception("a read of the chain failed")
            flight.error = ChainFault()
        finally:
            self._land(key, flight)

    def _land(self, key: Hashable, flight: _Flight) -> None:
        with self._lock:
            del self._open[key]
        flight.done.set()
