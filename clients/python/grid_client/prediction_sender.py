"""From the outbox to the node: oldest first, over the socket or HTTP, until there is a receipt that verifies.

One thread does all of it. A retryable refusal stops the sending; the answers that are still out are waited for, and
it starts again at the oldest entry without an end, so that the node sees the order of submission.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from grid_client.backoff import Backoff
from grid_client.clock import Clock
from grid_client.errors import ConnectionLost, GridError
from grid_client.miner_identity import MinerIdentity
from grid_client.outbox import Ending, Entry, Outbox
from grid_client.prediction_answers import REFUSED, each_of, ending_of
from grid_client.prediction_deadlines import Deadlines
from grid_client.prediction_http import PredictionHttp
from grid_client.prediction_pauses import pause_after
from grid_client.prediction_socket import PredictionSocket
from grid_client.receipts import InvalidReceipt
from grid_client.trust import RECEIPT, Trust

log = logging.getLogger(__name__)

BATCH = 64
BATCH_BYTES = 240_000
"""Below the node's usual limit of 256 KiB for a batch."""
LOOK = 0.25
"""Seconds between two looks at the outbox and the clock while nothing happens."""
OVERDUE_EVERY = 1.0
TOO_MANY = 429


@dataclass(slots=True, eq=False)
class Flight:
    """Entries whose answer is awaited over a socket. `sent_at` is in seconds of the steady clock."""

    entries: list[Entry]
    link: PredictionSocket
    sent_at: float
    is_late: bool = False


class Sender:
    """Run `run` in a thread; `ring` wakes it."""

    def __init__(
        self,
        outbox: Outbox,
        miner: MinerIdentity,
        deadlines: Deadlines,
        trust: Trust,
        http: PredictionHttp,
        *,
        link: Callable[[], PredictionSocket | None],
        may_use_http: Callable[[], bool],
        clock: Clock,
        backoff: Backoff,
        ack_timeout: float,
        longest_pause: float,
        on_finished: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._miner = miner
        self._deadlines = deadlines
        self._trust = trust
        self._http = http
        self._link = link
        self._may_use_http = may_use_http
        self._clock = clock
        self._backoff = backoff
        self._ack_timeout = ack_timeout
        self._longest_pause = longest_pause
        self._on_finished = on_finished
        self._bell = threading.Event()
        self._answers: queue.SimpleQueue[tuple[Flight, Any]] = queue.SimpleQueue()
        self._flights: list[Flight] = []
        self._after = 0
        self._is_held = False
        self._resume_at = 0.0
        self._late: set[int] = set()
        self._singly_until = 0
        self._overdue_at = float("-inf")
        self._ask_again = False
        self.last_error: GridError | None = None
        """Why nothing is sent at present, or was sent in vain."""

    def run(self, stopping: threading.Event) -> None:
        self._hold()  # after a fault too: what was under way is begun again
        while not stopping.is_set():
            try:
                self.step()
            except GridError as error:
                log.error("predictions are not sent: %s", error)
                self._hold(1.0)
            self._bell.wait(LOOK)
            self._bell.clear()

    def ring(self) -> None:
        """Something happened: a prediction was added, a connection began or ended."""
        self._bell.set()

    def welcome(self) -> None:
        """The node is there again: it can be asked what became of entries that were given up."""
        self._ask_again = True
        self.ring()

    def step(self) -> None:
        """One look at everything: answers, deadlines, entries. Raises GridError when the outbox cannot be used."""
        self._take_answers()
        self._notice_late()
        self._close_overdue()
        if self._ask_again:
            self._ask_again = False
            self._close(self._deadlines.given_up())
        while self._may_send() and self._send():
            self._take_answers()

    # --- sending --------------------------------------------------------------------------------------------------

    def _may_send(self) -> bool:
        if not self._is_held:
            return True
        if self._flights or self._clock.steady() < self._resume_at:
            return False
        self._is_held, self._after = False, 0
        return True

    def _hold(self, pause: float = 0.0) -> None:
        """Stop sending; after all answers, and not before the pause in seconds, begin with the oldest again."""
        self._resume_at = max(self._resume_at if self._is_held else 0.0, self._clock.steady() + pause)
        self._is_held = True

    def _send(self) -> bool:
        """Send the next entries; False when there is nothing to send, no room, or no way."""
        link = self._usable_link()
        room = (link.max_in_flight if link else BATCH) - sum(len(flight.entries) for flight in self._flights)
        if room <= 0 or (link is None and (self._flights or not self._may_use_http())):
            return False
        entries = self._next(min(room, link.max_batch if link else BATCH))
        if not entries:
            return False
        if link is None or entries[0].number in self._late:
            return not self._flights and self._send_by_http(entries)
        return self._send_by_socket(link, entries)

    def _usable_link(self) -> PredictionSocket | None:
        link = self._link()
        return None if link is None or link.ended or link.is_mute else link

    def _next(self, most: int) -> list[Entry]:
        """What goes into one payload: entries of one way, one by one where a batch was refused."""
        found = self._outbox.unfinished(self._miner.node_hotkey, self._miner.outbox_name, self._after, most)
        entries = self._deadlines.in_time(found)
        if not entries or entries[0].number <= self._singly_until:
            return entries[:1]
        is_late = entries[0].number in self._late
        return _within_bytes(list(takewhile(lambda entry: (entry.number in self._late) is is_late, entries)))

    def _send_by_socket(self, link: PredictionSocket, entries: list[Entry]) -> bool:
        self._mark(entries)
        flight = Flight(entries, link, self._clock.steady())
        try:
            answer = link.submit(self._payload(entries))
        except GridError as error:
            log.info("predictions were not sent: %s", error)
            self._hold()
            return False
        self._flights.append(flight)
        self._after = entries[-1].number
        answer.add_done_callback(lambda done: self._answered(flight, done))
        _log_pushed(entries, "WebSocket")
        return True

    def _send_by_http(self, entries: list[Entry]) -> bool:
        self._mark(entries)
        self._late.difference_update(entry.number for entry in entries)  # once; then by whatever way there is
        try:
            body = self._http.submit(self._payload(entries))
        except GridError as error:
            self._refused(error)
            return False
        self._after = entries[-1].number
        _log_pushed(entries, "HTTP")
        self._settle(entries, body, None)
        return True

    def _mark(self, entries: Sequence[Entry]) -> None:
        new = [entry for entry in entries if entry.state == "queued"]
        if new:
            self._outbox.mark_sent(new)

    def _payload(self, entries: Sequence[Entry]) -> dict[str, Any]:
        messages = [self._miner.message("prediction", prediction=entry.prediction) for entry in entries]
        return messages[0] if len(messages) == 1 else {"messages": messages}

    # --- answers --------------------------------------------------------------------------------------------------

    def _answered(self, flight: Flight, done: Any) -> None:
        """In the reader's thread."""
        outcome = ConnectionLost() if done.cancelled() else done.exception() or done.result()
        self._answers.put((flight, outcome))
        self.ring()

    def _take_answers(self) -> None:
        while not self._answers.empty():
            flight, outcome = self._answers.get()
            if not flight.is_late:
                self._flights.remove(flight)
            if isinstance(outcome, GridError):
                self._hold()
            else:
                self._settle(flight.entries, outcome, flight.link)

    def _notice_late(self) -> None:
        now = self._clock.steady()
        late = [flight for flight in self._flights if now - flight.sent_at >= self._ack_timeout]
        for flight in late:
            log.warning("no answer to %d predictions in %.0f s", len(flight.entries), self._ack_timeout)
            self._flights.remove(flight)
            flight.is_late = True
            self._late.update(entry.number for entry in flight.entries)
            flight.link.doubt()
            self._hold()

    def _settle(self, entries: Sequence[Entry], body: object, link: PredictionSocket | None) -> None:
        """Close the entries that an answer decides; what it leaves open is sent again."""
        endings: list[Ending] = []
        try:
            for entry, answer in zip(entries, each_of(entries, body), strict=True):
                ending = self._judged(entry, answer, link)
                endings += [ending] if ending else []
        except GridError as error:
            self._refused(error, entries)
        finally:
            self._finish(endings)

    def _judged(self, entry: Entry, answer: object, link: PredictionSocket | None) -> Ending | None:
        """None for a receipt that is not to be trusted: the entry stays open. Raises the node's GridError."""
        try:
            ending = ending_of(entry, answer, self._miner)
        except InvalidReceipt as error:
            self._hold(self._backoff.next())
            if self._trust.doubt(RECEIPT, error, entry.prediction_id) and link is not None:
                link.close()
            return None
        if ending.document is not None:
            self._trust.restore(RECEIPT)
        return ending

    def _refused(self, error: GridError, entries: Sequence[Entry] = ()) -> None:
        if len(entries) > 1 and error.status in REFUSED:
            self._singly_until = max(self._singly_until, entries[-1].number)
            self._hold()
            return
        self.last_error = error
        pause = pause_after(error, self._backoff, self._longest_pause)
        level = logging.INFO if error.status == TOO_MANY else logging.WARNING
        log.log(level, "%s; predictions are sent again in %.1f s", self._miner.explained(error), pause)
        self._hold(pause)

    def _finish(self, endings: Sequence[Ending]) -> None:
        if not endings:
            return
        self._outbox.finish(endings, self._clock.now())
        self._backoff.reset()
        self.last_error = None
        self._late.difference_update(ending.entry.number for ending in endings)
        for ending in endings:
            if ending.document is None:
                log.warning("prediction %s: %s, %s", ending.entry.prediction_id, ending.state, ending.error)
        self._on_finished()

    # --- deadlines ------------------------------------------------------------------------------------------------

    def _close_overdue(self) -> None:
        now = self._clock.steady()
        if now - self._overdue_at < OVERDUE_EVERY:
            return
        self._overdue_at = now
        self._close(self._deadlines.overdue({entry.number for flight in self._flights for entry in flight.entries}))

    def _close(self, entries: Sequence[Entry]) -> None:
        """Ask the node what became of entries that are not sent any more."""
        for ending in self._deadlines.endings(entries, self._lookup):
            self._finish([ending])

    def _lookup(self, prediction_id: str) -> dict[str, Any]:
        link = self._usable_link()
        if link is not None:
            try:
                return link.lookup(prediction_id)
            except GridError as error:
                if error.status:
                    raise
        return self._http.lookup(prediction_id)


def _within_bytes(entries: list[Entry]) -> list[Entry]:
    """As many of the first entries as fit into one batch; one at least."""
    size, count = 0, 0
    for entry in entries:
        size += len(json.dumps(entry.prediction)) + 600  # the envelope
        if count and size > BATCH_BYTES:
            break
        count += 1
    return entries[:count]


def _log_pushed(entries: Sequence[Entry], way: str) -> None:
    for entry in entries:
        log.info("Pushed prediction %s via %s", entry.prediction_id, way)
