"""How the commands of `flask chain` print and end, and what their options mean."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy import inspect

from grid_node.chain.ledger.tables import ChainSubnet
from grid_node.chain.ports import ChainProblem
from grid_node.chain.pylon import Identity
from grid_node.cli.answers import answers, fail
from grid_node.database import db
from grid_node.services import services

NO_TABLES = "The database lacks the chain's tables: start the node once, or run `flask db upgrade`"

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@contextmanager
def refusals() -> Iterator[None]:
    """As `answers`, and what the chain said no to ends with status 1 too."""
    with answers():
        require_database()
        try:
            yield
        except ChainProblem as problem:
            raise fail(str(problem), 1) from None


def require_database() -> None:
    """Ends the command where the node was never started. Raises SQLAlchemyError where the database is away."""
    with db.engine.connect() as connection:
        is_there = inspect(connection.execution_options(grid_own_begin=True)).has_table(ChainSubnet.__tablename__)
    if not is_there:
        raise fail(NO_TABLES, 2)


def identity_of(name: str) -> Identity:
    """Ends the command when there is none."""
    identity = services().chain.pylon.identity(name)
    if identity is None:
        raise fail(f"No identity has this name: {name}", 1)
    return identity


def print_json(told: Any) -> None:
    click.echo(json.dumps(told))


def lines(told: dict[str, Any]) -> None:
    """A line for each member, and for each item of a list."""
    for name, value in told.items():
        for item in value if isinstance(value, list) else [value]:
            fields = item.values() if isinstance(item, dict) else [item]
            click.echo("|".join([name, *map(text, fields)]))


def text(value: object) -> str:
    """Nothing of a chain's or a worker's steers a terminal or begins a line or a column."""
    plain = "-" if value is None else str(value)
    return "".join(char if char.isprintable() and char != "|" else f"\\u{ord(char):04x}" for char in plain)
