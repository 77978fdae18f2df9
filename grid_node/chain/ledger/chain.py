"""The ledger behind the chain's port."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from grid_node.chain.ledger import blocks, calls, neurons, records
from grid_node.chain.ledger.blocks import Extrinsic, NewBlock, canonical_json, hash_of
from grid_node.chain.ledger.metagraph import Metagraphs, Subnet, state_at, subnet_at
from grid_node.chain.ports import (
    Block,
    BlockUnknown,
    Certificate,
    ChainPort,
    Commitment,
    Hyperparams,
    Landed,
    Neuron,
    NodeUnreachable,
    Prepared,
    Signer,
    SubnetUnknown,
    WriteRefused,
    WriteUncertain,
)
from grid_node.clock import Clock
from grid_node.database import Store, Transaction, Unit
from grid_node.errors import StoreFull, StoreUnavailable
from grid_node.settings import Settings

T = TypeVar("T")

URI = "ledger"
"""What the ledger is called where a chain node has an address."""
ERA_BLOCKS = 8
"""Blocks in which a prepared extrinsic may be taken up."""
COMMIT_REVEAL_VERSION = 4
UNAVAILABLE = "The ledger's database is not available."

log = logging.getLogger(__name__)


class Hotkeys(Protocol):
    """Who tells the hotkeys of signers."""

    def hotkey(self, signer: Signer) -> str:
        """SS58. Raises WriteRefused."""


class LedgerChain(ChainPort):
    """Subnets in the node's own database. For one thread; several of these, in several processes, make one chain.

    A write is a block of its own, and is there for everybody when `submit` returns. All blocks are final and every one
    can be read, for ever. Raises NodeUnreachable when the database is away.
    """

    def __init__(self, store: Store, clock: Clock, settings: Settings, wallets: Hotkeys | None) -> None:
        self._store = store
        self._clock = clock
        self._pace = settings.chain_local_block_seconds
        self._wallets = wallets
        self._metagraphs = Metagraphs()
        self._problem: str | None = None
        self._founded = False

    # --- reads ----------------------------------------------------------------------------------------------------

    def head(self) -> Block:
        """Claims the newest block; while the database takes no writes the last claimed one stays the head."""
        now = self._clock.now()
        due, head = self._read(lambda tx: (blocks.is_due(tx, now), blocks.block_at(tx, blocks.meta(tx).reached)))
        if not due:
            return head
        try:
            return self._store.write(partial(blocks.claim, now=now))
        except (StoreUnavailable, StoreFull):
            log.warning("the ledger stays at block %d: its database takes no writes", head.number)
            return head

    def genesis(self) -> str:
        return self._read(blocks.meta).genesis

    def finalized(self) -> int:
        return self.head().number

    def block(self, number: int) -> Block:
        try:
            return self._read(partial(blocks.block_at, number=number))
        except BlockUnknown:
            self.head()
        return self._read(partial(blocks.block_at, number=number))

    def state(self, netuid: int, block: Block) -> str:
        def unit(tx: Transaction) -> str:
            try:
                return state_at(tx, subnet_at(tx, netuid, block.number), block.number)
            except SubnetUnknown:
                return "none"

        return self._read(unit)

    def neurons(self, netuid: int, block: Block) -> list[Neuron]:
        return self._at(netuid, block, lambda tx, subnet: self._metagraphs.neurons(tx, subnet, block.number))

    def hyperparams(self, netuid: int, block: Block) -> Hyperparams:
        subnet = self._at(netuid, block, lambda _tx, subnet: subnet)
        return Hyperparams(
            tempo=subnet.tempo,
            commit_reveal=False,
            commit_reveal_version=COMMIT_REVEAL_VERSION,
            reveal_period=1,
            weights_version=0,
        )

    def commitments(self, netuid: int, block: Block) -> list[Commitment]:
        return self._at(netuid, block, lambda tx, _: records.commitments(tx, netuid, block.number))

    def commitment(self, netuid: int, hotkey: str, block: Block) -> Commitment | None:
        return self._at(netuid, block, lambda tx, _: records.commitment(tx, netuid, hotkey, block.number))

    def certificates(self, netuid: int, block: Block) -> dict[str, Certificate]:
        return self._at(netuid, block, lambda tx, _: records.certificates(tx, netuid, block.number))

    def certificate(self, netuid: int, hotkey: str, block: Block) -> Certificate | None:
        return self._at(netuid, block, lambda tx, _: records.certificate(tx, netuid, hotkey, block.number))

    def extrinsic(self, block: Block, index: int) -> dict[str, Any] | None:
        return self._read(lambda tx: records.extrinsic(tx, blocks.block_at(tx, block.number), index))

    def find(self, extrinsic_hash: str, first: int, last: int) -> Landed | None:
        landed = self._read(lambda tx: records.landed(tx, extrinsic_hash))
        return landed if landed is not None and first <= landed.block.number <= last else None

    # --- writes ---------------------------------------------------------------------------------------------------

    def hotkey(self, signer: Signer) -> str:
        if self._wallets is None:
            raise WriteRefused(f"There is no wallet for identity '{signer.identity}'.")
        return self._wallets.hotkey(signer)

    def prepare_weights(self, signer: Signer, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Prepared:
        calls.check_weights(uids, values)
        return self._prepare(signer, calls.SetWeights(signer.netuid, tuple(uids), tuple(values), at.weights_version))

    def prepare_commitment(self, signer: Signer, data: bytes) -> Prepared:
        calls.check_commitment(data)
        return self._prepare(signer, calls.SetCommitment(signer.netuid, bytes(data)))

    def prepare_certificate(self, signer: Signer, certificate: Certificate) -> Prepared:
        calls.check_certificate(certificate)
        row = self._read(partial(neurons.registered, netuid=signer.netuid, hotkey=self.hotkey(signer)))
        return self._prepare(signer, calls.ServeAxonTls(signer.netuid, certificate, row.ip, row.port, row.protocol))

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        """What was submitted before is told where it landed then."""
        try:
            return self._store.write(partial(self._include, prepared=prepared))
        except StoreFull as error:
            raise WriteRefused(UNAVAILABLE) from error
        except StoreUnavailable as error:
            raise WriteUncertain(UNAVAILABLE) from error

    def endpoints(self) -> list[Mapping[str, Any]]:
        return [{"uri": URI, "ok": self._problem is None, "error": self._problem}]

    def close(self) -> None:
        """The store is its owner's to close."""

    # --- how ------------------------------------------------------------------------------------------------------

    def _prepare(self, signer: Signer, call: calls.Call) -> Prepared:
        hotkey = self.hotkey(signer)
        head = self.head()
        nonce = self._read(partial(blocks.next_nonce, address=hotkey))
        genesis = self._read(blocks.meta).genesis
        content = [genesis, hotkey, nonce, head.number, call.module, call.function, call.args()]
        return Prepared(
            extrinsic_hash=hash_of(canonical_json(content)),
            nonce=nonce,
            era_start=head.number,
            era_end=head.number + ERA_BLOCKS,
            reveal_round=None,
            payload=(hotkey, call),
        )

    def _include(self, tx: Transaction, prepared: Prepared) -> Landed:
        block = NewBlock(tx, self._clock.now(), self._pace)
        landed = records.landed(tx, prepared.extrinsic_hash)
        if landed is not None:
            return landed
        hotkey, call = prepared.payload
        _check_place(block, hotkey, prepared)
        call.apply(block, hotkey)
        block.add(
            Extrinsic(hotkey, prepared.nonce, call.module, call.function, call.args(), hash=prepared.extrinsic_hash)
        )
        return Landed(block.seal(), prepared.extrinsic_hash)

    def _at(self, netuid: int, block: Block, read: Callable[[Transaction, Subnet], T]) -> T:
        """Read one subnet at one block. Raises BlockUnknown, SubnetUnknown."""

        def unit(tx: Transaction) -> T:
            blocks.require_block(tx, block.number)
            return read(tx, subnet_at(tx, netuid, block.number))

        return self._read(unit)

    def _read(self, unit: Unit[T]) -> T:
        try:
            if not self._founded:
                self._store.write(
                    partial(blocks.found, now=self._clock.now(), seed=self._clock.new_id(), pace=self._pace)
                )
                self._founded = True
            answer = self._store.read(unit)
        except (StoreUnavailable, StoreFull) as error:
            self._problem = UNAVAILABLE
            raise NodeUnreachable(UNAVAILABLE) from error
        self._problem = None
        return answer


def _check_place(block: NewBlock, hotkey: str, prepared: Prepared) -> None:
    """Raises WriteRefused, in the words of a Substrate node's transaction pool."""
    if block.number >= prepared.era_end:
        raise WriteRefused("Invalid Transaction: its era is over.")
    if block.next_nonce(hotkey) != prepared.nonce:
        raise WriteRefused("Invalid Transaction: its nonce has been used.")
