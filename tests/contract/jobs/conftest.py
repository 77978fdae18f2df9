from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]
