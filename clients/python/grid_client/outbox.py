"""The outbox: predictions on their way to nodes, in a SQLite file that outlives the miner.

What `add` returned survives kill -9 and a power cut (write-ahead log, `synchronous=FULL`). An entry is `queued`, then
`sent`, and ends as `accepted` or `rejected` (by the node), `conflict` (the node has another body under this id),
`expired` (the node never had it, and it is too late) or `unresolved` (too late, and the node cannot be asked).
Several clients, in several processes too, may use one file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid_client.errors import GridError
from grid_client.receipts import Receipt, body_digest, canonical

OPEN = ("queued", "sent")
CLOSED = ("accepted", "rejected", "conflict", "expired", "unresolved")
STATES = (*OPEN, *CLOSED)
VERSION = 1
BUSY_TIMEOUT = 10.0
"""Seconds that an operation waits for another process or thread."""

_SCHEMA = """
CREATE TABLE predictions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    node_hotkey TEXT NOT NULL,
    prediction_id TEXT NOT NULL,
    miner TEXT NOT NULL,
    state TEXT NOT NULL,
    prediction TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    deadline REAL NOT NULL,
    finished_at REAL,
    error TEXT,
    receipt TEXT,
    UNIQUE (node_hotkey, prediction_id)
);
CREATE INDEX predictions_open ON predictions (node_hotkey, miner, number) WHERE finished_at IS NULL;
CREATE INDEX predictions_unresolved ON predictions (node_hotkey, miner, number) WHERE state = 'unresolved';
"""
_COLUMNS = (
    "number, node_hotkey, prediction_id, miner, state, prediction, body_sha256, submitted_at, deadline,"
    " finished_at, error, receipt"
)
_MINE = "node_hotkey = ? AND miner = ? AND finished_at IS NULL"
_UNKNOWN = "node_hotkey = ? AND miner = ? AND state = 'unresolved'"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row. Times are seconds since 1970; `number` is the order of submission."""

    number: int
    node_hotkey: str
    prediction_id: str
    miner: str
    state: str
    prediction: dict[str, Any]
    body_sha256: str
    submitted_at: float
    deadline: float
    """From then on it is not sent any more; the node is asked what became of it."""
    finished_at: float | None
    error: dict[str, Any] | None
    """Why it ended without a receipt: `code` and `error`, as the node said it."""
    document: dict[str, Any] | None
    """The signed receipt."""

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    @property
    def receipt(self) -> Receipt | None:
        return Receipt.of(self.document) if self.document else None


@dataclass(frozen=True, slots=True)
class Ending:
    """How an entry ends."""

    entry: Entry
    state: str
    document: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


class Outbox:
    """Safe for threads. Every method raises GridError `outbox_unavailable`, after `BUSY_TIMEOUT` at most."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._open = True
        with self._faults():
            self._connection = self._connect()

    # --- what a miner does ----------------------------------------------------------------------------------------

    def add(self, node_hotkey: str, miner: str, prediction: Mapping[str, Any], deadline: float, now: float) -> str:
        """Returns the prediction's id once it is on disk; the same body again changes nothing.

        Raises GridError `conflict` when the id is taken by another body or another miner, `invalid_prediction` when
        the prediction has no canonical form.
        """
        try:
            text, digest = canonical(prediction).decode(), body_digest(prediction)
        except ValueError as error:
            raise GridError("invalid_prediction", str(error)) from None
        prediction_id = prediction["prediction_id"]
        row = (node_hotkey, prediction_id, miner, text, digest, now, deadline)
        with self._transaction() as run:
            run(
                "INSERT INTO predictions (node_hotkey, prediction_id, miner, state, prediction, body_sha256,"
                " submitted_at, deadline) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            )
            kept = run(
                "SELECT miner, body_sha256 FROM predictions WHERE node_hotkey = ? AND prediction_id = ?",
                (node_hotkey, prediction_id),
            ).fetchone()
        if kept != (miner, digest):
            raise GridError("conflict", f"the outbox has another prediction under the id {prediction_id}")
        return str(prediction_id)

    def get(self, node_hotkey: str, prediction_id: str) -> Entry | None:
        found = self._select("node_hotkey = ? AND prediction_id = ?", (node_hotkey, prediction_id), 1)
        return found[0] if found else None

    def entries(
        self, node_hotkey: str | None = None, states: Iterable[str] = STATES, after: int = 0, limit: int = 100
    ) -> list[Entry]:
        """Entries above the number `after`, in the order of submission."""
        wanted = list(states)
        where = f"number > ? AND state IN ({','.join('?' * len(wanted))})"
        values: list[Any] = [after, *wanted]
        if node_hotkey is not None:
            where, values = where + " AND node_hotkey = ?", [*values, node_hotkey]
        return self._select(where, values, limit)

    def counts(self, node_hotkey: str | None = None) -> dict[str, int]:
        """Entries by state."""
        where, values = ("WHERE node_hotkey = ?", (node_hotkey,)) if node_hotkey is not None else ("", ())
        with self._transaction(writes=False) as run:
            found = dict(run(f"SELECT state, count(*) FROM predictions {where} GROUP BY state", values).fetchall())
        return {state: found.get(state, 0) for state in STATES}

    # --- what a sender does ---------------------------------------------------------------------------------------

    def unfinished(self, node_hotkey: str, miner: str, after: int, limit: int) -> list[Entry]:
        """Entries above the number `after` that have not ended, oldest first."""
        return self._select(f"{_MINE} AND number > ?", (node_hotkey, miner, after), limit)

    def unresolved(self, node_hotkey: str, miner: str, limit: int) -> list[Entry]:
        """The newest entries of which nobody could say what became of them."""
        where = f"number IN (SELECT number FROM predictions WHERE {_UNKNOWN} ORDER BY number DESC LIMIT ?)"
        return self._select(where, (node_hotkey, miner, limit), limit)

    def overdue(self, node_hotkey: str, miner: str, now: float, limit: int) -> list[Entry]:
        """Entries that have not ended and whose deadline has passed."""
        return self._select(f"{_MINE} AND deadline <= ?", (node_hotkey, miner, now), limit)

    def mark_sent(self, entries: Iterable[Entry]) -> None:
        """These entries are about to be sent."""
        with self._transaction() as run:
            for entry in entries:
                run("UPDATE predictions SET state = 'sent' WHERE number = ? AND finished_at IS NULL", (entry.number,))

    def move_deadlines(self, deadlines: Mapping[int, float]) -> None:
        """Entries (by number) whose deadline is known better now."""
        with self._transaction() as run:
            for number, deadline in deadlines.items():
                run("UPDATE predictions SET deadline = ? WHERE number = ? AND finished_at IS NULL", (deadline, number))

    def finish(self, endings: Iterable[Ending], now: float) -> None:
        """Durable on return. An entry that ended already stays as it is, unless it ended as `unresolved`."""
        with self._transaction() as run:
            for ending in endings:
                values = (ending.state, now, _text(ending.error), _text(ending.document), ending.entry.number)
                run(
                    "UPDATE predictions SET state = ?, finished_at = ?, error = ?, receipt = ?"
                    " WHERE number = ? AND (finished_at IS NULL OR state = 'unresolved')",
                    values,
                )

    def close(self) -> None:
        """What is called later raises GridError `outbox_closed`."""
        with self._locked():
            if self._open:
                self._open = False
                self._connection.close()

    # --- the file -------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # wagers are nobody else's business
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _use_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            _create(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _select(self, where: str, values: Iterable[Any], limit: int) -> list[Entry]:
        statement = f"SELECT {_COLUMNS} FROM predictions WHERE {where} ORDER BY number LIMIT ?"
        with self._transaction(writes=False) as run:
            return [_entry(row) for row in run(statement, (*values, limit)).fetchall()]

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[Any]:
        with self._locked(), self._faults():
            if not self._open:
                raise GridError("outbox_closed", f"{self._path} was closed")
            if not writes:
                yield self._connection.execute
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_TIMEOUT):
            raise GridError("outbox_unavailable", f"{self._path} is busy")
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise GridError("outbox_unavailable", f"{self._path}: {error}") from error


def _use_log(connection: sqlite3.Connection) -> None:
    """Write-ahead log; SQLite's own waiting does not cover this change, which needs the file for itself."""
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise GridError("outbox_too_new", "this outbox was made by a newer version of grid-client")
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _entry(row: tuple[Any, ...]) -> Entry:
    members: list[Any] = list(row)
    members[5], members[10], members[11] = json.loads(row[5]), _value(row[10]), _value(row[11])
    return Entry(*members)


def _text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _value(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
