"""The command line: `flask shell`, and a group for each part of the node, `flask chain` to `flask tasks`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask import Flask

from grid_node.cli.answers import fail
from grid_node.cli.chain import chain_cli
from grid_node.cli.chain_environ import drop_copies
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
from grid_node.settings import BadSetting

GROUPS = (
    chain_cli,
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


@contextmanager
def configuration() -> Iterator[None]:
    """Around what makes the app: `flask` tells what is wrong with the settings, and ends with status 2."""
    drop_copies(os.environ)
    try:
        yield
    except BadSetting as error:
        if click.get_current_context(silent=True) is None:
            raise
        raise fail(str(error), 2) from None
