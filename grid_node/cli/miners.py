"""`flask miners`: which hotkeys may come in. A command that changed nothing says why and ends with status 1."""

import json

import click
from flask import current_app
from flask.cli import AppGroup

from grid_node.cli.answers import answers
from grid_node.clock import rfc3339, rfc3339_or_none
from grid_node.identity.hotkeys import decode_hotkey
from grid_node.identity.keys import check_time
from grid_node.identity.standing import AllowList

miners_cli = AppGroup("miners", help="Hotkeys that may work and predict here.")
allow_cli = AppGroup("allow", help="Hotkeys that count as registered while no chain says so.")
blacklist_cli = AppGroup("blacklist", help="Hotkeys that are refused.")
miners_cli.add_command(allow_cli)
miners_cli.add_command(blacklist_cli)

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@allow_cli.command("add")
@click.argument("hotkey")
def allow(hotkey: str) -> None:
    """Let HOTKEY (SS58, prefix 42) come in."""
    with answers():
        allow_list().allow(decode_hotkey(hotkey))
    click.echo(f"Allowed hotkey: {hotkey}")


@allow_cli.command("remove")
@click.argument("hotkey")
def disallow(hotkey: str) -> None:
    """Take HOTKEY off the list; its connections are closed."""
    with answers():
        allow_list().disallow(decode_hotkey(hotkey))
    click.echo(f"Removed hotkey: {hotkey}")


@allow_cli.command("list")
@as_json
def list_allowed(as_json: bool) -> None:
    """Print every hotkey on the list."""
    with answers():
        hotkeys = allow_list().allowed()
    if as_json:
        click.echo(json.dumps(hotkeys))
    else:
        for hotkey in hotkeys:
            click.echo(hotkey)


@blacklist_cli.command("add")
@click.argument("hotkey")
@click.option("--reason", default="", help="Up to 200 characters, for the list.")
@click.option("--until", metavar="RFC3339", help="When the entry ends; without it, never.")
def blacklist(hotkey: str, reason: str, until: str | None) -> None:
    """Refuse HOTKEY, registered or not; its connections are closed."""
    with answers():
        at = None if until is None else check_time(until, "until")
        allow_list().blacklist(decode_hotkey(hotkey), reason, at)
    click.echo(f"Blacklisted hotkey: {hotkey}")


@blacklist_cli.command("remove")
@click.argument("hotkey")
def pardon(hotkey: str) -> None:
    """Refuse HOTKEY no longer."""
    with answers():
        allow_list().pardon(decode_hotkey(hotkey))
    click.echo(f"Removed hotkey: {hotkey}")


@blacklist_cli.command("list")
@as_json
def list_blacklisted(as_json: bool) -> None:
    """Print hotkey|until|reason of every entry in force."""
    with answers():
        entries = allow_list().blacklisted()
    if as_json:
        data = [{"hotkey": e.hotkey, "until": rfc3339_or_none(e.until), "reason": e.reason} for e in entries]
        click.echo(json.dumps(data))
        return
    for entry in entries:
        until = "forever" if entry.until is None else rfc3339(entry.until)
        click.echo(f"{entry.hotkey}|{until}|{entry.reason}")


def allow_list() -> AllowList:
    grid = current_app.extensions["grid"]
    return AllowList(grid.store, grid.clock)
