"""The stores of `tests.stores`, with one PostgreSQL database for all tests of identity, emptied for each."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid_node.database import Base, DirectStore, GroupCommitStore, Store, make_engine
from grid_node.identity import tables
from tests.stores import call, postgres_database

TABLES = [
    model.__table__
    for model in (
        tables.ApiKey,
        tables.Charge,
        tables.KeyEpoch,
        tables.UsedRequest,
        tables.AllowedMiner,
        tables.BlacklistedMiner,
    )
]


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_database() as url:
        engine = make_engine(url)
        Base.metadata.create_all(engine, tables=TABLES)
        engine.dispose()
        yield url


@pytest.fixture(params=["sqlite-group", "sqlite-direct", "postgresql"])
def store_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder without a disk behind it, where there is one: hundreds of small databases wait for every fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest, memory_folder: Path) -> str:
    """URL of a database with the empty tables of identity."""
    if store_kind != "postgresql":
        return f"sqlite:///{memory_folder / 'grid.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(store_kind: str, store_url: str) -> Iterator[Store]:
    engine = make_engine(store_url)
    Base.metadata.create_all(engine, tables=TABLES)
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(table.delete())
    made = GroupCommitStore(engine, call) if store_kind == "sqlite-group" else DirectStore(engine)
    yield made
    made.close()
