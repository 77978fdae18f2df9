"""The command line: `flask datasets|games|keys|miners|models|predictions|runners|scorer|tasks` and `flask shell`."""

from flask import Flask

from grid_node.cli.datasets import datasets_cli
from grid_node.cli.games import games_cli
from grid_node.cli.keys import keys_cli
from grid_node.cli.miners import miners_cli
from grid_node.cli.models import models_cli
from grid_node.cli.predictions import predictions_cli
from grid_node.cli.runners import runners_cli
from grid_node.cli.scorer import scorer_cli
from grid_node.cli.shell import at_hand
from grid_node.cli.tasks import tasks_cli

GROUPS = (
    datasets_cli,
    games_cli,
    keys_cli,
    miners_cli,
    models_cli,
    predictions_cli,
    runners_cli,
    scorer_cli,
    tasks_cli,
)


def register_commands(app: Flask) -> None:
    """Every command group, and what `flask shell` opens with."""
    for group in GROUPS:
        app.cli.add_command(group)
    app.shell_context_processor(at_hand)
