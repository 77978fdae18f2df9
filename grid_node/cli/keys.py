"""`flask keys`: every change of API keys. A command that changed nothing says why and ends with status 1."""

import dataclasses
import json
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from grid_node.cli.answers import answers
from grid_node.clock import rfc3339, rfc3339_or_none
from grid_node.identity import keys
from grid_node.identity.refusal import Refused
from grid_node.identity.service import KeyInfo, KeyService, NewKey

keys_cli = AppGroup("keys", help="API keys: who may ask, for what, and how often.")

# so that -5 and a key that begins with a dash reach our own check instead of click's
_AS_GIVEN = {"ignore_unknown_options": True}
_NOT_IMPORTABLE = "{path} has no table api_keys(api_key, name, max_requests, period)"

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def new_key_options(command: Any) -> Any:
    """The options of every command that makes a key."""
    scope = click.option(
        "--scope",
        "scopes",
        multiple=True,
        type=click.Choice(keys.SCOPES),
        help="What the key is for; may be repeated. Default: client.",
    )
    concurrent = click.option(
        "--max-concurrent", default="0", metavar="N", help="Unfinished tasks at a time; 0: no limit."
    )
    expires = click.option("--expires", metavar="RFC3339", help="When the key stops working.")
    return scope(concurrent(expires(as_json(command))))


@keys_cli.command("gen")
@as_json
def gen(as_json: bool) -> None:
    """Make a key and print it. It is not stored: see `add`."""
    key = service().generate()
    show({"key": key}, f"Generated API Key: {key}", as_json)


@keys_cli.command("create", context_settings=_AS_GIVEN)
@click.argument("name")
@click.argument("max_requests", metavar="MAX")
@click.argument("period")
@new_key_options
def create(as_json: bool, **asked: Any) -> None:
    """Make a key and store it: MAX requests in PERIOD seconds."""
    with answers():
        key = service().generate()
        info = service().add(new_key(key, **asked))
    show({"key": key, **public(info)}, f"Generated API Key: {key}\nAdded API Key: {key}", as_json)


@keys_cli.command("add", context_settings=_AS_GIVEN)
@click.argument("key")
@click.argument("name")
@click.argument("max_requests", metavar="MAX")
@click.argument("period")
@new_key_options
def add(key: str, as_json: bool, **asked: Any) -> None:
    """Store KEY (- reads it from stdin): MAX requests in PERIOD seconds."""
    key = from_stdin(key)
    with answers():
        info = service().add(new_key(key, **asked))
    show({"key": key, **public(info)}, f"Added API Key: {key}", as_json)


@keys_cli.command("remove", context_settings=_AS_GIVEN)
@click.argument("key", metavar="KEY|ID")
@as_json
def remove(key: str, as_json: bool) -> None:
    """Remove a key; it stops working at once."""
    key = from_stdin(key)
    with answers():
        info = service().remove(key)
    show(public(info), f"Removed API Key: {key}", as_json)


@keys_cli.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """Print id|name|max|period|max_concurrent|scopes|state|last_used of every key."""
    with answers():
        found = service().all_keys()
    if as_json:
        click.echo(json.dumps([public(info) for info in found]))
    else:
        for info in found:
            click.echo(line(info))


@keys_cli.command("limit", context_settings=_AS_GIVEN)
@click.argument("key_id", metavar="ID")
@click.argument("max_requests", metavar="MAX")
@click.argument("period")
@as_json
def limit(key_id: str, max_requests: str, period: str, as_json: bool) -> None:
    """Allow a key MAX requests in PERIOD seconds."""
    with answers():
        info = service().limit(from_stdin(key_id), max_requests, period)
    show(public(info), f"Limited API Key: {info.id}", as_json)


@keys_cli.command("disable", context_settings=_AS_GIVEN)
@click.argument("key_id", metavar="ID")
@as_json
def disable(key_id: str, as_json: bool) -> None:
    """Stop a key from working, and keep it."""
    with answers():
        info = service().disable(from_stdin(key_id))
    show(public(info), f"Disabled API Key: {info.id}", as_json)


@keys_cli.command("enable", context_settings=_AS_GIVEN)
@click.argument("key_id", metavar="ID")
@as_json
def enable(key_id: str, as_json: bool) -> None:
    """Let a disabled key work again."""
    with answers():
        info = service().enable(from_stdin(key_id))
    show(public(info), f"Enabled API Key: {info.id}", as_json)


@keys_cli.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
def import_keys(file: Path, as_json: bool) -> None:
    """Take over the keys of an api_keys.db: all of them, or none."""
    with answers():
        found = read_old_keys(file)
        added = service().add_all(found)
    if as_json:
        click.echo(json.dumps([public(info) for info in added]))
        return
    for info in added:
        click.echo(f"Imported API Key: {info.id}")
    if len(added) < len(found):
        click.echo(f"Passed over {len(found) - len(added)} that exist already")


def service() -> KeyService:
    grid = current_app.extensions["grid"]
    return KeyService(grid.store, grid.clock, grid.settings)


def new_key(key: str, *, expires: str | None = None, **asked: Any) -> NewKey:
    """Raises Refused for an `expires` that is no time; the rest is checked where it is stored."""
    at = None if expires is None else keys.check_time(expires, "expires")
    return NewKey(key, expires_at=at, **asked)


def from_stdin(key: str) -> str:
    """The key itself, or the first line of stdin for `-`, so that it stays out of the shell's history."""
    return sys.stdin.readline(1024).strip("\r\n") if key == "-" else key


def read_old_keys(file: Path) -> list[NewKey]:
    """The rows of an api_keys.db whose keys are clear text. Raises Refused."""
    address = f"{file.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            query = "SELECT api_key, name, max_requests, period FROM api_keys ORDER BY rowid"
            return [NewKey(*old_row(row)) for row in connection.execute(query)]
    except sqlite3.Error:
        raise Refused(_NOT_IMPORTABLE.format(path=file)) from None


def old_row(row: Iterable[Any]) -> tuple[str, str, str, str]:
    """SQLite columns may hold any type; ours are judged as text, and what is no text or number is none."""
    key, name, max_requests, period = (str(value) if isinstance(value, str | int) else "" for value in row)
    return key, name, max_requests, period


def line(info: KeyInfo) -> str:
    used = "never" if info.last_used_at is None else rfc3339(info.last_used_at)
    numbers = (info.max_requests, info.period, info.max_concurrent)
    return "|".join([info.id, info.name, *map(str, numbers), ",".join(info.scopes), info.state, used])


def public(info: KeyInfo) -> dict[str, Any]:
    """What may be shown of a key, as plain JSON data."""
    times = {name: rfc3339_or_none(getattr(info, name)) for name in ("created_at", "last_used_at", "expires_at")}
    return {**dataclasses.asdict(info), **times}


def show(data: dict[str, Any], text: str, as_json: bool) -> None:
    click.echo(json.dumps(data) if as_json else text)
