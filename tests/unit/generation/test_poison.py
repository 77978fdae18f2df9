"""One broken row, one broken worker: everybody else is served all the same. And who waits costs nothing."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from grid_node.database import DirectStore, Store, Unit, make_engine
from grid_node.errors import GridError
from tests.grids import Grid
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]

WAIT = 20.0


class CountingStore(DirectStore):
    """Counts the units of work that it is given."""

    calls = 0

    def write(self, unit: Unit[Any]) -> Any:
        self.calls += 1
        return super().write(unit)

    def read(self, unit: Unit[Any]) -> Any:
        self.calls += 1
        return super().read(unit)


@pytest.fixture
def path(sqlite_template: Path, tmp_path: Path) -> Path:
    (tmp_path / "grid.db").write_bytes(sqlite_template.read_bytes())
    return tmp_path / "grid.db"


@pytest.fixture
def store(path: Path) -> Iterator[CountingStore]:
    with closing(CountingStore(make_engine(f"sqlite:///{path}"))) as made:
        yield made


@pytest.fixture
def grid(store: Store) -> Grid:
    return Grid(store)


def damage(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def test_a_task_that_cannot_be_settled_does_not_hold_up_the_others(
    grid: Grid, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned = grid.ask(copies=2)
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    healthy = [grid.ask(deadline_s=30.0) for _ in range(3)]
    damage(path, "UPDATE copies SET report = 'broken' WHERE task_id = ?", poisoned)
    grid.pass_time(60.0)
    assert [grid.statuses(task)[-1] for task in healthy] == ["failed"] * 3
    assert grid.statuses(poisoned) == ["queued", "started"]
    assert poisoned in caplog.text

    damage(
        path, "UPDATE copies SET report = ? WHERE task_id = ?", '{"scorer":"x","components":{},"reasons":[]}', poisoned
    )
    grid.pass_time(700.0)
    assert grid.statuses(poisoned)[-1] == "best_results"


def test_a_lease_that_cannot_expire_does_not_hold_up_the_others(grid: Grid, path: Path) -> None:
    broken, healthy = grid.ask(copies=1), grid.ask(copies=1)
    leases = [grid.lease("broken"), grid.lease("healthy")]
    assert [lease["task_id"] for lease in leases] == [broken, healthy]
    damage(path, "UPDATE workers SET recent = 'broken' WHERE identity = 'broken'")
    grid.pass_time(61.0)
    assert grid.lease("another", max_parallel=8)["task_id"] == healthy


def test_a_worker_whose_row_is_broken_is_refused_alone(
    grid: Grid, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid.pull("broken")
    damage(path, "UPDATE workers SET recent = 'broken' WHERE identity = 'broken'")
    waiting = [grid.wait_for_work(name, strong=None) for name in ("first", "broken", "last")]
    tasks = [grid.ask(copies=1), grid.ask(copies=1)]
    grid.dispatcher.round()
    grid.dispatcher.round()
    first, broken, last = waiting
    assert {pull.answer["task"]["task_id"] for pull in (first, last) if pull.answer} == set(tasks)
    assert isinstance(broken.error, GridError)
    assert "a dispatch round of 1 pulls failed" in caplog.text


def test_waiting_pulls_cost_no_queries_and_a_task_wakes_one_of_them(grid: Grid, store: CountingStore) -> None:
    pulls = [grid.wait_for_work(f"w{number}") for number in range(1000)]
    grid.lifecycle.changed = grid.dispatcher.signal
    grid.dispatcher.start()
    settled = threading.Event()
    while any(pull.fresh for pull in pulls):
        settled.wait(0.001)
    before = store.calls
    assert not settled.wait(0.3)
    assert store.calls == before, "nobody asks the database while nothing happens"

    task_id = grid.ask(copies=1)
    while not any(pull.done.is_set() for pull in pulls):
        settled.wait(0.001)
    grid.dispatcher.stop()
    (served,) = [pull for pull in pulls if pull.done.is_set()]
    assert served.answer is not None
    assert served.answer["task"]["task_id"] == task_id
    assert store.calls - before <= 4, "one submission, and rounds, however many wait"
    assert grid.dispatcher.waiting == 999
