"""What holds when several processes write to one database, on PostgreSQL in truly parallel transactions."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select, text, update

from grid_node.database import DirectStore, Store, Transaction, make_engine
from grid_node.errors import StoreUnavailable
from grid_node.generation.tables import KeyTurn
from grid_node.streams.service import OVERLAP, Streams
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

rows = KeyTurn.__table__
WAIT = 20.0
NOW = 1_800_000_000.0


@pytest.fixture
def postgres(postgres_tables: str) -> Iterator[DirectStore]:
    engine = make_engine(postgres_tables)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE key_turns, stream_entries RESTART IDENTITY"))
    made = DirectStore(engine)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def turns(tx: Transaction) -> dict[str, int]:
    return {row.key_id: row.turn for row in tx.execute(select(rows))}


def put(tx: Transaction, key: str, turn: int) -> None:
    if not tx.execute(update(rows).where(rows.c.key_id == key).values(turn=turn)).rowcount:
        tx.execute(insert(rows), {"key_id": key, "turn": turn})


def test_a_read_sees_one_moment_whatever_is_committed_meanwhile(store: Store, pool: ThreadPoolExecutor) -> None:
    store.write(partial(put, key="a", turn=1))

    def look(tx: Transaction) -> tuple[dict[str, int], dict[str, int]]:
        before = turns(tx)
        pool.submit(store.write, partial(put, key="a", turn=2)).result(WAIT)
        return before, turns(tx)

    assert store.read(look) == ({"a": 1}, {"a": 1})
    assert store.read(turns) == {"a": 2}


@pytest.mark.postgres
def test_a_read_can_write_nothing(postgres: DirectStore) -> None:
    with pytest.raises(Exception, match="read-only transaction"):
        postgres.read(partial(put, key="a", turn=1))
    assert postgres.read(turns) == {}


@pytest.mark.postgres
def test_a_unit_that_lost_the_race_for_a_row_runs_again_and_sees_the_winner(
    postgres: DirectStore, pool: ThreadPoolExecutor
) -> None:
    meet = threading.Barrier(2)
    runs: list[int] = []

    def count(tx: Transaction) -> None:
        found = turns(tx).get("a", 0)
        runs.append(found)
        if len(runs) <= 2:
            meet.wait(WAIT)
        if found:
            put(tx, "a", found + 1)
        else:
            tx.execute(insert(rows), {"key_id": "a", "turn": 1})

    for one in [pool.submit(postgres.write, count) for _ in range(2)]:
        one.result(WAIT)
    assert sorted(runs) == [0, 0, 1]
    assert postgres.read(turns) == {"a": 2}


@pytest.mark.postgres
def test_when_every_connection_is_in_use_the_database_is_unavailable(
    postgres_tables: str, pool: ThreadPoolExecutor
) -> None:
    small = DirectStore(create_engine(postgres_tables, pool_size=1, max_overflow=0, pool_timeout=0.1))
    busy, let_go = threading.Event(), threading.Event()

    def occupy(_tx: Transaction) -> bool:
        busy.set()
        return let_go.wait(WAIT)

    occupied = pool.submit(small.write, occupy)
    assert busy.wait(WAIT)
    for ask in (small.read, small.write):
        with pytest.raises(StoreUnavailable) as refusal:
            ask(turns)
        assert refusal.value.retry_after == 1
    let_go.set()
    assert occupied.result(WAIT)
    small.read(turns)
    small.close()


@pytest.mark.postgres
def test_an_entry_whose_commit_was_overtaken_is_told_when_it_comes(
    postgres: DirectStore, pool: ThreadPoolExecutor
) -> None:
    here, there = Streams(postgres), Streams(postgres)
    here.start_tail()
    heard: list[str] = []
    for name in ("early", "late"):
        here.subscribe(name, 0, lambda entry: heard.append(entry.stream))
    taken, commit = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        there.append(tx, "early", 1, NOW, {})
        taken.set()
        assert commit.wait(WAIT)

    writing = pool.submit(postgres.write, slow)
    assert taken.wait(WAIT)
    postgres.write(lambda tx: there.append(tx, "late", 1, NOW, {}))
    assert here.poll()
    assert heard == ["late"]
    assert not here.poll()
    commit.set()
    writing.result(WAIT)
    assert here.poll()
    assert heard == ["late", "early"]
    assert not here.poll()


@pytest.mark.postgres
def test_what_was_rolled_back_is_not_waited_for_for_ever(postgres: DirectStore) -> None:
    here, there = Streams(postgres), Streams(postgres)
    here.start_tail()

    def append(tx: Transaction, seq: int, fail: bool = False) -> None:
        there.append(tx, "a", seq, NOW, {})
        if fail:
            raise StoreUnavailable(retry_after=1)

    with pytest.raises(StoreUnavailable):
        postgres.write(partial(append, seq=1, fail=True))

    def many(tx: Transaction) -> None:
        for seq in range(1, OVERLAP + 3):
            append(tx, seq)

    postgres.write(many)
    heard: list[int] = []
    here.subscribe("a", 0, lambda entry: heard.append(entry.seq))
    assert here.poll()
    assert heard == list(range(1, OVERLAP + 3))
    assert here._tail.floor == OVERLAP + 3
    assert not here.poll()


def test_the_newest_entry_outlives_its_time_so_that_no_tail_goes_astray(store: Store) -> None:
    here, there = Streams(store), Streams(store)
    store.write(lambda tx: there.append(tx, "a", 1, NOW, {}))
    here.start_tail()
    store.write(lambda tx: here.purge(tx, NOW + 1))
    heard: list[Any] = []
    here.subscribe("b", 0, heard.append)
    store.write(lambda tx: there.append(tx, "b", 1, NOW + 2, {}))
    assert here.poll()
    assert [entry.stream for entry in heard] == ["b"]
