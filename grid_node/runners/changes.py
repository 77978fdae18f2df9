"""The one way in which a prediction changes: its row, its stream of updates, and the webhooks that are owed for it."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import orjson

from grid_node.clock import Clock, rfc3339
from grid_node.database import Transaction
from grid_node.runners.prediction import (
    CANCELED,
    COMPLETED,
    FAILED,
    LOGS,
    OUTPUT,
    PROCESSING,
    START,
    Prediction,
    insert_prediction,
    write_changed,
)
from grid_node.streams.service import Streams

log = logging.getLogger(__name__)

Event = tuple[str, str]
DONE = "done"
STREAMED_MAX = 1000
"""Entries that the new output of one change may have in the stream: each is a row, and a report may bring 100,000."""
LOGGED_MAX = 200
"""Characters of an error of the node's own that are logged; what a worker says may be its users' and is not."""


class Announcer(Protocol):
    """Webhooks to clients."""

    def announce(self, tx: Transaction, prediction: Prediction, event: str, now: float) -> None:
        """Owe the client a webhook of this event, if it asked for such; in the transaction of the change."""


class Changes:
    """Writes predictions. The first terminal state stays: whoever changes a prediction holds its row and looks."""

    def __init__(self, streams: Streams, clock: Clock, announcer: Announcer) -> None:
        self._streams = streams
        self._clock = clock
        self._announcer = announcer
        self.queued: Callable[[], None] = lambda: None
        """Called after the commit of a new prediction, or of one that waits again."""
        self.ended: Callable[[], None] = lambda: None
        """Called after the commit of an end: a worker is free."""
        self.watched: Callable[[], None] = lambda: None
        """Called after the commit of a change that may need a look sooner: a cancel, an end."""

    def insert(self, tx: Transaction, prediction: Prediction) -> Prediction:
        """Accept a new prediction."""
        made = replace(prediction, number=insert_prediction(tx, prediction))
        tx.on_commit(self._tell_queued)
        return made

    def apply(
        self, tx: Transaction, before: Prediction, after: Prediction, reason: str = "by its worker"
    ) -> Prediction:
        """Write what differs, tell the stream, owe the webhooks. `before` is held and has not ended, unless only what
        is no result changes (counts of files and reports, warnings, removed data). `reason` is logged of a failure."""
        now = self._clock.now()
        if after.ended and not before.ended:
            after = self._completed(after, now)
        told = [] if before.ended else list(events_of(before, after))
        for offset, (event, data) in enumerate(told, before.seq + 1):
            self._streams.append(tx, before.stream, offset, now, {"event": event, "data": data})
        after = replace(after, seq=before.seq + len(told))
        write_changed(tx, before, after)
        for event in _hooks(before, after):
            self._announcer.announce(tx, after, event, now)
        if after.state == "queued" and before.state != "queued":
            tx.on_commit(self._tell_queued)
        if after.ended and not before.ended:
            tx.on_commit(self._tell_ended)
            if after.state == FAILED:
                tx.on_commit(partial(log.info, "prediction %s failed: %s", after.id, reason[:LOGGED_MAX]))
        if after.ended != before.ended or after.cancel_at != before.cancel_at:
            tx.on_commit(self._tell_watched)
        return after

    def end(self, tx: Transaction, before: Prediction, state: str, error: str | None = None) -> Prediction:
        """The node itself ends a prediction. One that has ended stays as it is."""
        return self._end(tx, before, state, error, error or "")

    def fail(self, tx: Transaction, before: Prediction, error: str, detail: str | None = None) -> Prediction:
        """`detail` is what a worker said of it, and not for the log."""
        return self._end(tx, before, FAILED, error if detail is None else f"{error}: {detail}", error)

    def _end(self, tx: Transaction, before: Prediction, state: str, error: str | None, reason: str) -> Prediction:
        if before.ended:
            return before
        return self.apply(tx, before, replace(before, state=state, error=error), reason)

    def _tell_queued(self) -> None:
        self.queued()

    def _tell_ended(self) -> None:
        self.ended()

    def _tell_watched(self) -> None:
        self.watched()

    @staticmethod
    def _completed(after: Prediction, now: float) -> Prediction:
        times = {"completed_at": rfc3339(now), **after.times}
        return replace(after, finished_at=now, times=times, claimed_until=None)


def events_of(before: Prediction, after: Prediction) -> Iterator[Event]:
    """What the stream tells of a change: new output, new log text, the end."""
    yield from (("output", text) for text in _bundled([_text(item) for item in new_output(before, after)]))
    if after.logs_length > before.logs_length:
        yield "logs", after.logs[-(after.logs_length - before.logs_length) :]
    if not after.ended:
        return
    if after.state == FAILED:
        yield "error", _text({"detail": after.error or ""})
    yield done_of(after)


def done_of(prediction: Prediction) -> Event:
    """The last update."""
    reason = {CANCELED: "canceled", FAILED: "error"}.get(prediction.state)
    return DONE, _text({"reason": reason} if reason else {})


def _bundled(texts: list[str]) -> list[str]:
    """No more than STREAMED_MAX of them: what comes faster than it can be told is told in larger pieces."""
    size = -(-len(texts) // STREAMED_MAX)
    return texts if size <= 1 else ["".join(texts[start : start + size]) for start in range(0, len(texts), size)]


def new_output(before: Prediction, after: Prediction) -> list[Any]:
    """Items of a list that were not there before, in order; another output once it is there for good."""
    if isinstance(after.output, list):
        old = before.output if isinstance(before.output, list) else []
        if after.output[: len(old)] == old:
            return after.output[len(old) :]
        had = Counter(map(_text, old))
        return [item for item in after.output if not _taken(had, _text(item))]
    return [after.output] if after.ended and after.output is not None else []


def _taken(had: Counter[str], text: str) -> bool:
    """Whether this is one of those that were there; each counts once."""
    if had[text] <= 0:
        return False
    had[text] -= 1
    return True


def _hooks(before: Prediction, after: Prediction) -> Iterator[str]:
    if before.ended or after.webhook is None:
        return
    if after.state == PROCESSING and before.state != PROCESSING:
        yield START
    if after.ended:
        yield COMPLETED
        return
    if after.output != before.output:
        yield OUTPUT
    if after.logs_length != before.logs_length:
        yield LOGS


def _text(data: Any) -> str:
    return data if isinstance(data, str) else orjson.dumps(data).decode()
