"""Commands of `flask` as an operator types them, in the process of the test."""

import shutil
from pathlib import Path
from typing import Any

from flask import Flask

from app import create_app
from grid_node.services import Services
from grid_node.settings import Settings
from tests.nodes import empty_database


class CommandLine:
    """The machine of a node that is not running. `commands` are the words with which each command begins."""

    commands: tuple[str, ...] = ()

    def __init__(self, folder: Path, **settings: Any) -> None:
        shutil.copy(empty_database(), folder / "grid.db")
        chosen = {"async_mode": "threading", **settings}
        self.folder = folder
        self.app: Flask = create_app(Settings.load({}, data_dir=folder, **chosen))
        self.grid: Services = self.app.extensions["grid"]
        self._runner = self.app.test_cli_runner()

    def flask(self, *arguments: str) -> Any:
        return self._runner.invoke(args=[*self.commands, *arguments])

    def done(self, *arguments: str) -> str:
        """What is said on stdout."""
        result = self.flask(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    def refused(self, *arguments: str) -> str:
        """What is said on stderr; stdout says nothing."""
        result = self.flask(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        return str(result.stderr).strip()

    def close(self) -> None:
        self.grid.bells.close()
        self.grid.store.close()
        with self.app.app_context():
            self.app.extensions["sqlalchemy"].engine.dispose()
