"""Durable update streams: append inside a transaction, announce after its commit, resume by seq.

A subscriber names the last seq that it has and then gets every later entry once and in order, whichever process
wrote it: an entry of this process comes straight from memory, one of another process from the table as soon as
its bell is heard. A subscription that finds a gap reads the missing entries from the table first.
"""

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, func, insert, select

from grid_node.database import Store, Transaction
from grid_node.statements import prepared
from grid_node.streams.tables import StreamEntry

log = logging.getLogger(__name__)

entries = StreamEntry.__table__
_AFTER = prepared(
    select(entries.c.stream, entries.c.seq, entries.c.body)
    .where(entries.c.stream == bindparam("stream"), entries.c.seq > bindparam("seq"))
    .order_by(entries.c.seq)
    .limit(bindparam("limit"))
)
_INSERT = prepared(insert(entries))
_NEWEST = prepared(select(func.max(entries.c.id)))
TAIL_PAGE = 1000
"""Entries that one read of the tail takes."""
_TAIL = prepared(
    select(entries.c.id, entries.c.stream, entries.c.seq, entries.c.body)
    .where(entries.c.id > bindparam("id"))
    .order_by(entries.c.id)
    .limit(TAIL_PAGE)
)
OVERLAP = 256
"""Ids below the newest one that may still be missing: PostgreSQL hands out ids before it commits them."""


def _encode(body: dict[str, Any]) -> str:
    return orjson.dumps(body).decode()


class Entry(NamedTuple):
    """One fact: `body` is what the subscriber gets, as plain JSON data, and `text` the same as JSON."""

    stream: str
    seq: int
    body: dict[str, Any]
    text: str


Deliver = Callable[[Entry], None]


class Subscription:
    """The place of one reader in one stream. `deliver` is called in order of seq, never twice for the same one."""

    def __init__(self, streams: "Streams", stream: str, after: int, deliver: Deliver) -> None:
        self.stream = stream
        self.seq = after
        self._streams = streams
        self._deliver = deliver
        self._turn = threading.Lock()

    def offer(self, entry: Entry) -> None:
        if entry.seq <= self.seq:
            return
        with self._turn:  # the writer, the poll and a bell may come at the same time
            if entry.seq > self.seq + 1:
                self._fill()
            if entry.seq == self.seq + 1:
                self._take(entry)

    def catch_up(self) -> None:
        with self._turn:
            self._fill()

    def _fill(self) -> None:
        for entry in self._streams.after(self.stream, self.seq):
            if entry.seq == self.seq + 1:
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        self.seq = entry.seq
        self._deliver(entry)

    def close(self) -> None:
        self._streams.unsubscribe(self)


class _Tail:
    """Which ids were seen: every one up to `floor`, and some above it while earlier ones are still missing."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._above: set[int] = set()

    def is_new(self, number: int) -> bool:
        """Whether this id is seen for the first time."""
        if number <= self.floor or number in self._above:
            return False
        self._above.add(number)
        if number - OVERLAP > self.floor:  # what is missing so long was rolled back
            self.floor = number - OVERLAP
            self._above = {one for one in self._above if one > self.floor}
        while self.floor + 1 in self._above:
            self.floor += 1
            self._above.remove(self.floor)
        return True


class Streams:
    """All streams of the node, and this process's subscribers to them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscribers: dict[str, list[Subscription]] = defaultdict(list)
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._tail = _Tail(0)
        self.ring: Callable[[], None] = lambda: None
        """Called after a commit that appended; app.py makes it ring the other processes."""

    def append(self, tx: Transaction, stream: str, seq: int, at: float, body: dict[str, Any]) -> None:
        """Add entry `seq`; the caller counts seq in a row of its own that the same transaction holds."""
        text = _encode(body)
        tx.execute(_INSERT, {"stream": stream, "seq": seq, "at": at, "body": text})
        tx.on_commit(partial(self._announce, Entry(stream, seq, body, text)))

    def after(self, stream: str, seq: int, limit: int = 1000) -> list[Entry]:
        """Entries of the stream above `seq`, oldest first."""
        return self._store.read(partial(self.read_after, stream=stream, seq=seq, limit=limit))

    def read_after(self, tx: Transaction, stream: str, seq: int, limit: int = 1000) -> list[Entry]:
        rows = tx.execute(_AFTER, {"stream": stream, "seq": seq, "limit": limit})
        return [Entry(row.stream, row.seq, json.loads(row.body), row.body) for row in rows]

    def subscribe(self, stream: str, after: int, deliver: Deliver) -> Subscription:
        """From now on `deliver` gets every entry above `after`; what is already there must be taken by catch_up."""
        subscription = Subscription(self, stream, after, deliver)
        with self._lock:
            self._subscribers[stream].append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        with self._lock:
            readers = self._subscribers.get(subscription.stream, [])
            if subscription in readers:
                readers.remove(subscription)
            if not readers:
                self._subscribers.pop(subscription.stream, None)

    def followed(self, stream: str) -> bool:
        """Whether anybody in this process follows the stream now."""
        return stream in self._subscribers

    def wait(self, stream: str, after: int, timeout: float) -> list[Entry]:
        """Entries above `after`; waits up to `timeout` seconds for the first one."""
        arrived = threading.Event()
        subscription = self.subscribe(stream, after, lambda _entry: arrived.set())
        try:
            found = self.after(stream, after)
            if not found and arrived.wait(timeout):
                found = self.after(stream, after)
            return found
        finally:
            subscription.close()

    def start_tail(self) -> None:
        """Announce, from here on, what other processes append."""
        self._tail = _Tail(self._store.read(lambda tx: tx.execute(_NEWEST).scalar()) or 0)

    def poll(self) -> bool:
        """Announce entries that this process has not announced; true if there are any since the last look."""
        with self._looking:  # a bell may come in the middle of a look
            found = False
            start = self._tail.floor
            while True:
                rows = self._store.read(partial(_tail_after, start=start))
                for row in rows:
                    if self._tail.is_new(row.id):
                        found = True
                        if row.stream in self._subscribers:
                            self._offer(Entry(row.stream, row.seq, json.loads(row.body), row.body))
                if len(rows) < TAIL_PAGE:
                    return found
                start = rows[-1].id

    def purge(self, tx: Transaction, older_than: float) -> int:
        """The newest entry stays: SQLite would give its id away again, and no tail would see who has it next."""
        newest = select(func.max(entries.c.id)).scalar_subquery()
        return tx.execute(delete(entries).where(entries.c.at < older_than, entries.c.id < newest)).rowcount

    def _announce(self, entry: Entry) -> None:
        self._offer(entry)
        self.ring()

    def _offer(self, entry: Entry) -> None:
        for subscription in list(self._subscribers.get(entry.stream, ())):
            subscription.offer(entry)


def _tail_after(tx: Transaction, start: int) -> list[Any]:
    return list(tx.execute(_TAIL, {"id": start}).all())
