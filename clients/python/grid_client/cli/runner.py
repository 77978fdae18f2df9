"""`grid-client runner`, which is `grid-runner` too: the way from a node to the Cog worker on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from grid_client.cli.signals import until_signalled
from grid_client.runner import Refused, RunnerAgent
from grid_client.runner_calls import origin_of
from grid_client.runner_identity import RunnerIdentity, instance_file, kept_instance

EXIT_REFUSED = 3
WORKER = "http://localhost:3009"
CREDENTIAL = Path("tunnel_credential.json")
STATE = Path("~/.grid-client")
"""Where the instance of an agent without a credential file is kept."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=run, verbose=True)
    parser.add_argument("--url", default=WORKER, help=f"the worker: scheme, host and port (default {WORKER})")
    node = os.environ.get("GRID_NODE_URL") or os.environ.get("GRID_URL")
    parser.add_argument("--node", default=node, help="the node (default $GRID_NODE_URL, else $GRID_URL)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--credential", type=Path, help=f"file that registration gave (default ./{CREDENTIAL})")
    who.add_argument("--model-id", help="in its place, with an API key of the model's owner in $GRID_API_KEY")
    parser.add_argument("--ca-file", type=Path, help="certificates that vouch for the node")
    parser.add_argument("--allow-insecure", action="store_true", help="plain http:// to a node on another machine")


def run(options: argparse.Namespace) -> int:
    """Exit 0 when told to stop, 3 when the node refuses this agent for good."""
    if not options.node:
        raise ValueError("give --node or set GRID_NODE_URL")
    identity, folder = _identity(options)
    with kept_instance(instance_file(folder, identity.model_id, origin_of(options.url))) as instance:
        return _run(options, identity, instance)


def _run(options: argparse.Namespace, identity: RunnerIdentity, instance: str) -> int:
    agent = RunnerAgent(
        options.node,
        options.url,
        identity,
        instance,
        ca_file=options.ca_file,
        allow_insecure=options.allow_insecure,
    )
    try:
        until_signalled(agent.run, agent.stop)
    except Refused as error:
        print(f"grid-runner: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _identity(options: argparse.Namespace) -> tuple[RunnerIdentity, Path]:
    """And the folder for what is to be kept."""
    if options.model_id is None:
        file = options.credential or CREDENTIAL
        return RunnerIdentity.of_credential(file), file.absolute().parent
    key = os.environ.get("GRID_API_KEY")
    if not key:
        raise ValueError("--model-id needs an API key in GRID_API_KEY")
    return RunnerIdentity(options.model_id, key=key), STATE.expanduser()
