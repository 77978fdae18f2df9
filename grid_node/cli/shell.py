"""What `flask shell` opens with: the services, the tables by their class names, and a session."""

from typing import Any

from grid_node.database import Base, db
from grid_node.services import services


def at_hand() -> dict[str, Any]:
    """`grid` and each service by its field's name, every table class, `db`, `session`, `select`."""
    grid = services()
    tables = {mapper.class_.__name__: mapper.class_ for mapper in Base.registry.mappers}
    return {**tables, **vars(grid), "grid": grid, "db": db, "session": db.session, "select": db.select}
