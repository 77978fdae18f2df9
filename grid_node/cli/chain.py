"""`flask chain`: the subnet that the node looks at, and the ledger that stands in for a real chain.

Exit status 0: done; 1: refused, nothing was changed; 2: the configuration is wrong.
"""

import os
import sys
from typing import Any

import click
from flask.cli import AppGroup

from grid_node.chain.child import MODULE
from grid_node.chain.ledger.chain import LedgerChain
from grid_node.chain.ledger.operating import subnets
from grid_node.chain.networks import bare_url
from grid_node.chain.ports import Block
from grid_node.chain.pylon import (
    LOCAL,
    Identity,
    PylonSettings,
    choose_backend,
    node_netuid,
    problems_with,
)
from grid_node.cli.answers import answers, fail
from grid_node.cli.chain_answers import as_json, identity_of, lines, print_json, refusals, require_database, text
from grid_node.cli.chain_asking import look, proposing
from grid_node.cli.chain_ledger import LEDGER_COMMANDS
from grid_node.cli.miners import blacklist_cli
from grid_node.clock import rfc3339
from grid_node.errors import ChainNotFound
from grid_node.services import services
from grid_node.settings import Settings

chain_cli = AppGroup("chain", help="The chain: status, configuration, the ledger, the blacklist, weights from scores.")
chain_cli.add_command(blacklist_cli)
for command in LEDGER_COMMANDS:
    chain_cli.add_command(command)

TIMEOUT = 60.0
"""Seconds for one question to the chain."""
TOKENLESS = "token, or no Authorization header (GRID_CHAIN_ALLOW_TOKENLESS_OPEN_ACCESS)"


@chain_cli.command("status")
@as_json
def status(as_json: bool) -> None:
    """Print the backend and why, the head, the subnets of the ledger or the nodes of the real chain, and the newest
    weights of each identity.

    Asks the database and the real chain itself: it works while no node runs, and takes 10 seconds at most.
    """
    grid = services()
    backend, why = choose_backend(grid.settings, grid.chain.pylon)
    with refusals():
        head, endpoints = (_head(), []) if backend == LOCAL else look()
        told = {
            "backend": backend,
            "why": why,
            "netuid": node_netuid(grid.settings, grid.chain.pylon),
            "head": None if head is None else head.body(),
            "age_seconds": None if head is None else round(grid.clock.now() - head.timestamp, 1),
            "endpoints": endpoints,
            "subnets": _subnets() if backend == LOCAL else [],
            "jobs": [job for identity in grid.chain.pylon.identities if (job := _job(identity)) is not None],
        }
    if as_json:
        print_json(told)
    else:
        _print_status(told)


def _head() -> Block:
    grid = services()
    return LedgerChain(grid.store, grid.clock, grid.settings, None).head()


def _subnets() -> list[dict[str, Any]]:
    return [row._asdict() for row in services().store.read(subnets)]


def _job(identity: Identity) -> dict[str, Any] | None:
    try:
        return services().chain.weights.status(identity)
    except ChainNotFound:
        return None


def _print_status(told: dict[str, Any]) -> None:
    click.echo(f"backend|{told['backend']}|{told['why']}")
    if told["head"] is not None:
        head = told["head"]
        click.echo(f"head|{head['number']}|{head['hash']}|{rfc3339(head['timestamp'])}|{told['age_seconds']} s old")
    for endpoint in told["endpoints"]:
        state = "ok" if endpoint["ok"] else endpoint["error"] or "not asked"
        click.echo(f"endpoint|{text(endpoint['uri'])}|{text(state)}")
    for row in told["subnets"]:
        click.echo(f"subnet|{row['netuid']}|tempo {row['tempo']}|neurons {row['neurons']}")
    for job in told["jobs"]:
        fields = (job["identity_name"], job["netuid"], job["status"], job["attempts"], job["block_number"])
        click.echo("|".join(["weights", *map(text, fields), text(job["last_error"])]))


@chain_cli.command("check-config")
@as_json
def check_config(as_json: bool) -> None:
    """Check every chain setting and print what is in force, without tokens."""
    grid = services()
    pylon = grid.chain.pylon
    problems = problems_with(grid.settings, pylon)
    if problems:
        raise fail("\n".join(f"Configuration error: {problem}" for problem in problems), 2)
    backend, why = choose_backend(grid.settings, pylon)
    real = backend != LOCAL
    told = {
        "backend": backend,
        "why": why,
        "netuid": node_netuid(grid.settings, pylon),
        "network": bare_url(pylon.main_url) if real else None,
        "archive_network": bare_url(pylon.archive_url) if real else None,
        "open_access": _open_access(grid.settings, pylon),
        "metrics": "token" if pylon.metrics_token else "closed",
        "identities": [_identity_line(identity) for identity in pylon.identities],
        "notes": list(pylon.notes),
    }
    if as_json:
        print_json(told)
    else:
        lines(told)


def _open_access(settings: Settings, pylon: PylonSettings) -> str:
    if not pylon.open_access_token:
        return "open"
    return TOKENLESS if settings.chain_allow_tokenless_open_access else "token"


def _identity_line(identity: Identity) -> dict[str, Any]:
    names = ("name", "netuid", "wallet_name", "hotkey_name")
    return {name: getattr(identity, name) for name in names}


@chain_cli.command("propose-weights")
@click.option("--identity", "name", required=True, metavar="NAME", help="Whose weights.")
@click.option("--apply", "applied", is_flag=True, help="Set them, as a client's request would.")
@as_json
def propose_weights(name: str, applied: bool, as_json: bool) -> None:
    """Print the weights that the workers' scores come to, and who is left out and why."""
    identity = identity_of(name)
    with refusals(), proposing() as chain:
        proposal = chain.proposals.propose(identity, TIMEOUT)
        if applied and not proposal.weights:
            raise fail("Nobody is eligible: nothing was set", 1)
        answer = chain.weights.put(identity, proposal.weights, TIMEOUT) if applied else None
    told = proposal.body()
    if as_json:
        print_json(told if answer is None else {**told, "applied": answer})
        return
    for hotkey, weight in told["weights"].items():
        click.echo(f"{text(hotkey)}|{weight}")
    for one in told["excluded"]:
        click.echo(f"{text(one['hotkey'])}|-|{one['reason']}", err=True)
    if not told["weights"]:
        click.echo("Nobody is eligible", err=True)
    if answer is not None:
        click.echo(f"Scheduled weights: {answer['job_id']}")


@chain_cli.command("worker")
def worker() -> None:
    """Be the chain's process: what the node starts by itself, here until it is told to stop."""
    with answers():
        require_database()
    os.execv(sys.executable, [sys.executable, "-m", MODULE])
