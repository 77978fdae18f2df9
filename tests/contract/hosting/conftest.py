import pytest

from tests.models import Shelf
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def shelf(store, tmp_path) -> Shelf:
    return Shelf(store, tmp_path)
