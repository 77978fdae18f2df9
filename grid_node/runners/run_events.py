"""The updates of a prediction as a reader follows them: offsets, resume, and what the row tells where they are gone."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from grid_node.database import Store, Transaction
from grid_node.runners.changes import DONE, done_of, events_of
from grid_node.runners.prediction import CANCELED, PROCESSING, Prediction, by_number
from grid_node.streams.service import Entry, Streams

_OFFSET = re.compile(r"(?P<epoch>[0-9a-f]{1,16}):(?P<seq>[0-9]{1,10})")


class RunEvent(NamedTuple):
    """One update. `offset` is `<epoch>:<seq>`; with it a reader goes on behind this update."""

    event: str
    data: str
    offset: str


class Start(NamedTuple):
    """Where a reader begins. `recovered`: it goes on exactly where it said, and not from the beginning again.

    `instead`: these are all, because there are none behind that place, or because those that were are not kept any
    more and the row tells what it knows.
    """

    after: int
    recovered: bool
    instead: list[RunEvent] | None


def run_event(prediction: Prediction, entry: Entry) -> RunEvent:
    return RunEvent(entry.body["event"], entry.body["data"], f"{prediction.epoch}:{entry.seq}")


def start_of(tx: Transaction, streams: Streams, prediction: Prediction, given: str | None) -> Start:
    """`given` is the offset of the last update that the reader has; one that is none counts as nothing read."""
    after, recovered = _after(prediction, given)
    if prediction.ended and 0 < after == prediction.seq:
        return Start(after, True, [])
    first = streams.read_after(tx, prediction.stream, after, 1)
    if prediction.ended and (not first or first[0].seq != after + 1):
        return Start(prediction.seq, recovered=False, instead=list(told_by_row(prediction)))
    return Start(after, recovered, None)


def told_by_row(prediction: Prediction) -> Iterator[RunEvent]:
    """Everything at once. Offsets before the end begin anew, for there is no place between these."""
    unread = replace(
        prediction, state=PROCESSING, output=None, logs_length=prediction.logs_length - len(prediction.logs)
    )
    for event, data in events_of(unread, prediction):
        yield RunEvent(event, data, f"{prediction.epoch}:{prediction.seq if event == DONE else 0}")


def end_of(prediction: Prediction, offset: str) -> RunEvent:
    return RunEvent(*done_of(prediction), offset)


def ended_meanwhile(store: Store, prediction: Prediction) -> Prediction | None:
    """The prediction, if it has ended or is gone: nothing more is to come."""
    now = store.read(partial(by_number, number=prediction.number))
    if now is None:
        return replace(prediction, state=CANCELED)
    return now if now.ended else None


def _after(prediction: Prediction, given: str | None) -> tuple[int, bool]:
    if given is None:
        return 0, True
    match = _OFFSET.fullmatch(given)
    if match is None or match["epoch"] != prediction.epoch or int(match["seq"]) > prediction.seq:
        return 0, False
    return int(match["seq"]), True
