"""What a store promises to every unit of work, and what the group commit promises to a batch of them."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, update

from grid_node.database import Base, DirectStore, GroupCommitStore, Store, Transaction, make_engine
from grid_node.errors import QueueFull, StoreFull, StoreUnavailable
from grid_node.generation.tables import KeyTurn
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

rows = KeyTurn.__table__
WAIT = 20.0


def add(name: str, tx: Transaction) -> str:
    tx.execute(insert(rows), {"key_id": name, "turn": 1})
    return name


def add_and_fail(name: str, error: Exception, tx: Transaction) -> None:
    add(name, tx)
    raise error


def names(store: Store) -> set[str]:
    return set(store.read(lambda tx: tx.execute(select(rows.c.key_id)).scalars().all()))


class GatedDisk:
    """The offload of a store: each commit waits for the test, so that what comes meanwhile is one batch."""

    def __init__(self) -> None:
        self.commits = 0
        self.fault: Exception | None = None
        self._open = threading.Event()
        self._reached = threading.Semaphore(0)
        self._open.set()

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        self.commits += 1
        self._reached.release()
        assert self._open.wait(WAIT)
        if self.fault is not None:
            raise self.fault
        return function(*args)

    @contextmanager
    def held(self, store: Store, pool: ThreadPoolExecutor) -> Iterator[None]:
        """The writer is stuck in a commit; on leaving, it goes on with everything queued meanwhile."""
        while self._reached.acquire(blocking=False):
            pass
        self._open.clear()
        first = pool.submit(store.write, partial(add, f"held-{self.commits}"))
        assert self._reached.acquire(timeout=WAIT)
        try:
            yield
        finally:
            self._open.set()
        first.result(WAIT)


@pytest.fixture
def disk() -> GatedDisk:
    return GatedDisk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    engine = make_engine(f"sqlite:///{tmp_path / 'grid.db'}")
    Base.metadata.create_all(engine, tables=[rows])
    engine.dispose()
    return tmp_path / "grid.db"


@pytest.fixture
def group(path: Path, disk: GatedDisk) -> Iterator[GroupCommitStore]:
    made = GroupCommitStore(make_engine(f"sqlite:///{path}"), disk, batch=20, lock_timeout=0.05)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(48) as made:
        yield made


def queue_up(store: GroupCommitStore, pool: ThreadPoolExecutor, *units: Any) -> list[Future[Any]]:
    """Hand in units in this order, from a thread each, while the writer is held."""
    futures = []
    for unit in units:
        waiting = len(store._queue)
        futures.append(pool.submit(store.write, unit))
        while len(store._queue) == waiting:
            threading.Event().wait(0.001)
    return futures


# --- every store ------------------------------------------------------------------------------------------------------


def test_a_unit_that_raises_leaves_nothing_and_its_error_reaches_the_caller(store: Store) -> None:
    with pytest.raises(QueueFull):
        store.write(partial(add_and_fail, "gone", QueueFull(retry_after=5)))
    assert store.write(partial(add, "kept")) == "kept"
    assert names(store) == {"kept"}


def test_actions_run_after_the_commit_in_order_and_never_for_a_unit_that_failed(store: Store) -> None:
    seen: list[Any] = []

    def unit(tx: Transaction) -> None:
        add("a", tx)
        tx.on_commit(lambda: seen.append(sorted(names(store))))
        tx.on_commit(lambda: seen.append("second"))

    def failing(tx: Transaction) -> None:
        tx.on_commit(lambda: seen.append("never"))
        add_and_fail("b", QueueFull(), tx)

    store.write(unit)
    with pytest.raises(QueueFull):
        store.write(failing)
    assert seen == [["a"], "second"]


def test_an_action_that_raises_does_not_take_down_the_command(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def unit(tx: Transaction) -> str:
        tx.on_commit(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        tx.on_commit(lambda: done.append("next"))
        return add("a", tx)

    assert store.write(unit) == "a"
    assert done == ["next"]
    assert "an action after commit failed" in caplog.text


def test_twenty_threads_lose_no_update(store: Store, pool: ThreadPoolExecutor) -> None:
    store.write(partial(add, "counter"))

    def count(tx: Transaction) -> int:
        tx.execute(update(rows).values(turn=rows.c.turn + 1))
        return int(tx.execute(select(rows.c.turn)).scalar_one())

    counts = [future.result(WAIT) for future in [pool.submit(store.write, count) for _ in range(20 * 10)]]
    assert sorted(counts) == list(range(2, 202))


# --- a batch ----------------------------------------------------------------------------------------------------------


def test_units_that_come_while_the_disk_is_busy_share_one_commit(
    group: GroupCommitStore, disk: GatedDisk, pool: ThreadPoolExecutor
) -> None:
    with disk.held(group, pool):
        futures = queue_up(group, pool, *(partial(add, f"k{number}") for number in range(20)))
    assert [future.result(WAIT) for future in futures] == [f"k{number}" for number in range(20)]
    assert disk.commits == 2


def test_a_unit_that_raises_is_undone_alone_and_the_rest_of_its_batch_is_kept(
    group: GroupCommitStore, disk: GatedDisk, pool: ThreadPoolExecutor
) -> None:
    twice = partial(add, "a")
    with disk.held(group, pool):
        a, refused, clash, b = queue_up(
            group, pool, twice, partial(add_and_fail, "x", QueueFull()), twice, partial(add, "b")
        )
    assert (a.result(WAIT), b.result(WAIT)) == ("a", "b")
    assert isinstance(refused.exception(WAIT), QueueFull)
    assert "UNIQUE" in str(clash.exception(WAIT))
    assert names(group) == {"held-0", "a", "b"}
    assert disk.commits == 2


def test_actions_of_a_batch_run_in_commit_order_after_all_of_it_is_on_disk(
    group: GroupCommitStore, disk: GatedDisk, pool: ThreadPoolExecutor
) -> None:
    order: list[tuple[int, int]] = []

    def unit(number: int, tx: Transaction) -> None:
        add(f"k{number}", tx)
        tx.on_commit(lambda: order.append((number, len(names(group)))))

    with disk.held(group, pool):
        futures = queue_up(group, pool, *(partial(unit, number) for number in range(10)))
        assert order == []
    for future in futures:
        future.result(WAIT)
    assert order == [(number, 11) for number in range(10)]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable),
        (sqlite3.OperationalError("database or disk is full"), StoreFull),
        (RuntimeError("the thread pool is gone"), RuntimeError),
    ],
)
def test_when_the_commit_fails_nothing_of_the_batch_is_kept_and_everybody_is_told(
    group: GroupCommitStore, disk: GatedDisk, pool: ThreadPoolExecutor, fault: Exception, told: type[Exception]
) -> None:
    seen: list[str] = []

    def unit(name: str, tx: Transaction) -> None:
        add(name, tx)
        tx.on_commit(lambda: seen.append(name))

    disk.fault = fault
    futures = [pool.submit(group.write, partial(unit, name)) for name in ("a", "b", "c")]
    assert all(isinstance(future.exception(WAIT), told) for future in futures)
    assert (names(group), seen) == (set(), [])

    disk.fault = None
    group.write(partial(unit, "again"))
    assert (names(group), seen) == ({"again"}, ["again"])


def test_closing_commits_all_that_is_queued_and_takes_nothing_more(
    group: GroupCommitStore, disk: GatedDisk, pool: ThreadPoolExecutor, path: Path
) -> None:
    with disk.held(group, pool):
        futures = queue_up(group, pool, *(partial(add, f"k{number}") for number in range(30)))
        closing_down = pool.submit(group.close)
    closing_down.result(WAIT)
    for future in futures:
        future.result(WAIT)
    with pytest.raises(StoreUnavailable):
        group.write(partial(add, "late"))
    assert len(names(DirectStore(make_engine(f"sqlite:///{path}")))) == 31


# --- bad days ---------------------------------------------------------------------------------------------------------


def test_a_database_that_another_process_has_locked_is_unavailable_and_then_works_again(
    group: GroupCommitStore, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as refusal:
            group.write(partial(add, "locked-out"))
        assert refusal.value.retry_after == 1
        assert names(group) == set()  # reading goes on
    group.write(partial(add, "after"))
    assert names(group) == {"after"}


def test_a_unit_waits_for_a_lock_that_goes_away_in_time(path: Path, disk: GatedDisk, pool: ThreadPoolExecutor) -> None:
    patient = GroupCommitStore(make_engine(f"sqlite:///{path}"), disk, lock_timeout=WAIT)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(patient.write, partial(add, "patient"))
        other.execute("COMMIT")
        assert waiting.result(WAIT) == "patient"
    patient.close()


def limit_pages(engine: Engine, limit: list[int]) -> None:
    """A disk with room for `limit[0]` pages, as far as this engine's next connection is concerned."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={limit[0]}")


@pytest.mark.parametrize("grouped", [True, False])
def test_a_full_disk_is_told_as_such_and_nothing_is_half_written(
    path: Path, disk: GatedDisk, pool: ThreadPoolExecutor, grouped: bool
) -> None:
    limit = [12]
    engine = make_engine(f"sqlite:///{path}")
    limit_pages(engine, limit)
    store = GroupCommitStore(engine, disk) if grouped else DirectStore(engine)

    def much(tx: Transaction) -> None:
        for number in range(400):
            add(f"much-{number}-" + "x" * 900, tx)

    store.write(partial(add, "before"))
    with pytest.raises(StoreFull) as refusal:
        store.write(much)
    assert refusal.value.retry_after == 60
    assert names(store) == {"before"}

    limit[0] = 100_000
    engine.dispose()
    store.write(much)
    assert len(names(store)) == 401
    store.close()
    with closing(sqlite3.connect(path)) as direct:
        assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_when_the_disk_fills_up_in_mid_batch_each_unit_is_kept_or_told(
    path: Path, disk: GatedDisk, pool: ThreadPoolExecutor
) -> None:
    """SQLite then rolls back the whole transaction by itself, the units that had succeeded before it included."""
    engine = make_engine(f"sqlite:///{path}")
    limit_pages(engine, [12])
    store = GroupCommitStore(engine, disk)
    store.write(partial(add, "before"))
    units = [partial(add, "small")] + [partial(add, f"{number}-" + "x" * 3000) for number in range(40)]
    with disk.held(store, pool):
        futures = queue_up(store, pool, *units)
    outcomes = [future.exception(WAIT) for future in futures]
    kept = {unit.args[0] for unit, outcome in zip(units, outcomes, strict=True) if outcome is None}
    assert names(store) == {"before", "held-1"} | kept
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {StoreFull}
    store.close()


def test_a_store_whose_thread_pool_is_a_plain_call_works_the_same(path: Path) -> None:
    plain = GroupCommitStore(make_engine(f"sqlite:///{path}"), call)
    plain.write(partial(add, "a"))
    assert names(plain) == {"a"}
    plain.close()
