"""How commands of an operator end: 0 done, 1 nothing was changed, 2 the configuration is wrong."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy.exc import SQLAlchemyError

from grid_node.errors import GridError, InvalidHotkey, StoreFull, StoreUnavailable
from grid_node.identity.refusal import Refused

NO_DATABASE = "The database is not available: check GRID_DATABASE_URL and run `flask db upgrade`"


@contextmanager
def answers(no_database: str = NO_DATABASE) -> Iterator[None]:
    """Turns what a service raised into one line on stderr and an exit status."""
    try:
        yield
    except (Refused, InvalidHotkey) as refusal:
        raise fail(str(refusal), 1) from None
    except (StoreUnavailable, SQLAlchemyError, sqlite3.Error):
        raise fail(no_database, 2) from None
    except StoreFull as error:
        raise fail(error.message, 2) from None
    except GridError as error:
        raise fail(in_words(error), 1) from None


def in_words(error: GridError) -> str:
    """The message, with what is wrong in each field or in the bytes where the error says so."""
    fields = error.data.get("fields") or {}
    details = [f"{name}: {problem}" for name, problems in fields.items() for problem in as_list(problems)]
    if error.data.get("reason"):
        details.append(str(error.data["reason"]))
    return "; ".join([error.message, *details])


def as_list(problems: object) -> list[object]:
    return list(problems) if isinstance(problems, list) else [problems]


def fail(text: str, status: int) -> click.exceptions.Exit:
    click.echo(text, err=True)
    return click.exceptions.Exit(status)
