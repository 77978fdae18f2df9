"""Entry of the command `grid-client`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from grid_client import __version__
from grid_client.cli import generate, miner, models, runner, worker
from grid_client.errors import GridError

EXIT_FAILED, EXIT_USAGE = 1, 2
UNUSABLE = frozenset({"bad_ca_file", "bad_node_hotkey", "bad_url", "bad_wallet", "insecure_url", "invalid_prediction"})
"""Codes for what was given to the command; no node was asked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the node refused or the task failed, 2 wrong usage or unusable file."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        exit_code: int = options.command(options)
    except GridError as error:
        is_usage = error.code in UNUSABLE and not error.status
        return _complain(error, EXIT_USAGE if is_usage else EXIT_FAILED)
    except (OSError, ValueError) as error:
        return _complain(error, EXIT_USAGE)
    return exit_code


def grid_runner() -> int:
    """Entry of the command `grid-runner`: exit codes 0 told to stop, 2 wrong usage or unusable file, 3 refused."""
    return main(["runner", *sys.argv[1:]])


def _complain(error: Exception, exit_code: int) -> int:
    print(f"grid-client: {error}", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grid-client", description="Client and worker of a grid node.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    work = commands.add_parser("worker", help="work for a node")
    worker.add_options(work.add_subparsers(required=True, metavar="COMMAND").add_parser("run"))
    generate.add_options(commands.add_parser("generate", help="generate from a prompt, fetch the best"))
    models.add_options(commands.add_parser("models", help="serve, list, fetch and run models"))
    models.add_dataset_options(commands.add_parser("datasets", help="describe and find datasets"))
    miner.add_options(commands.add_parser("miner", help="predict games for a node"))
    runner.add_options(commands.add_parser("runner", help="let a node reach the Cog worker on this machine"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
