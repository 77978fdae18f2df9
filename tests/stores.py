"""The stores over which contract tests run: SQLite with group commit, SQLite direct, PostgreSQL."""

import contextlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from grid_node.database import Base, DirectStore, GroupCommitStore, Store, make_engine

POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/"


def _reachable(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def call(function, *args):
    return function(*args)


@contextlib.contextmanager
def postgres_database() -> Iterator[str]:
    """URL of an empty PostgreSQL database of its own; skips where no server listens."""
    if not _reachable(5432):
        pytest.skip("no PostgreSQL on 127.0.0.1:5432")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    name = f"grid_test_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    admin = create_engine(POSTGRES + "postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield POSTGRES + name
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table, to be copied."""
    path = tmp_path_factory.mktemp("template") / "grid.db"
    engine = make_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.connection.dbapi_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_tables() -> Iterator[str]:
    """URL of a PostgreSQL database with every table."""
    with postgres_database() as url:
        engine = make_engine(url)
        Base.metadata.create_all(engine)
        engine.dispose()
        yield url


@pytest.fixture(params=["sqlite-group", "sqlite-direct", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store with every table; a contract test runs once on each kind."""
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            engine = make_engine(request.getfixturevalue("postgres_tables"))
            _empty(engine)
        else:
            path = stack.enter_context(_quick_folder(tmp_path)) / "grid.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
            engine = make_engine(f"sqlite:///{path}")
        made = GroupCommitStore(engine, call) if request.param == "sqlite-group" else DirectStore(engine)
        stack.callback(made.close)
        yield made


@contextlib.contextmanager
def _quick_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is one: the disk's fsync is not what these tests are about."""
    if not os.access("/dev/shm", os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="grid-test-") as folder:
        yield Path(folder)


def _empty(engine: Engine) -> None:
    """Without TRUNCATE, which makes a new file of every table: row by row is quicker for the few that a test leaves."""
    tables = reversed(Base.metadata.sorted_tables)
    with engine.begin() as connection:
        counters = connection.scalars(text("SELECT sequencename FROM pg_sequences")).all()
        commands = [f"DELETE FROM {table.name}" for table in tables] + [
            f"ALTER SEQUENCE {name} RESTART" for name in counters
        ]
        connection.exec_driver_sql("; ".join(commands))
