"""The reports of workers as they came: every raw body can be read again, at a fraction of what was received.

Cog repeats the whole log in each hook. So a body is kept as what lies between the bytes that it has in common with an
earlier one of the same prediction, at its start and at its end, compressed with zlib; the earlier one, its *base*, is
whole. A body that has less than half in common with the last base is the next base. Bases are remembered in memory:
where they are not (another process, a restart), the next body becomes one. Nothing is read to write.
"""

import hashlib
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, insert, select, update

from grid_node.clock import rfc3339
from grid_node.database import Offload, Transaction
from grid_node.runners.prediction import Prediction
from grid_node.runners.report import kept_text
from grid_node.runners.tables import RunnerEvent
from grid_node.statements import prepared

OFFLOADED = 64 * 1024
"""Bytes from which on a body is hashed and compressed off the hub."""
BASE_MAX = 4 * 1024 * 1024
BASES_MAX = 32 * 1024 * 1024
"""Bytes of one base, and of all that this process remembers."""
_BESIDE = 1024
"""Bytes that a base takes beside its body, at most."""
PAGE_MAX = 100
PAGE_BYTES = 4 * 1024 * 1024
"""Reports, and bytes of their bodies, that one page holds; the first of a page always fits."""
_BLOCK = 64 * 1024
"""Bytes that are compared at a time."""
_WHOLE, _REST, _PASSING = b"W", b"R", b"P"
"""First byte of a kept body: whole, the rest beside its base, or whole and only there until it is merged."""
_COMMON = struct.Struct(">QII")
"""Of a rest: seq of the base, bytes in common at the start, and at the end."""

events = RunnerEvent.__table__
_INSERT = prepared(insert(events).returning(events.c.id))
_BY_ID = prepared(select(events).where(events.c.id == bindparam("event")))
_BY_SEQ = prepared(
    select(events.c.body).where(events.c.prediction == bindparam("number"), events.c.seq == bindparam("seq"))
)
_WAITING = prepared(
    select(events)
    .where(events.c.merged.is_(False), events.c.prediction == bindparam("number"))
    .order_by(events.c.seq)
    .limit(1)
)
_UNMERGED = prepared(
    select(events.c.id, events.c.received_at)
    .where(events.c.merged.is_(False), events.c.received_at < bindparam("edge"))
    .order_by(events.c.prediction, events.c.seq)
    .limit(100)
)
_PAGE = prepared(
    select(events)
    .where(events.c.prediction == bindparam("number"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)
_ANY_ABOVE = prepared(
    select(events.c.seq).where(events.c.prediction == bindparam("number"), events.c.seq > bindparam("after")).limit(1)
)
_DELETE = prepared(delete(events).where(events.c.id == bindparam("event")))


class ReportPage(NamedTuple):
    """Oldest first. `next`: the seq above which there are more, None if there are none."""

    results: list[dict[str, Any]]
    next: int | None


@dataclass(frozen=True, slots=True)
class Base:
    """A body that others are kept beside."""

    number: int
    seq: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A body that is ready to be kept. `name` says whose it is before its row is known."""

    name: str
    raw: bytes
    sha256: str
    base: Base | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What the log keeps beside the body."""

    at: float
    auth: str
    status: str | None
    late: bool
    merged: bool
    ends: bool


class EventLog:
    """Keeps reports. `packed` works outside of transactions, the others inside of the caller's."""

    def __init__(self, most: int, most_bytes: int, offload: Offload) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._offload = offload
        self._bases: OrderedDict[str, Base] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def packed(self, name: str, raw: bytes) -> Packed:
        base = self._bases.get(name)
        make: Callable[..., Packed] = partial(_packed, name, raw, base)
        made: Packed = self._offload(make) if len(raw) > OFFLOADED else make()
        return made

    def append(self, tx: Transaction, after: Prediction, packed: Packed, entry: Entry) -> tuple[Prediction, int | None]:
        """The prediction with its counts, and the id of the new row; None: there are too many already.

        Beyond the limits only the end of a prediction is kept, and what waits to be merged until it is.
        """
        size = len(packed.raw)
        over = after.events >= self._most or after.events_bytes + size > self._most_bytes
        counted = replace(after, events=after.events + 1, events_bytes=after.events_bytes + size)
        passing = over and not (entry.ends and not entry.late)
        if passing and entry.merged:
            return counted, None
        kept = None if after.data_removed else _PASSING + _whole(packed.raw) if passing else self._body(packed, after)
        values = {
            "prediction": after.number, "seq": counted.events, "received_at": entry.at, "auth": entry.auth,
            "status": entry.status, "sha256": packed.sha256, "size": size, "body": kept,
            "late": entry.late, "merged": entry.merged,
        }  # fmt: skip
        if kept is not None and kept[:1] == _WHOLE:
            tx.on_commit(partial(self._remember, packed.name, Base(after.number, counted.events, packed.raw)))
        return counted, int(tx.execute(_INSERT, values).scalar_one())

    def settle(self, tx: Transaction, event: Any, *, late: bool, status: str | None, ended: bool) -> None:
        """This report is merged, or changes nothing; `ended`: it was the end of its prediction."""
        passing = event.body is not None and event.body[:1] == _PASSING
        if passing and not ended:
            tx.execute(_DELETE, {"event": event.id})
            return
        values = {"merged": True, "late": late, "status": status}
        if passing:
            values["body"] = _WHOLE + event.body[1:]
        tx.execute(update(events).where(events.c.id == event.id).values(**values))

    def raw(self, tx: Transaction, event: Any, bases: dict[int, bytes] | None = None) -> bytes | None:
        """The body as it came; None where it is not kept. `bases` by seq are those that the caller has already."""
        if event.body is None:
            return None
        kind, rest = event.body[:1], event.body[1:]
        if kind != _REST:
            return zlib.decompress(rest)
        seq, start, end = _COMMON.unpack_from(rest)
        base = _base(tx, event.prediction, seq, {} if bases is None else bases)
        if base is None:
            return None
        return base[:start] + zlib.decompress(rest[_COMMON.size :]) + base[len(base) - end :]

    def page(self, tx: Transaction, number: int, after: int, limit: int, *, as_text: bool) -> ReportPage:
        """Reports above `after`, as clients see them."""
        found = list(self._page(tx, number, after, max(1, min(limit, PAGE_MAX)), as_text))
        last = found[-1]["seq"] if found else after
        more = bool(found) and tx.execute(_ANY_ABOVE, {"number": number, "after": last}).scalar() is not None
        return ReportPage(found, last if more else None)

    def _page(self, tx: Transaction, number: int, after: int, limit: int, as_text: bool) -> Iterator[dict[str, Any]]:
        told, bases = 0, dict[int, bytes]()
        for event in tx.execute(_PAGE, {"number": number, "after": after, "limit": limit}):
            told += event.size
            if told > PAGE_BYTES and told > event.size:
                return
            yield _view(event, self.raw(tx, event, bases), as_text)

    def _body(self, packed: Packed, after: Prediction) -> bytes:
        """A base of a prediction that had this name before is none."""
        if packed.base is not None and packed.base.number != after.number:
            return _WHOLE + _whole(packed.raw)
        return packed.body

    def _remember(self, name: str, base: Base) -> None:
        if len(base.raw) > BASE_MAX:
            return
        with self._lock:
            if (before := self._bases.pop(name, None)) is not None:
                self._size -= len(before.raw) + _BESIDE
            self._bases[name] = base
            self._size += len(base.raw) + _BESIDE
            while self._size > BASES_MAX:
                self._size -= len(self._bases.popitem(last=False)[1].raw) + _BESIDE


def event_by_id(tx: Transaction, event: int) -> Any:
    return tx.execute(_BY_ID, {"event": event}).one_or_none()


def first_waiting(tx: Transaction, number: int) -> Any:
    """The oldest report of the prediction that is not merged yet, or None."""
    return tx.execute(_WAITING, {"number": number}).one_or_none()


def unmerged_before(tx: Transaction, edge: float) -> list[Any]:
    """`id` and `received_at` of reports that came before `edge` and still wait, a hundred at most."""
    return list(tx.execute(_UNMERGED, {"edge": edge}))


def _base(tx: Transaction, number: int, seq: int, bases: dict[int, bytes]) -> bytes | None:
    if seq not in bases:
        body = tx.execute(_BY_SEQ, {"number": number, "seq": seq}).scalar()
        if body is None:
            return None
        bases.clear()
        bases[seq] = zlib.decompress(body[1:])
    return bases[seq]


def _packed(name: str, raw: bytes, base: Base | None) -> Packed:
    digest = hashlib.sha256(raw).hexdigest()
    start, end = _common(base.raw, raw) if base is not None else (0, 0)
    if base is None or start + end < len(raw) // 2:
        return Packed(name, raw, digest, None, _WHOLE + _whole(raw))
    rest = zlib.compress(raw[start : len(raw) - end])
    return Packed(name, raw, digest, base, _REST + _COMMON.pack(base.seq, start, end) + rest)


def _whole(raw: bytes) -> bytes:
    return zlib.compress(raw)


def _common(base: bytes, raw: bytes) -> tuple[int, int]:
    """How many bytes both have in common at their starts, and of the rest at their ends."""
    most, ours, theirs = min(len(base), len(raw)), len(base), len(raw)
    start = _longest(most, lambda low, high: base[low:high] == raw[low:high])
    end = _longest(most - start, lambda low, high: base[ours - high : ours - low] == raw[theirs - high : theirs - low])
    return start, end


def _longest(most: int, same: Callable[[int, int], bool]) -> int:
    """Where the first difference below `most` is; `same` compares from one place to another."""
    low = 0
    while low < most and same(low, min(low + _BLOCK, most)):
        low = min(low + _BLOCK, most)
    high = min(low + _BLOCK, most)
    while high - low > 1:
        middle = (low + high) // 2
        if same(low, middle):
            low = middle
        else:
            high = middle
    return low


def _view(event: Any, raw: bytes | None, as_text: bool) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "received_at": rfc3339(event.received_at),
        "auth": event.auth,
        "status": event.status,
        "size": event.size,
        "sha256": event.sha256,
        "late": event.late,
        "merged": event.merged,
        "body": None if raw is None else _shown(raw, as_text),
    }


def _shown(raw: bytes, as_text: bool) -> Any:
    if not as_text:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    return kept_text(raw.decode("utf-8", "replace"))
