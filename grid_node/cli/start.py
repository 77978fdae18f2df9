"""`grid-node serve`: settings from flags, then the environment, then `.env`; migrations; then gunicorn takes over.

Exit status 2 when a setting is nonsense or the database cannot be migrated; nothing is opened before that.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from flask_migrate import upgrade
from sqlalchemy.exc import SQLAlchemyError

import app as composition
from grid_node.chain.pylon import PylonSettings, problems_with, refuse
from grid_node.settings import BadSetting, Settings, env_name

SECTIONS = ("public_api", "worker", "scoring", "websocket")
"""Settings whose names begin so have flags of two words: `--public_api.copies`."""
SYNC_MAX = 1.0
"""Longest time, in seconds, that a change of keys may take to work."""
ROOT = Path(composition.__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of the command `grid-node`. Becomes gunicorn, or exits with 2 when the node cannot be started."""
    options = parser().parse_args(arguments)
    try:
        settings = configure(vars(options), os.environ)
        check_chain(settings)
        migrate(settings)
    except (BadSetting, SQLAlchemyError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"grid-node: {line}\n")
        sys.exit(2)
    os.execve(sys.executable, command(), {**os.environ, **settings.environ()})


def parser() -> argparse.ArgumentParser:
    """One flag for each setting."""
    found = argparse.ArgumentParser(prog="grid-node", description="A grid node.", allow_abbrev=False)
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="migrate the database and serve", allow_abbrev=False)
    for field in dataclasses.fields(Settings):
        if field.name != "async_mode":
            serve.add_argument(flag(field.name), dest=field.name, **_shape(field))
    return found


def flag(name: str) -> str:
    """`public_api_copies` is set by `--public_api.copies`, `data_dir` by `--data_dir`."""
    for section in SECTIONS:
        if name.startswith(f"{section}_"):
            return f"--{section}.{name.removeprefix(section + '_')}"
    return f"--{name}"


def _shape(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    """How argparse reads it: always as text, which Settings parses; a boolean may stand without a value."""
    unit, text = field.metadata["unit"], field.metadata["help"].replace("%", "%%")
    shape: dict[str, Any] = {"help": f"{text} (default {field.default})", "metavar": (unit or "VALUE").upper()}
    if field.type is bool:
        shape.update(nargs="?", const="true", metavar="true|false")
    return shape


def configure(flags: dict[str, str | None], environ: MutableMapping[str, str]) -> Settings:
    """The node's settings; flags are put into `environ`, where they beat what was there. Raises BadSetting."""
    environ.update({env_name(name): value for name, value in flags.items() if value is not None})
    environ.setdefault("GRID_ASYNC_MODE", "eventlet")
    return cut_sync_interval(Settings.load())


def cut_sync_interval(settings: Settings) -> Settings:
    """Changes of keys work within a second, whatever longer time is asked for."""
    asked = settings.public_api_sync_api_keys_interval
    if asked <= SYNC_MAX:
        return settings
    variable = env_name("public_api_sync_api_keys_interval")
    sys.stderr.write(f"grid-node: {variable} is cut from {asked:g} s to {SYNC_MAX:g} s\n")
    return dataclasses.replace(settings, public_api_sync_api_keys_interval=SYNC_MAX)


def check_chain(settings: Settings) -> None:
    """Raises BadSetting with all that is wrong with the chain's settings, its hotkeys included. The processes that
    serve do not read these."""
    refuse(problems_with(settings, PylonSettings.load(settings=settings)))


def migrate(settings: Settings) -> None:
    """Bring the database's tables up to date."""
    # The hub does not run yet, so this process writes with plain threads whatever mode will serve.
    node = composition.create_app(dataclasses.replace(settings, async_mode="threading"))
    with node.app_context():
        upgrade(str(ROOT / "migrations"))
    node.extensions["grid"].store.close()


def command() -> list[str]:
    """The server's command line; gunicorn.conf.py reads the rest from the environment."""
    return [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]


if __name__ == "__main__":
    main()
