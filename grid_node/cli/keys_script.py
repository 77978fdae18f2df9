"""What `scripts/api_key_cli.sh` runs: the key commands on a database that is named first.

DB is a SQLite file (made, with its tables, when missing or empty), a database URL, or `-` for the node's own.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import click
from flask import Flask
from flask_migrate import Migrate, upgrade
from sqlalchemy import URL, inspect

from grid_node.cli.answers import answers, fail
from grid_node.cli.keys import keys_cli
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, db, make_engine, set_pragmas
from grid_node.identity.refusal import Refused
from grid_node.identity.tables import ApiKey
from grid_node.settings import BadSetting, Settings

NO_DATABASE = "Database file must be specified as the first argument."
USAGE = (
    "Usage: api_key_cli.sh DB {list|gen|add <api_key> <name> <max_requests> <period>|remove <api_key>}"
    "   (DB: SQLite file, database URL, or - for the configured one)"
)
ARGUMENTS = {"list": 0, "gen": 0, "add": 4, "remove": 1}
MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    if not arguments or not arguments[0]:
        return fail(NO_DATABASE, 1).exit_code
    database, *command = arguments
    if not command or ARGUMENTS.get(command[0]) != len(command) - 1:
        return fail(USAGE, 1).exit_code
    try:
        settings = Settings.load()
    except BadSetting as error:
        return fail(str(error), 2).exit_code
    try:
        with answers("The database named as the first argument cannot be used"):
            store = open_store(database, settings)
    except click.exceptions.Exit as end:
        return end.exit_code
    with closing(store):
        return run(store, command, settings)


def run(store: DirectStore, command: list[str], settings: Settings) -> int:
    """The command, with the texts and states of `flask keys`."""
    name, *values = command
    app = Flask("api_key_cli")
    app.extensions["grid"] = SimpleNamespace(store=store, clock=SystemClock(), settings=settings)
    with app.app_context():
        # everything after -- is a value, also a key that begins with a dash
        status = keys_cli.main([name, "--", *values], prog_name="api_key_cli.sh", standalone_mode=False)
    return status or 0


def open_store(database: str, settings: Settings) -> DirectStore:
    """The store that `database` names; a SQLite file without tables gets them. Raises Refused."""
    if database == "-":
        return DirectStore(make_engine(settings.database, pool=1))
    if "://" in database:
        return DirectStore(make_engine(database, pool=1))
    file = Path(database).resolve()
    refuse_clear_keys(file)
    engine = make_engine(f"sqlite:///{file}")
    if not inspect(engine).has_table(ApiKey.__tablename__):
        make_tables(engine.url)
    return DirectStore(engine)


def make_tables(url: URL) -> None:
    """All tables of a node, by its migrations, so that a node may be started on the file later."""
    app = Flask("api_key_cli")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db.init_app(app)
    Migrate(app, db)
    with app.app_context():
        set_pragmas(db.engine)
        upgrade(str(MIGRATIONS))
        db.engine.dispose()


def refuse_clear_keys(file: Path) -> None:
    """A file whose table holds clear keys is not changed: it is to be imported. Raises Refused."""
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(api_keys)")}
    except sqlite3.Error:
        return  # said in our own words when it is opened for writing
    if "api_key" in columns:
        raise Refused(f"{file} holds clear keys; take them over with: flask keys import {file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
