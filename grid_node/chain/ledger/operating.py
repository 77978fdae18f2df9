"""What an operator does to the ledger: each command is one block. All raise WriteRefused with a plain text."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import func, insert, select

from grid_node.chain.ledger import blocks
from grid_node.chain.ledger.blocks import Extrinsic, NewBlock
from grid_node.chain.ledger.chain import Hotkeys
from grid_node.chain.ledger.neurons import (
    NewNeuron,
    change,
    deregister,
    has_subnet,
    present,
    register,
    registered,
    require_subnet,
    uids,
)
from grid_node.chain.ledger.seeding import made_up
from grid_node.chain.ledger.tables import OPEN, ChainNeuron, ChainSubnet
from grid_node.chain.ports import BLOCK_MAX, NETUID_MAX, RAO, UIDS_MAX, Block, WriteRefused
from grid_node.chain.pylon import Identity, PylonSettings
from grid_node.clock import Clock
from grid_node.database import Store, Transaction
from grid_node.settings import Settings
from grid_node.ss58 import decode

T = TypeVar("T")

MODULE = "Ledger"
"""The pallet that the commands' extrinsics are of: no subtensor has it."""
TEMPO = 360
TEMPO_MAX = 65535
STAKE_MAX = 2**62 // RAO
"""Whole tokens of one kind that a neuron may have."""
BOOTSTRAP_NETUID = 1
BOOTSTRAP_STAKE = 1000.0
"""Whole tokens of alpha that an identity's neuron begins with: enough for its weights to count."""
HTTP = 4
"""The axon's number for the protocol HTTP."""


class Registered(NamedTuple):
    uid: int
    block: Block


class SubnetRow(NamedTuple):
    """A subnet as `flask chain status` lists it."""

    netuid: int
    tempo: int
    neurons: int


class Sealed(NamedTuple):
    """What a command wrote, and its block."""

    value: Any
    block: Block


def create_subnet(store: Store, clock: Clock, settings: Settings, netuid: int, *, tempo: int = TEMPO) -> Block:
    """`tempo` is in blocks: an epoch has one more."""
    _check_whole("netuid", netuid, 0, NETUID_MAX)
    _check_whole("tempo", tempo, 1, TEMPO_MAX)
    return _write(store, clock, settings, partial(_create_subnet, netuid=netuid, tempo=tempo)).block


def register_neuron(
    store: Store,
    clock: Clock,
    settings: Settings,
    netuid: int,
    hotkey: str,
    *,
    coldkey: str | None = None,
    stake_alpha: float = 0.0,
    stake_tao: float = 0.0,
    validator_permit: bool = False,
    axon: str | None = None,
) -> Registered:
    """Stakes are whole tokens, `axon` is `ip:port`. Without a coldkey the hotkey stands in for it."""
    ip, port = _axon(axon)
    neuron = NewNeuron(
        hotkey=_ss58(hotkey),
        coldkey=_ss58(coldkey or hotkey),
        alpha=_rao("stake-alpha", stake_alpha),
        tao=_rao("stake-tao", stake_tao),
        validator_permit=validator_permit,
        ip=ip,
        port=port,
        protocol=HTTP if port else 0,
    )
    sealed = _write(store, clock, settings, partial(_register, netuid=netuid, neurons=[neuron]))
    return Registered(sealed.value[0], sealed.block)


def deregister_neuron(store: Store, clock: Clock, settings: Settings, netuid: int, hotkey: str) -> Registered:
    """Returns the uid that is free now."""

    def work(block: NewBlock) -> int:
        uid = deregister(block, netuid, hotkey)
        _log(block, "deregister_neuron", netuid=netuid, hotkey=hotkey, uid=uid)
        return uid

    return Registered(*_write(store, clock, settings, work))


def set_stake(
    store: Store,
    clock: Clock,
    settings: Settings,
    netuid: int,
    hotkey: str,
    *,
    stake_alpha: float | None = None,
    stake_tao: float | None = None,
) -> Registered:
    """Whole tokens; what is None stays as it is."""
    given = {"alpha": _rao_or_none("stake-alpha", stake_alpha), "tao": _rao_or_none("stake-tao", stake_tao)}
    stakes = {name: value for name, value in given.items() if value is not None}
    if not stakes:
        raise WriteRefused("No stake is given.")

    def work(block: NewBlock) -> int:
        require_subnet(block.tx, netuid)
        row = registered(block.tx, netuid, hotkey)
        change(block, row, **stakes)
        _log(block, "set_stake", netuid=netuid, hotkey=hotkey, **stakes)
        return int(row.uid)

    return Registered(*_write(store, clock, settings, work))


def seed(store: Store, clock: Clock, settings: Settings, netuid: int, neurons: int) -> Sealed:
    """Fill a subnet with made-up neurons, the same ones each time, until it has `neurons`; `value` is their uids."""
    _check_whole("neurons", neurons, 1, UIDS_MAX)

    def work(block: NewBlock) -> list[int]:
        require_subnet(block.tx, netuid)
        missing = max(0, neurons - len(uids(block.tx, netuid)))
        new = (one for one in made_up(netuid, UIDS_MAX) if present(block.tx, netuid, one.hotkey) is None)
        taken = register(block, netuid, list(islice(new, missing)))
        _log(block, "seed", netuid=netuid, neurons=neurons)
        return taken

    return _write(store, clock, settings, work)


def advance(store: Store, clock: Clock, settings: Settings, count: int) -> Block:
    """Move the head forward by `count` blocks at once; the last of them is written."""
    _check_whole("blocks", count, 1, BLOCK_MAX)
    return _write(store, clock, settings, lambda block: _log(block, "advance", blocks=count), skip=count - 1).block


def any_subnet(tx: Transaction) -> bool:
    """Whether the ledger holds anything yet."""
    return tx.execute(select(ChainSubnet.netuid).limit(1)).first() is not None


def subnets(tx: Transaction) -> list[SubnetRow]:
    """All subnets with the number of their neurons, in the order of their netuids."""
    joined = select(ChainSubnet.netuid, ChainSubnet.tempo, func.count(ChainNeuron.uid)).outerjoin(
        ChainNeuron, (ChainNeuron.netuid == ChainSubnet.netuid) & (ChainNeuron.valid_to == OPEN)
    )
    rows = tx.execute(joined.group_by(ChainSubnet.netuid, ChainSubnet.tempo).order_by(ChainSubnet.netuid))
    return [SubnetRow(*row) for row in rows]


def bootstrap(
    store: Store, clock: Clock, settings: Settings, pylon: PylonSettings, wallets: Hotkeys | None
) -> Block | None:
    """Give an empty ledger the subnet of every identity, else subnet 1, and each identity's neuron, in their order.

    They get a validator permit and `BOOTSTRAP_STAKE` of alpha. None: the ledger has a subnet, or bootstrapping is off.
    """
    if not settings.chain_local_bootstrap or store.read(any_subnet):
        return None
    # files are read, or made, outside the unit of work
    hotkeys = {} if wallets is None else {one: wallets.hotkey(one.signer()) for one in pylon.identities}

    def unit(tx: Transaction) -> Block | None:
        block = _new_block(tx, clock, settings)
        if any_subnet(tx):  # another process was faster
            return None
        _bootstrap(block, pylon, hotkeys)
        return block.seal()

    return store.write(unit)


def _bootstrap(block: NewBlock, pylon: PylonSettings, hotkeys: Mapping[Identity, str]) -> None:
    netuids = dict.fromkeys(identity.netuid for identity in pylon.identities)
    for netuid in netuids or [BOOTSTRAP_NETUID]:
        _create_subnet(block, netuid, pylon.tempo)
    wanted = dict.fromkeys((identity.netuid, hotkey) for identity, hotkey in hotkeys.items())
    stake = _rao("stake", BOOTSTRAP_STAKE)
    for netuid, hotkey in wanted:
        _register(block, netuid, [NewNeuron(hotkey, hotkey, alpha=stake, validator_permit=True)])


def _write(store: Store, clock: Clock, settings: Settings, work: Callable[[NewBlock], Any], *, skip: int = 0) -> Sealed:
    def unit(tx: Transaction) -> Sealed:
        block = _new_block(tx, clock, settings, skip)
        value = work(block)
        return Sealed(value, block.seal())

    return store.write(unit)


def _new_block(tx: Transaction, clock: Clock, settings: Settings, skip: int = 0) -> NewBlock:
    """From here on nobody else writes until the unit ends: what is read after this holds."""
    now, pace = clock.now(), settings.chain_local_block_seconds
    blocks.found(tx, now, clock.new_id(), pace)
    return NewBlock(tx, now, pace, skip=skip)


def _create_subnet(block: NewBlock, netuid: int, tempo: int) -> None:
    if has_subnet(block.tx, netuid):
        raise WriteRefused(f"Subnet {netuid} exists already.")
    block.tx.execute(insert(ChainSubnet), {"netuid": netuid, "tempo": tempo, "created": block.number})
    block.touch(netuid)
    _log(block, "create_subnet", netuid=netuid, tempo=tempo)


def _register(block: NewBlock, netuid: int, neurons: Sequence[NewNeuron]) -> list[int]:
    taken = register(block, netuid, list(neurons))
    for neuron in neurons:
        _log(block, "register_neuron", netuid=netuid, hotkey=neuron.hotkey, coldkey=neuron.coldkey)
    return taken


def _log(block: NewBlock, function: str, **args: int | str) -> None:
    told = [
        {"name": name, "type": "u64" if isinstance(value, int) else "AccountId", "value": value}
        for name, value in args.items()
    ]
    block.add(Extrinsic(None, None, MODULE, function, told))


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise WriteRefused(f"{name} is a number from {low} to {high}, not {value}.")


def _ss58(text: str) -> str:
    try:
        decode(text)
    except ValueError:
        raise WriteRefused(f"{text[:64]!r} is no SS58 address with prefix 42.") from None
    return text


def _rao_or_none(name: str, tokens: float | None) -> int | None:
    return None if tokens is None else _rao(name, tokens)


def _rao(name: str, tokens: float) -> int:
    if not math.isfinite(tokens) or not 0 <= tokens <= STAKE_MAX:
        raise WriteRefused(f"{name} is a number of tokens from 0 to {STAKE_MAX}.")
    return round(tokens * RAO)


def _axon(text: str | None) -> tuple[str, int]:
    """`1.2.3.4:8000` or `[::1]:8000`."""
    if text is None:
        return "0.0.0.0", 0
    host, _, port = text.rpartition(":")
    try:
        ip = str(ip_address(host.removeprefix("[").removesuffix("]")))
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    except ValueError:
        number = -1
    if not 1 <= number <= 65535:
        raise WriteRefused(f"An axon is an address and a port, such as 1.2.3.4:8000, not {text[:64]!r}.")
    return ip, number
