"""The database: Flask-SQLAlchemy's `db`, and the stores through which every service writes.

A *unit of work* is a function of one `Transaction`. A store runs it, commits, and only then returns: an answer
means that the rows are on disk. `GroupCommitStore` serves SQLite in the node: units that arrive while the disk
is busy share the next commit, so that many small writes cost one fsync. `DirectStore` serves PostgreSQL, the
command line and job processes: each unit is a transaction of its own.

Units are short, never wait, and know nothing of threads: on SQLite they run one after the other.
"""

import _thread
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql import Executable

from grid_node.errors import GridError, StoreFull, StoreUnavailable
from grid_node.settings import BadSetting
from grid_node.statements import Prepared

log = logging.getLogger(__name__)

T = TypeVar("T")
Offload = Callable[..., Any]
"""Calls a function with arguments off the hub and returns its result: eventlet's tpool.execute, or `plain_call`."""


def plain_call(function: Callable[..., T], *args: Any) -> T:
    """The Offload of a process in which every thread is a real one."""
    return function(*args)


class Base(DeclarativeBase):
    """Every table of the node. Times are seconds since 1970-01-01 UTC."""

    if TYPE_CHECKING:
        __table__: ClassVar[Table]

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)


class Transaction:
    """What a unit of work is given: SQL on one connection, and things to do once it is committed."""

    __slots__ = ("_driver", "_on_commit", "connection")

    def __init__(self, connection: Connection, driver: Any = None) -> None:
        self.connection = connection
        self._driver = driver
        self._on_commit: list[Callable[[], None]] = []

    def execute(self, statement: Executable | Prepared, parameters: Any = None) -> Any:
        """SQLAlchemy's result, or for a prepared statement one with the same methods."""
        if isinstance(statement, Prepared):
            return statement.run(self.connection, self._driver, parameters)
        return self.connection.execute(statement, parameters)

    @property
    def is_postgresql(self) -> bool:
        return self.connection.dialect.name == "postgresql"

    def on_commit(self, action: Callable[[], None]) -> None:
        """Do `action` after the commit, in commit order; never if the unit is rolled back.

        Actions are quick and never wait (append to a queue, set an event). One that raises is logged and does
        not take down the command that was accepted.
        """
        self._on_commit.append(action)

    def committed(self) -> None:
        for action in self._on_commit:
            try:
                action()
            except Exception:
                log.exception("an action after commit failed")


Unit = Callable[[Transaction], T]


class Store(Protocol):
    """Runs units of work.

    `write` returns what the unit returned, after the commit. Whatever the unit raises is raised again and nothing
    of the unit is kept. StoreUnavailable (with `retry_after`) when the database is locked or away, StoreFull when
    the disk is full; then nothing is kept either. `read` sees one consistent snapshot and writes nothing.
    """

    def write(self, unit: Unit[T]) -> T: ...

    def read(self, unit: Unit[T]) -> T: ...

    def close(self) -> None: ...


def make_engine(url: str, *, pool: int = 32, lock_timeout: float = 5.0) -> Engine:
    """An engine with the node's pragmas: WAL and synchronous=FULL on SQLite, so that a commit is on disk."""
    engine = create_engine(url, **engine_options(url, pool, lock_timeout))
    if engine.dialect.name == "sqlite":
        set_pragmas(engine)
    return engine


_POSTGRES_ARGS = {
    "connect_timeout": 5,
    # a server or a network that went silent is given up, not waited for
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_POSTGRES_IDLE = 30_000
"""Milliseconds after which the server frees what a node holds that vanished in the middle of a unit."""


def engine_options(url: str, pool: int, lock_timeout: float) -> dict[str, Any]:
    """`lock_timeout`: seconds that PostgreSQL may keep a unit waiting for a connection or for a lock."""
    if url.startswith("sqlite"):
        return {
            "hide_parameters": True,
            "connect_args": {"check_same_thread": False, "timeout": 5, "cached_statements": 512},
        }
    return {
        "hide_parameters": True,  # an input or an address has no business in the log
        "pool_size": pool,
        "max_overflow": 0,
        "pool_timeout": lock_timeout,
        "pool_pre_ping": True,
        "connect_args": _connect_args(lock_timeout) if url.startswith(("postgresql:", "postgresql+psycopg:")) else {},
    }


def _connect_args(lock_timeout: float) -> dict[str, Any]:
    limits = {"lock_timeout": round(lock_timeout * 1000), "idle_in_transaction_session_timeout": _POSTGRES_IDLE}
    return {**_POSTGRES_ARGS, "options": " ".join(f"-c {name}={value}" for name, value in limits.items())}


_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-65536",  # KiB
    # Pages, 64 MiB: rows are touched several times in a task's life, and each checkpoint writes a page once.
    "wal_autocheckpoint=16384",
)


def set_pragmas(engine: Engine) -> None:
    """SQLite: we begin transactions ourselves (BEGIN IMMEDIATE), durable and with a wait for locks."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("grid_own_begin"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def require_tables(engine: Engine) -> None:
    """Raises BadSetting when the database has no tables yet."""
    if not inspect(engine).has_table("tasks"):
        raise BadSetting(
            f"the database {engine.url.render_as_string()} has no tables yet: run `flask db upgrade`,"
            " or start the node with `grid-node serve`, which does"
        )


def sqlite_driver(connection: Connection) -> Any:
    """The driver's own connection, for prepared statements; None on every other database."""
    return connection.connection.dbapi_connection if connection.dialect.name == "sqlite" else None


RETRIES = 5
"""How often a unit is run again that PostgreSQL undid: for a deadlock, or because another unit was faster with the
same unique row, which the next run then sees."""
_TRY_AGAIN = frozenset({"40001", "40P01", "23505"})
_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""PostgreSQL's other levels show each statement of a read the database of another moment."""


class DirectStore:
    """Each unit in a transaction of its own, in the calling thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        snapshot = _SNAPSHOT if engine.dialect.name == "postgresql" else {}
        self._reads = engine.execution_options(grid_own_begin=True, **snapshot)

    def write(self, unit: Unit[T]) -> T:
        for attempt in range(RETRIES):
            try:
                return self._write(unit)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _TRY_AGAIN or attempt == RETRIES - 1:
                    raise _translated(error) from error
            except (PoolTimeout, sqlite3.Error) as error:
                raise _translated(error) from error
        raise StoreUnavailable(retry_after=1)

    def _write(self, unit: Unit[T]) -> T:
        with self.engine.begin() as connection:
            transaction = Transaction(connection, sqlite_driver(connection))
            result = unit(transaction)
        transaction.committed()
        return result

    def read(self, unit: Unit[T]) -> T:
        try:
            with self._reads.connect() as connection:
                driver = sqlite_driver(connection)
                if driver is not None:
                    driver.execute("BEGIN")
                return unit(Transaction(connection, driver))
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise _translated(error) from error

    def close(self) -> None:
        self.engine.dispose()


class _Pending(Generic[T]):
    """One unit on its way through the writer; `wait` returns or raises its outcome."""

    __slots__ = ("_done", "error", "result", "transaction", "unit")

    def __init__(self, unit: Unit[T]) -> None:
        self.unit = unit
        self.transaction: Transaction | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def finish(self) -> None:
        self._done.release()

    def wait(self, timeout: float) -> T:
        if not self._done.acquire(timeout=timeout):
            raise StoreUnavailable(retry_after=1)
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class GroupCommitStore(DirectStore):
    """SQLite in the node: one writer takes all waiting units into one transaction and commits them together.

    Statements run in the writer's (green) thread and take microseconds from the page cache; the one call that
    waits for the disk, COMMIT, goes through `offload`. A unit that raises is undone alone, by its savepoint.
    """

    WAIT = 30.0
    """Seconds after which a caller is told that the outcome of its unit is not known."""

    def __init__(self, engine: Engine, offload: Offload, *, batch: int = 256, lock_timeout: float = 5.0) -> None:
        super().__init__(engine)
        self._offload = offload
        self._batch = batch
        self._lock_timeout = lock_timeout
        self._queue: deque[_Pending[Any]] = deque()
        self._wake = threading.Semaphore(0)
        self._closed = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._loop, name="grid-writer", daemon=True)
        self._thread.start()

    def write(self, unit: Unit[T]) -> T:
        if self._closed:
            raise StoreUnavailable(retry_after=1)
        pending = _Pending(unit)
        self._queue.append(pending)
        self._wake.release()
        return pending.wait(self.WAIT)

    def close(self) -> None:
        """Commits what is queued, then lets the database go."""
        self._closed = True
        self._wake.release()
        self._thread.join(self.WAIT)
        super().close()

    def _loop(self) -> None:
        while True:
            self._wake.acquire()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            if batch:
                self._run(batch)
            elif self._closed and not self._queue:
                self._disconnect()
                return

    def _run(self, batch: list[_Pending[Any]]) -> None:
        try:
            self._commit(batch)
        except Exception as error:
            if not isinstance(error, GridError | DBAPIError | sqlite3.Error):
                log.exception("the writer failed")
            self._disconnect()
            for pending in batch:
                pending.error = pending.error or _translated(error)
        else:
            for pending in batch:
                if pending.transaction is not None and pending.error is None:
                    pending.transaction.committed()
        for pending in batch:
            pending.finish()

    def _commit(self, batch: list[_Pending[Any]]) -> None:
        connection = self._connected()
        driver: Any = connection.connection.dbapi_connection
        self._begin(driver)
        for pending in batch:
            self._run_unit(pending, connection, driver)
        if driver.in_transaction:
            self._offload(driver.commit)

    def _run_unit(self, pending: _Pending[Any], connection: Connection, driver: Any) -> None:
        driver.execute("SAVEPOINT unit")
        pending.transaction = Transaction(connection, driver)
        try:
            pending.result = pending.unit(pending.transaction)
        except Exception as error:
            pending.error = _translated(error)
            if not driver.in_transaction:  # SQLite itself rolled everything back: disk full, I/O error, no memory
                raise pending.error from error
            driver.execute("ROLLBACK TO unit")
        driver.execute("RELEASE unit")

    def _begin(self, driver: Any) -> None:
        """Take the write lock without blocking the hub: ask, and sleep (green) while another process has it."""
        deadline = time.monotonic() + self._lock_timeout
        pause = 0.0005
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except driver.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise StoreUnavailable(retry_after=1) from error
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self.engine.connect().execution_options(grid_own_begin=True)
            connection.connection.dbapi_connection.execute("PRAGMA busy_timeout=0")  # type: ignore[union-attr]
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


_AWAY = ("locked", "busy", "unable to open", "I/O error", "readonly", "closed", "connect", "shutting down")


def _translated(error: BaseException) -> BaseException:
    """Errors of the database's condition as the house's own; every other error stays what it is."""
    if isinstance(error, PoolTimeout):
        log.error("every connection to the database is in use")
        return StoreUnavailable(retry_after=1)
    cause = error.orig if isinstance(error, DBAPIError) else error
    text = str(cause)
    if isinstance(cause, sqlite3.Error | DBAPIError) or isinstance(error, DBAPIError):
        if "disk is full" in text or "No space" in text:
            return StoreFull(retry_after=60)
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        operational = lost or isinstance(error, OperationalError | sqlite3.OperationalError)
        if operational and (not isinstance(cause, sqlite3.Error) or any(word in text for word in _AWAY)):
            log.error("the database is not available: %s", text)
            return StoreUnavailable(retry_after=1)
    return error
