"""What Alembic runs: the migrations of the current app's database, in one transaction."""

from typing import Any

from alembic import context
from flask import current_app
from sqlalchemy import text

# Loads every table, so that a new migration can be drawn from the difference.
from grid_node.database import db

LOCK = 0x67726964
"""PostgreSQL's advisory lock under which one of several starting nodes migrates."""


def run() -> None:
    """Migrate on a live connection; drawing SQL without a database (`--sql`) is not supported."""
    if context.is_offline_mode():
        raise SystemExit("Offline migrations are not supported: run `flask db upgrade` against the database.")
    options: dict[str, Any] = current_app.extensions["migrate"].configure_args
    options.setdefault("process_revision_directives", drop_empty)
    with db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=db.metadata, **options)
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = 0"))  # whoever comes second waits for the first
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            context.run_migrations()
    # SQLite folds its log into the file when the last connection closes: the file alone is then the database.
    db.engine.dispose()


def drop_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """No migration is written when no table changed."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives[:] = []


run()
