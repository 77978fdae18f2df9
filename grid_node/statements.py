"""Prepared statements: SQLAlchemy's text, compiled once, run by the driver itself where that is safe.

Building a statement's text, parameters and result through SQLAlchemy costs about 50 microseconds a call, five times
what SQLite needs to run it. A unit of work on the hot path runs a dozen of them. So a statement that is a module
constant is wrapped in `Prepared`; on SQLite its text and the order of its parameters are kept from the first call
on. Where SQLAlchemy has work to do at run time (defaults of Python, IN with a list) and on every other database the
statement goes its ordinary way: the result has the same methods.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.sql import Executable

Parameters = Mapping[str, Any] | list[Any] | None
"""Of one run, or of many."""


class Rows:
    """What a prepared statement returned: the part of SQLAlchemy's result that units of work use."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def one_or_none(self) -> Any:
        if len(self._rows) > 1:
            raise MultipleResultsFound("more than one row")
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        row = self.one_or_none()
        if row is None:
            raise NoResultFound("no row")
        return row

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]


class _Plan:
    """The text of a statement for one set of parameter names, and how its rows are read."""

    __slots__ = ("_fixed", "_names", "_read", "text")

    def __init__(self, compiled: Any) -> None:
        self.text = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        columns = compiled._result_columns
        self._read = _reader(columns) if columns else None

    def run(self, driver: Any, parameters: Mapping[str, Any]) -> Rows:
        fixed = self._fixed
        values = [parameters[name] if name in parameters else fixed.get(name) for name in self._names]
        cursor = driver.execute(self.text, values)
        if self._read is None:
            return Rows([], cursor.rowcount)
        return Rows([self._read(row) for row in cursor.fetchall()], cursor.rowcount)

    def run_many(self, driver: Any, rows: Sequence[Mapping[str, Any]]) -> Rows:
        """The statement once for each of the rows, which have the same names."""
        fixed = self._fixed
        values = [[row[name] if name in row else fixed.get(name) for name in self._names] for row in rows]
        return Rows([], driver.executemany(self.text, values).rowcount)


def _reader(columns: Any) -> Callable[[Any], Any]:
    """Rows as named tuples; columns whose type SQLite does not have (booleans) are converted."""
    row_class: Any = namedtuple("Row", [column.keyname for column in columns], rename=True)  # type: ignore[misc]
    make: Callable[[Any], Any] = row_class._make
    flags = [index for index, column in enumerate(columns) if column.type.python_type is bool]
    if not flags:
        return make

    def read(row: Any) -> Any:
        values = list(row)
        for index in flags:
            values[index] = bool(values[index])
        return make(values)

    return read


class Prepared:
    """A constant statement. Run it with `Transaction.execute`, like any other."""

    __slots__ = ("_plans", "statement")

    def __init__(self, statement: Executable) -> None:
        self.statement = statement
        self._plans: dict[tuple[str, ...], _Plan | None] = {}

    def run(self, connection: Connection, driver: Any, parameters: Parameters) -> Any:
        """`driver` is the SQLite connection behind `connection`, or None for any other database."""
        many = isinstance(parameters, list)
        given: Any = parameters or {}
        plan = None if driver is None else self._plan_for(connection, tuple(given[0] if many else given))
        if plan is None:
            return connection.execute(self.statement, parameters)
        return plan.run_many(driver, given) if many else plan.run(driver, given)

    def _plan_for(self, connection: Connection, names: tuple[str, ...]) -> _Plan | None:
        try:
            return self._plans[names]
        except KeyError:
            plan = self._plans[names] = _plan(self.statement, connection.dialect, names)
            return plan


def _plan(statement: Any, dialect: Dialect, names: tuple[str, ...]) -> _Plan | None:
    """None when SQLAlchemy itself must run the statement."""
    compiled = statement.compile(dialect=dialect, column_keys=list(names) or None)
    late = compiled.insert_prefetch or compiled.update_prefetch or compiled.post_compile_params
    return None if late else _Plan(compiled)


def prepared(statement: Executable) -> Prepared:
    return Prepared(statement)
