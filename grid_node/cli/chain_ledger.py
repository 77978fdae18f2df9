"""Commands of `flask chain` that change the ledger. They refuse a real chain; a running node notices within a second.

An empty ledger gets the subnets and neurons of the identities first, as the node itself would give it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click
from flask.cli import with_appcontext

from grid_node.chain.ledger import operating
from grid_node.chain.ports import Block, WriteRefused
from grid_node.chain.pylon import LOCAL, choose_backend, node_netuid
from grid_node.chain.wallets import Wallets
from grid_node.cli.answers import fail
from grid_node.cli.chain_answers import as_json, identity_of, print_json, refusals
from grid_node.identity.epoch import bump_epoch
from grid_node.services import services

on_subnet = click.option("--netuid", type=int, help="The subnet; without it the identity's, else the node's.")
hotkey_option = click.option("--hotkey", metavar="SS58", help="The neuron's hotkey.")
identity_option = click.option("--identity", "name", metavar="NAME", help="In place of a hotkey: the identity's.")
alpha_option = click.option("--stake-alpha", type=float, help="Whole tokens of alpha.")
tao_option = click.option("--stake-tao", type=float, help="Whole tokens of TAO.")


@click.command("create-subnet")
@click.option("--netuid", type=int, required=True, help="Its number, 0 to 65535.")
@click.option("--tempo", type=int, default=operating.TEMPO, show_default=True, help="Blocks of an epoch, less one.")
@as_json
@with_appcontext
def create_subnet(netuid: int, tempo: int, as_json: bool) -> None:
    """Make a subnet without neurons."""
    with changing():
        block = _bootstrapped_with(netuid, tempo) or _do(operating.create_subnet, netuid, tempo=tempo)
    _tell(f"Created subnet: {netuid}", {"netuid": netuid, "tempo": tempo}, block, as_json)


@click.command("register-neuron")
@on_subnet
@hotkey_option
@identity_option
@click.option("--coldkey", metavar="SS58", help="Its coldkey; without it the hotkey stands there.")
@alpha_option
@tao_option
@click.option("--validator-permit", is_flag=True, help="It may set weights for others.")
@click.option("--axon", metavar="IP:PORT", help="Where it serves.")
@as_json
@with_appcontext
def register_neuron(
    netuid: int | None,
    hotkey: str | None,
    name: str | None,
    coldkey: str | None,
    stake_alpha: float | None,
    stake_tao: float | None,
    validator_permit: bool,
    axon: str | None,
    as_json: bool,
) -> None:
    """Put a neuron at the lowest free uid."""
    with changing():
        _bootstrap()
        netuid, hotkey = _neuron(netuid, hotkey, name)
        uid, block = _on(
            operating.register_neuron,
            netuid,
            hotkey,
            coldkey=coldkey,
            stake_alpha=stake_alpha or 0.0,
            stake_tao=stake_tao or 0.0,
            validator_permit=validator_permit,
            axon=axon,
        )
    told = {"netuid": netuid, "uid": uid, "hotkey": hotkey}
    _tell(f"Registered neuron: {hotkey} is uid {uid} of subnet {netuid}", told, block, as_json)


@click.command("deregister-neuron")
@on_subnet
@hotkey_option
@identity_option
@as_json
@with_appcontext
def deregister_neuron(netuid: int | None, hotkey: str | None, name: str | None, as_json: bool) -> None:
    """Take a neuron off its subnet."""
    with changing():
        _bootstrap()
        netuid, hotkey = _neuron(netuid, hotkey, name)
        uid, block = _on(operating.deregister_neuron, netuid, hotkey)
    told = {"netuid": netuid, "uid": uid, "hotkey": hotkey}
    _tell(f"Deregistered neuron: uid {uid} of subnet {netuid} is free", told, block, as_json)


@click.command("set-stake")
@on_subnet
@hotkey_option
@identity_option
@alpha_option
@tao_option
@as_json
@with_appcontext
def set_stake(
    netuid: int | None,
    hotkey: str | None,
    name: str | None,
    stake_alpha: float | None,
    stake_tao: float | None,
    as_json: bool,
) -> None:
    """Set a neuron's stakes; what is not named stays."""
    with changing():
        _bootstrap()
        netuid, hotkey = _neuron(netuid, hotkey, name)
        uid, block = _on(operating.set_stake, netuid, hotkey, stake_alpha=stake_alpha, stake_tao=stake_tao)
    told = {"netuid": netuid, "uid": uid, "hotkey": hotkey}
    _tell(f"Set stake: uid {uid} of subnet {netuid}", told, block, as_json)


@click.command("seed")
@on_subnet
@click.option("--neurons", type=int, required=True, help="How many it is to have, those that it has included.")
@as_json
@with_appcontext
def seed(netuid: int | None, neurons: int, as_json: bool) -> None:
    """Fill a subnet with made-up neurons, the same ones each time, until it has as many."""
    with changing():
        _bootstrap()
        netuid = _netuid(netuid)
        uids, block = _on(operating.seed, netuid, neurons)
    _tell(f"Registered neurons: {len(uids)} on subnet {netuid}", {"netuid": netuid, "uids": uids}, block, as_json)


@click.command("advance")
@click.option("--blocks", type=int, required=True, help="How many.")
@as_json
@with_appcontext
def advance(blocks: int, as_json: bool) -> None:
    """Let the head go forward without waiting for it."""
    with changing():
        _bootstrap()
        block = _do(operating.advance, blocks)
    _tell(f"Advanced the head: block {block.number}", {}, block, as_json)


LEDGER_COMMANDS = (create_subnet, register_neuron, deregister_neuron, set_stake, seed, advance)


@contextmanager
def changing() -> Iterator[None]:
    """Refuses a real chain at the start, and lets a running node know at the end."""
    grid = services()
    with refusals():
        backend, why = choose_backend(grid.settings, grid.chain.pylon)
        if backend != LOCAL:
            raise fail(f"The backend is {backend} ({why}): only the node's own ledger can be changed by hand", 1)
        yield
        grid.store.write(bump_epoch)


def _do(operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    grid = services()
    return operation(grid.store, grid.clock, grid.settings, *arguments, **options)


def _on(operation: Callable[..., Any], netuid: int, *arguments: Any, **options: Any) -> Any:
    """The same on a subnet; where there is none, the refusal says what makes it."""
    try:
        return _do(operation, netuid, *arguments, **options)
    except WriteRefused as refused:
        if str(refused) != f"Subnet {netuid} not found.":
            raise
        raise WriteRefused(f"{refused} `flask chain create-subnet --netuid {netuid}` makes it.") from None


def _bootstrap(tempo: int | None = None) -> Block | None:
    """What an empty ledger begins with; None where it is not empty, or is to stay so."""
    grid = services()
    pylon = grid.chain.pylon if tempo is None else replace(grid.chain.pylon, tempo=tempo)
    found: Block | None = _do(operating.bootstrap, pylon, Wallets.of(grid.settings, grid.chain.pylon))
    return found


def _bootstrapped_with(netuid: int, tempo: int) -> Block | None:
    """The block that made this subnet and all others of the identities, where they came first just now.

    Without identities nothing comes first: the operator's subnet is the ledger's only one.
    """
    netuids = {identity.netuid for identity in services().chain.pylon.identities}
    if netuid in netuids and 1 <= tempo <= operating.TEMPO_MAX:
        return _bootstrap(tempo)
    if netuids:
        _bootstrap()
    return None


def _neuron(netuid: int | None, hotkey: str | None, name: str | None) -> tuple[int, str]:
    """The subnet and the hotkey that the options mean."""
    if (hotkey is None) == (name is None):
        raise click.UsageError("Name either --hotkey or --identity.")
    if hotkey is not None:
        return _netuid(netuid), hotkey
    grid = services()
    identity = identity_of(str(name))
    hotkey = Wallets.of(grid.settings, grid.chain.pylon).hotkey(identity.signer())
    return (identity.netuid if netuid is None else netuid), hotkey


def _netuid(netuid: int | None) -> int:
    grid = services()
    return node_netuid(grid.settings, grid.chain.pylon) if netuid is None else netuid


def _tell(words: str, data: dict[str, Any], block: Block, as_json: bool) -> None:
    if as_json:
        print_json({**data, "block": block.body()})
    else:
        click.echo(f"{words} (block {block.number})")
