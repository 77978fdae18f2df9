"""Ledgers for tests, and the yard in which a chain's port is put to the test."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import create_engine, select
from sqlalchemy.pool import StaticPool

from grid_node.chain.ledger import operating
from grid_node.chain.ledger.chain import LedgerChain
from grid_node.chain.ledger.incentives import unpack
from grid_node.chain.ledger.tables import OPEN, ChainWeightRow
from grid_node.chain.ports import ChainPort, Landed, Signer, WriteRefused
from grid_node.clock import ManualClock
from grid_node.database import Base, DirectStore, Store, set_pragmas
from grid_node.settings import Settings
from grid_node.ss58 import encode


def hotkey_of(name: str) -> str:
    """A made-up SS58 address."""
    return encode(hashlib.sha256(name.encode()).digest())


class NamedHotkeys:
    """Wallets of whoever asks: the hotkey is made up from the identity's name."""

    def hotkey(self, signer: Signer) -> str:
        if signer.wallet == "missing":
            raise WriteRefused(f"Hotkey of identity '{signer.identity}' cannot be read")
        return hotkey_of(signer.identity)


class Yard(Protocol):
    """A chain with its port, and the means to make it what a test needs.

    What a method did is in the port's next head. Stakes are whole tokens.
    """

    port: ChainPort
    has_commit_reveal: bool

    def signer(self, netuid: int, name: str = "alice") -> Signer:
        """`missing`: one whose wallet cannot be read."""

    def hotkey(self, name: str = "alice") -> str:
        """SS58 of the signer of this name."""

    def add_subnet(self, netuid: int, *, tempo: int = 360, commit_reveal: bool = False) -> None: ...

    def add_neuron(
        self,
        netuid: int,
        hotkey: str,
        *,
        coldkey: str | None = None,
        stake_alpha: float = 0.0,
        stake_tao: float = 0.0,
        validator_permit: bool = False,
        axon: tuple[str, int] | None = None,
    ) -> int:
        """Returns its uid: the lowest that is free."""

    def remove_last_neuron(self, netuid: int, hotkey: str) -> None:
        """The one with the highest uid."""

    def advance(self, count: int) -> None:
        """At least so many blocks more."""

    def weights(self, netuid: int, hotkey: str) -> dict[int, int] | None:
        """By uid, as the chain keeps them."""


@dataclass
class LedgerYard:
    """The ledger on a store of its own, at a clock that stands still."""

    store: Store
    clock: ManualClock = field(default_factory=ManualClock)
    settings: Settings = field(default_factory=Settings)
    has_commit_reveal = False

    def __post_init__(self) -> None:
        self.port = self.another_port()
        self.port.head()  # the ledger begins now

    def another_port(self) -> LedgerChain:
        """As another thread or another process has it."""
        return LedgerChain(self.store, self.clock, self.settings, NamedHotkeys())

    def signer(self, netuid: int, name: str = "alice") -> Signer:
        return Signer(name, netuid, "missing" if name == "missing" else "wallet", "hot")

    def hotkey(self, name: str = "alice") -> str:
        return hotkey_of(name)

    def add_subnet(self, netuid: int, *, tempo: int = 360, commit_reveal: bool = False) -> None:
        assert not commit_reveal
        operating.create_subnet(self.store, self.clock, self.settings, netuid, tempo=tempo)

    def add_neuron(self, netuid: int, hotkey: str, *, axon: tuple[str, int] | None = None, **fields: Any) -> int:
        text = None if axon is None else f"[{axon[0]}]:{axon[1]}"
        return operating.register_neuron(self.store, self.clock, self.settings, netuid, hotkey, axon=text, **fields).uid

    def remove_last_neuron(self, netuid: int, hotkey: str) -> None:
        operating.deregister_neuron(self.store, self.clock, self.settings, netuid, hotkey)

    def advance(self, count: int) -> None:
        self.clock.advance(count * self.settings.chain_local_block_seconds)

    def weights(self, netuid: int, hotkey: str) -> dict[int, int] | None:
        neurons = self.port.neurons(netuid, self.port.head())
        uid = next((neuron.uid for neuron in neurons if neuron.hotkey == hotkey), -1)
        query = select(ChainWeightRow.row).where(
            ChainWeightRow.netuid == netuid, ChainWeightRow.uid == uid, ChainWeightRow.valid_to == OPEN
        )
        row = self.store.read(lambda tx: tx.execute(query).scalar())
        return None if row is None else dict(unpack(row))


def put_commitment(yard: LedgerYard, data: bytes, name: str = "alice", port: LedgerChain | None = None) -> Landed:
    port = port or yard.port
    return port.submit(port.prepare_commitment(yard.signer(1, name), data), 5.0)


def set_weights(yard: LedgerYard, weights: dict[int, int], name: str = "alice") -> Landed:
    at = yard.port.hyperparams(1, yard.port.head())
    prepared = yard.port.prepare_weights(yard.signer(1, name), list(weights), list(weights.values()), at)
    return yard.port.submit(prepared, 5.0)


def memory_store() -> Store:
    """A store of its own with every table, for the test that needs a second one."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    set_pragmas(engine)
    Base.metadata.create_all(engine)
    return DirectStore(engine)
