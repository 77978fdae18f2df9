"""How neurons of the ledger come, change and go, inside a block that is being made."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select

from grid_node.chain.ledger.blocks import NewBlock
from grid_node.chain.ledger.history import end, put
from grid_node.chain.ledger.tables import OPEN, ChainCertificate, ChainNeuron, ChainSubnet, ChainWeightRow
from grid_node.chain.ports import UIDS_MAX, WriteRefused
from grid_node.database import Transaction
from grid_node.statements import prepared

_UIDS = prepared(
    select(ChainNeuron.uid)
    .where(ChainNeuron.netuid == bindparam("netuid"), ChainNeuron.valid_to == OPEN)
    .order_by(ChainNeuron.uid)
)
_PRESENT = prepared(
    select(*ChainNeuron.__table__.columns).where(
        ChainNeuron.netuid == bindparam("netuid"),
        ChainNeuron.hotkey == bindparam("hotkey"),
        ChainNeuron.valid_to == OPEN,
    )
)
_HAS_SUBNET = prepared(select(ChainSubnet.netuid).where(ChainSubnet.netuid == bindparam("netuid")))


@dataclass(frozen=True)
class NewNeuron:
    """A neuron that is to be registered. Stakes are rao; hotkey and coldkey SS58."""

    hotkey: str
    coldkey: str
    alpha: int = 0
    tao: int = 0
    validator_permit: bool = False
    ip: str = "0.0.0.0"
    port: int = 0
    protocol: int = 0


def has_subnet(tx: Transaction, netuid: int) -> bool:
    return tx.execute(_HAS_SUBNET, {"netuid": netuid}).one_or_none() is not None


def require_subnet(tx: Transaction, netuid: int) -> None:
    """Raises WriteRefused."""
    if not has_subnet(tx, netuid):
        raise WriteRefused(f"Subnet {netuid} not found.")


def uids(tx: Transaction, netuid: int) -> list[int]:
    """Those that are taken, in order."""
    return [row.uid for row in tx.execute(_UIDS, {"netuid": netuid})]


def present(tx: Transaction, netuid: int, hotkey: str) -> Any:
    """The neuron's row as it is now, or None."""
    return tx.execute(_PRESENT, {"netuid": netuid, "hotkey": hotkey}).one_or_none()


def registered(tx: Transaction, netuid: int, hotkey: str) -> Any:
    """The neuron's row as it is now. Raises WriteRefused, in subtensor's words."""
    row = present(tx, netuid, hotkey)
    if row is None:
        raise WriteRefused(f"HotKeyNotRegisteredInSubNet: {hotkey} is not registered on subnet {netuid}.")
    return row


def register(block: NewBlock, netuid: int, neurons: list[NewNeuron]) -> list[int]:
    """Give each the lowest free uid; returns them. Raises WriteRefused: no such subnet, no room, registered already."""
    require_subnet(block.tx, netuid)
    taken = set(uids(block.tx, netuid))
    free = [uid for uid in range(UIDS_MAX) if uid not in taken][: len(neurons)]
    if len(free) < len(neurons):
        raise WriteRefused(f"Subnet {netuid} is full: it has room for {UIDS_MAX} neurons.")
    for neuron in neurons:
        if present(block.tx, netuid, neuron.hotkey) is not None:
            raise WriteRefused(
                f"HotKeyAlreadyRegisteredInSubNet: {neuron.hotkey} is registered on subnet {netuid} already."
            )
    fixed = {"netuid": netuid, "valid_from": block.number, "valid_to": OPEN}
    born = {"registered": block.number, "last_update": block.number}
    rows = [{**asdict(neuron), "uid": uid, **fixed, **born} for uid, neuron in zip(free, neurons, strict=True)]
    if rows:
        block.tx.execute(insert(ChainNeuron), rows)
        block.touch(netuid)
    return free


def change(block: NewBlock, row: Any, **values: Any) -> None:
    """From this block on the neuron whose present row this is has other values."""
    kept = {column.name: getattr(row, column.name) for column in ChainNeuron.__table__.columns}
    key = {"netuid": kept.pop("netuid"), "uid": kept.pop("uid")}
    del kept["valid_from"], kept["valid_to"]
    put(block.tx, ChainNeuron, key, {**kept, **values}, block.number)
    block.touch(key["netuid"])


def deregister(block: NewBlock, netuid: int, hotkey: str) -> int:
    """Free its uid, which is returned; its weights and its certificate go too, its commitment stays.
    Raises WriteRefused."""
    require_subnet(block.tx, netuid)
    uid: int = registered(block.tx, netuid, hotkey).uid
    end(block.tx, ChainNeuron, {"netuid": netuid, "uid": uid}, block.number)
    end(block.tx, ChainWeightRow, {"netuid": netuid, "uid": uid}, block.number)
    end(block.tx, ChainCertificate, {"netuid": netuid, "hotkey": hotkey}, block.number)
    block.touch(netuid)
    return uid
