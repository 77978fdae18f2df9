from collections.abc import Callable
from typing import Any

import pytest

from grid_node.database import Store
from tests.grids import Grid
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def grid(store: Store) -> Grid:
    return Grid(store)


@pytest.fixture
def make_grid(store: Store) -> Callable[..., Grid]:
    def make(**options: Any) -> Grid:
        return Grid(store, **options)

    return make
