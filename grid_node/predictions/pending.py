"""The answer to one submission, which comes after the commit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from grid_node.errors import GridError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a face sends."""

    text: str
    """JSON: the body of an ack and of an HTTP answer alike."""
    status: int
    """The HTTP status."""
    replayed: bool = False
    """A receipt that was given before."""
    codes: tuple[str, ...] = ()
    """What became of each message, in their order."""
    ids: tuple[str, ...] = ()
    """The predictions whose receipts the text holds."""
    retry_after: float | None = None

    @classmethod
    def of_error(cls, error: GridError) -> "Answer":
        return cls(error_text(error), error.status, codes=(error.code,), retry_after=error.retry_after)


def error_text(error: GridError) -> str:
    return json_text(error.body())


def json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


class Pending:
    """An answer on its way. The first `finish` counts; everybody who asked hears of it once."""

    __slots__ = ("_answer", "_callbacks", "_done", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._callbacks: list[Callable[[Answer], None]] = []
        self._done: threading.Event | None = None

    @property
    def finished(self) -> bool:
        return self._answer is not None

    def finish(self, answer: Answer) -> bool:
        """False when there was an answer already."""
        with self._lock:
            if self._answer is not None:
                return False
            self._answer = answer
            callbacks, self._callbacks, done = self._callbacks, [], self._done
        if done is not None:
            done.set()
        for callback in callbacks:
            callback(answer)
        return True

    def then(self, callback: Callable[[Answer], None]) -> None:
        """Call back with the answer, at once if it is there. The callback never waits."""
        with self._lock:
            if self._answer is None:
                self._callbacks.append(callback)
                return
        callback(self._answer)

    def wait(self, timeout: float) -> Answer | None:
        """The answer, or None when it does not come within `timeout` seconds."""
        with self._lock:
            if self._answer is not None:
                return self._answer
            self._done = self._done or threading.Event()
        self._done.wait(timeout)
        return self._answer
