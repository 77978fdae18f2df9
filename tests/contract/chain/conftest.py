"""The chains that the port's contract is tried on: the ledger over each store."""

import pytest

from grid_node.database import Store
from tests.ledgers import LedgerYard, Yard
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]


@pytest.fixture
def ledger(store: Store) -> LedgerYard:
    return LedgerYard(store)


@pytest.fixture
def yard(ledger: LedgerYard) -> Yard:
    return ledger
