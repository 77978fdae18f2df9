"""The metagraph of a subnet at a block, read from the ledger's rows."""

from collections import OrderedDict
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select

from grid_node.chain.epochs import epoch_of
from grid_node.chain.ledger.history import valid
from grid_node.chain.ledger.incentives import Row, incentives, unpack
from grid_node.chain.ledger.tables import ChainMetagraphChange, ChainNeuron, ChainSubnet, ChainWeightRow
from grid_node.chain.ports import RAO, U16, Neuron, SubnetUnknown
from grid_node.database import Transaction
from grid_node.statements import prepared

PRUNING_SCORE = 65535
KEPT_EPOCHS = 64
"""Ends of epochs whose incentives are kept in memory."""

_SUBNET = prepared(
    select(ChainSubnet.netuid, ChainSubnet.tempo).where(
        ChainSubnet.netuid == bindparam("netuid"), ChainSubnet.created <= bindparam("block")
    )
)
_LAST_CHANGE = prepared(
    select(func.max(ChainMetagraphChange.block)).where(
        ChainMetagraphChange.netuid == bindparam("netuid"), ChainMetagraphChange.block <= bindparam("block")
    )
)
_NEURONS = prepared(
    select(
        ChainNeuron.uid,
        ChainNeuron.hotkey,
        ChainNeuron.coldkey,
        ChainNeuron.registered,
        ChainNeuron.validator_permit,
        ChainNeuron.alpha,
        ChainNeuron.tao,
        ChainNeuron.ip,
        ChainNeuron.port,
        ChainNeuron.protocol,
        ChainNeuron.last_update,
    )
    .where(valid(ChainNeuron))
    .order_by(ChainNeuron.uid)
)
_STAKED = prepared(
    select(
        ChainNeuron.uid,
        ChainNeuron.registered,
        ChainNeuron.validator_permit,
        (ChainNeuron.alpha + ChainNeuron.tao).label("stake"),
    ).where(valid(ChainNeuron))
)
_WEIGHTS = prepared(
    select(ChainWeightRow.uid, ChainWeightRow.valid_from, ChainWeightRow.row).where(valid(ChainWeightRow))
)


class Subnet(NamedTuple):
    netuid: int
    tempo: int


def subnet_at(tx: Transaction, netuid: int, block: int) -> Subnet:
    """Raises SubnetUnknown."""
    row = tx.execute(_SUBNET, {"netuid": netuid, "block": block}).one_or_none()
    if row is None:
        raise SubnetUnknown(f"Subnet {netuid} not found.")
    return Subnet(*row)


def last_change(tx: Transaction, netuid: int, block: int) -> int:
    """The newest block up to `block` that changed the metagraph; 0: none did."""
    found: int | None = tx.execute(_LAST_CHANGE, {"netuid": netuid, "block": block}).scalar()
    return found or 0


def state_at(tx: Transaction, subnet: Subnet, block: int) -> str:
    """A word for the metagraph at `block`: its last change, and whether an epoch has ended since.

    Later epochs see nothing new. The epoch that ended before the change is told by the change.
    """
    change = last_change(tx, subnet.netuid, block)
    ended = epoch_of(block, subnet.netuid, subnet.tempo).start > change
    return f"{change}+" if ended else str(change)


class Metagraphs:
    """Reads metagraphs, and remembers what the last epochs brought. For one thread."""

    def __init__(self) -> None:
        self._epochs: OrderedDict[tuple[int, int], dict[int, tuple[int, int]]] = OrderedDict()

    def neurons(self, tx: Transaction, subnet: Subnet, block: int) -> list[Neuron]:
        """In the order of their uids."""
        earned = self._earned(tx, subnet, epoch_of(block, subnet.netuid, subnet.tempo).start - 1)
        rows = tx.execute(_NEURONS, {"netuid": subnet.netuid, "block": block})
        return [_neuron(row, earned.get(row.uid)) for row in rows]

    def _earned(self, tx: Transaction, subnet: Subnet, block: int) -> dict[int, tuple[int, int]]:
        """By uid the block in which it was registered, and its incentive as u16: from what was so at `block`."""
        change = last_change(tx, subnet.netuid, block)
        if not change:
            return {}
        key = (subnet.netuid, change)
        if key not in self._epochs:
            self._epochs[key] = _earned_at(tx, subnet.netuid, change)
            if len(self._epochs) > KEPT_EPOCHS:
                self._epochs.popitem(last=False)
        self._epochs.move_to_end(key)
        return self._epochs[key]


def _earned_at(tx: Transaction, netuid: int, block: int) -> dict[int, tuple[int, int]]:
    at = {"netuid": netuid, "block": block}
    neurons = {row.uid: row for row in tx.execute(_STAKED, at)}
    registered = {uid: row.registered for uid, row in neurons.items()}
    validators = {uid: row.stake for uid, row in neurons.items() if row.validator_permit}
    rows = [
        Row(validators[row.uid], row.valid_from, unpack(row.row))
        for row in tx.execute(_WEIGHTS, at)
        if row.uid in validators
    ]
    return {uid: (registered[uid], value) for uid, value in incentives(rows, registered).items()}


def _neuron(row: Any, earned: tuple[int, int] | None) -> Neuron:
    """`earned` counts only for the hotkey that earned it: another one at the same uid begins with nothing."""
    incentive = earned[1] / U16 if earned is not None and earned[0] == row.registered else 0.0
    return Neuron(
        uid=row.uid,
        coldkey=row.coldkey,
        hotkey=row.hotkey,
        active=True,
        ip=row.ip,
        port=row.port,
        protocol=row.protocol,
        stake=row.alpha / RAO,
        rank=incentive,
        emission=0.0,
        incentive=incentive,
        consensus=0.0,
        trust=0.0,
        validator_trust=0.0,
        dividends=0.0,
        last_update=row.last_update,
        validator_permit=row.validator_permit,
        pruning_score=PRUNING_SCORE,
        stake_alpha=row.alpha / RAO,
        stake_tao=row.tao / RAO,
        stake_total=(row.alpha + row.tao) / RAO,
    )
