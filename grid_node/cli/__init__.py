"""The command line: `flask keys|miners|scorer|tasks ...`."""

from flask import Flask


def register_commands(app: Flask) -> None:
    """Every command group."""
