"""`flask games`: what miners may predict. A command that changed nothing says why, with status 1."""

import json
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from grid_node.cli.answers import answers, fail, in_words
from grid_node.cli.game_files import read_games
from grid_node.predictions.game_schemas import OUTCOMES
from grid_node.predictions.games import BadRows, Games, ImportReport
from grid_node.predictions.rules import UNFINISHED
from grid_node.services import services

games_cli = AppGroup("games", help="Games that miners predict: import, list, close, new-epoch.")

FINAL = {name: code for name, code in OUTCOMES.items() if code != UNFINISHED}
FINAL_WORDS = {**FINAL, **{str(code): code for code in FINAL.values()}}
ODDS = ("team_a_odds", "team_b_odds", "tie_odds")


@games_cli.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@click.option("--assume-utc", is_flag=True, help="Take times without an offset as UTC.")
def import_file(file: Path, dry_run: bool, assume_utc: bool) -> None:
    """Write the games of FILE (.json or .csv): all of them, or none. Prints how many are new, changed, unchanged."""
    with answers():
        report = _import(read_games(file), dry_run, assume_utc)
    click.echo(f"new {report.new} changed {report.changed} unchanged {report.unchanged}")


@games_cli.command("list")
@click.option("--sport", help="Only games of this sport.")
@click.option("--league", help="Only games of this league.")
@click.option("--active/--inactive", default=None, help="Only games that may be predicted, or only the others.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def list_games(sport: str | None, league: str | None, active: bool | None, as_json: bool) -> None:
    """Print id|start|team a|team b|odds|outcome|active of every game, earliest first."""
    asked = {"sport": sport, "league": league, "active": active}
    with answers():
        found = games().list({name: value for name, value in asked.items() if value is not None})["games"]
    if as_json:
        click.echo(json.dumps(list(found.values()), ensure_ascii=False))
        return
    for game in found.values():
        click.echo("|".join(_line(game)))


@games_cli.command("close")
@click.argument("game_id")
@click.argument("outcome", type=click.Choice(list(FINAL_WORDS)))
@click.option("--force", is_flag=True, help="Replace another final outcome; predictions are settled anew.")
def close(game_id: str, outcome: str, force: bool) -> None:
    """Give a game its final outcome: 0 or TeamAWin, 1 or TeamBWin, 2 or Draw."""
    with answers():
        changed = games().close(game_id, FINAL_WORDS[outcome], force).body["changed"]
    if not changed:
        raise fail("The game has this outcome already", 1)
    click.echo(f"Closed game: {game_id}")


@games_cli.command("new-epoch")
def new_epoch() -> None:
    """Begin the update log anew after a backup was restored: every miner gets a snapshot."""
    with answers():
        position = services().predicting.log.new_epoch()
    click.echo(f"New epoch: {position.epoch}")


def games() -> Games:
    return services().predicting.games


def _import(rows: list[Any], dry_run: bool, assume_utc: bool) -> ImportReport:
    try:
        return games().import_games(rows, assume_utc=assume_utc, dry_run=dry_run)
    except BadRows as bad:
        lines = [f"row {number}: {in_words(error)}" for number, error in bad.rows.items()]
        raise fail("\n".join([*lines, f"Nothing was imported: {bad}"]), 1) from None


def _line(game: dict[str, Any]) -> tuple[str, ...]:
    odds = "/".join(game[name] for name in ODDS if game[name] is not None)
    outcome = next(name for name, code in OUTCOMES.items() if code == game["outcome"])
    active = "active" if game["active"] else "inactive"
    return (game["game_id"], game["event_start_date"], game["team_a"], game["team_b"], odds, outcome, active)
