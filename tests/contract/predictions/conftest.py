import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid_node.clock import ManualClock
from grid_node.database import Store
from tests.promises.desk import Desk
from tests.stadium import Stadium
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stadium(store: Store, clock: ManualClock) -> Stadium:
    return Stadium(store, clock)


@pytest.fixture
def make_stadium(store: Store, clock: ManualClock) -> Any:
    def make(**settings: Any) -> Stadium:
        return Stadium(store, clock, **settings)

    return make


@pytest.fixture
def make_desk(store: Store, clock: ManualClock) -> Iterator[Callable[..., Desk]]:
    """The service of predictions over this store, or over `on`; it is closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(on: Store | None = None, **settings: Any) -> Desk:
            made = Desk(on or store, clock, **settings)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """With the game `nfl-17`, which begins in a day."""
    made = make_desk()
    made.put_games(made.game())
    return made
