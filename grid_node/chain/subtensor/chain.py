"""The chain's port, filled by a subtensor node."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from bittensor_wallet import Keypair

from grid_node.chain.networks import bare_url
from grid_node.chain.ports import (
    BLOCK_MAX,
    NETUID_MAX,
    U16,
    Block,
    BlockUnknown,
    Certificate,
    ChainProblem,
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
from grid_node.chain.samples import Samples
from grid_node.chain.subtensor import calls, decoding, reading, writing
from grid_node.chain.subtensor.calls import Call
from grid_node.chain.subtensor.connection import RpcError
from grid_node.chain.subtensor.epochs import sealed_weights
from grid_node.chain.subtensor.node import Node, is_hash, keep
from grid_node.chain.subtensor.reading import PALLET
from grid_node.chain.wallets import Wallets
from grid_node.settings import Settings

T = TypeVar("T")

PANIC = "PanicException"
"""What libraries in Rust raise when they give up: no Exception, and no class that could be imported."""
DATA_MAX = 128
"""Bytes of a commitment."""


class SubtensorChain:
    """A ChainPort over one connection. For one thread: the one that calls it.

    Nothing is asked before the first call. Every call ends after `chain_call_timeout_seconds`, `submit` after the
    seconds that it is given. What goes wrong closes the connection, and the next call opens another one. It may lead
    to another node of the same chain, which knows less: what was told before is not unsaid by that.

    `archive` is asked by `find` for blocks whose state the node threw away. It belongs to the same thread.
    """

    def __init__(
        self,
        uri: str,
        settings: Settings,
        wallets: Wallets | None,
        samples: Samples,
        archive: "SubtensorChain | None" = None,
    ) -> None:
        self._shown, self._wallets, self._samples = bare_url(uri), wallets, samples
        self._archive = archive
        self.timeout = settings.chain_call_timeout_seconds
        """Seconds of one call."""
        self._node = Node(uri)
        self._final = self._told_final = -1
        self._final_hashes: dict[str, str] = {}
        self._blocks: dict[str, Block] = {}
        self._sent: dict[str, bool] = {}
        self._error: str | None = None
        self._asked = False

    # --- blocks -------------------------------------------------------------------------------------------------

    def head(self) -> Block:
        with self._asking("get_latest_block"):
            return self._newest()

    def genesis(self) -> str:
        with self._asking():
            return self._node.genesis()

    def finalized(self) -> int:
        with self._asking():
            return self._finality()

    def block(self, number: int) -> Block:
        if not 0 <= number <= BLOCK_MAX:
            raise BlockUnknown(f"Block {number} not found.")
        with self._asking("get_block"):
            return self._block(number)

    def state(self, netuid: int, block: Block) -> str:
        return block.hash

    # --- reads --------------------------------------------------------------------------------------------------

    def neurons(self, netuid: int, block: Block) -> list[Neuron]:
        with self._asking("get_neurons", netuid, block):
            with self._measured("get_neurons_list", netuid):
                lite = reading.neurons_lite(self._node, netuid, block)
            with self._measured("get_subnet_state", netuid):
                state = reading.subnet_state(self._node, netuid, block)
            return decoding.neurons(lite, state)

    def hyperparams(self, netuid: int, block: Block) -> Hyperparams:
        with self._asking("get_hyperparams", netuid, block):
            return reading.hyperparams(self._node, netuid, block)

    def commitments(self, netuid: int, block: Block) -> list[Commitment]:
        with self._asking("get_commitments", netuid, block):
            return reading.commitments(self._node, netuid, block)

    def commitment(self, netuid: int, hotkey: str, block: Block) -> Commitment | None:
        with self._asking("get_commitment", netuid, block):
            return reading.commitment(self._node, netuid, hotkey, block)

    def certificates(self, netuid: int, block: Block) -> dict[str, Certificate]:
        with self._asking("get_certificates", netuid, block):
            return reading.certificates(self._node, netuid, block)

    def certificate(self, netuid: int, hotkey: str, block: Block) -> Certificate | None:
        with self._asking("get_certificate", netuid, block):
            return reading.certificate(self._node, netuid, hotkey, block)

    def extrinsic(self, block: Block, index: int) -> dict[str, Any] | None:
        with self._asking("get_extrinsic", block=block):
            return reading.extrinsic(self._node, block, index)

    # --- writes -------------------------------------------------------------------------------------------------

    def hotkey(self, signer: Signer) -> str:
        return self._keyring().hotkey(signer)

    def prepare_weights(self, signer: Signer, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Prepared:
        if not all(0 <= number <= U16 for number in (*uids, *values)):
            raise WriteRefused("A uid or a weight is no number of 16 bits.")

        def call(keypair: Keypair, head: Block) -> Call:
            if not at.commit_reveal:
                return calls.set_weights(signer.netuid, uids, values, at)
            sealed = sealed_weights(self._node, signer.netuid, uids, values, at, head, calls.public_key(keypair))
            return calls.commit_weights(signer.netuid, *sealed, at)

        return self._prepare(signer, call)

    def prepare_commitment(self, signer: Signer, data: bytes) -> Prepared:
        if not 1 <= len(data) <= DATA_MAX:
            raise WriteRefused(f"A commitment has 1 to {DATA_MAX} bytes, not {len(data)}.")
        return self._prepare(signer, lambda keypair, head: calls.set_commitment(signer.netuid, data))

    def prepare_certificate(self, signer: Signer, certificate: Certificate) -> Prepared:
        def call(keypair: Keypair, head: Block) -> Call:
            if self._node.raw(PALLET, "Uids", [signer.netuid, keypair.ss58_address], head.hash) is None:
                raise WriteRefused(
                    f"Hotkey of identity '{signer.identity}' is not registered on subnet {signer.netuid}"
                )
            axon = self._node.value(PALLET, "Axons", [signer.netuid, keypair.ss58_address], head.hash)
            return calls.serve_axon_tls(signer.netuid, axon, certificate)

        return self._prepare(signer, call)

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        """Sent twice, it lands once: the second time it is looked for first."""
        again = prepared.extrinsic_hash in self._sent
        if again and (found := self.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end)):
            return found
        operation, netuid, hotkey, _ = prepared.payload
        with self._samples.operation(operation, self._shown, netuid, hotkey):
            try:
                with self._told(), self._node.within(timeout):
                    block_hash = writing.send(self._node, prepared)
            except WriteRefused as error:
                raise WriteUncertain(f"{error} It was sent before.") if again else error from None
            except WriteUncertain:
                keep(self._sent, prepared.extrinsic_hash, True)
                raise
            keep(self._sent, prepared.extrinsic_hash, True)
            return self._outcome(block_hash, prepared.extrinsic_hash)

    def find(self, extrinsic_hash: str, first: int, last: int) -> Landed | None:
        told = min(last, self._told_final)
        try:
            return self._search(extrinsic_hash, first, last, told)
        except BlockUnknown:
            if self._archive is None:
                raise
        return self._archive._search(extrinsic_hash, first, last, told)

    def _search(self, extrinsic_hash: str, first: int, last: int, told: int) -> Landed | None:
        """`told`: whoever asks takes the blocks up to this one for searched when nothing is found. Raises
        NodeUnreachable when they are not final for this node."""
        with self._asking("get_block"):
            final = self._finality()
            for number in range(max(first, 0), min(last, final) + 1):
                if found := writing.landed(self._node, self._block(number), extrinsic_hash):
                    return found
            if final < told:
                raise NodeUnreachable("it is behind what was final before")
        return None

    # --- the connection -----------------------------------------------------------------------------------------

    def endpoints(self) -> list[Mapping[str, Any]]:
        own = {"uri": self._shown, "ok": self._asked and self._error is None, "error": self._error}
        return [own, *(self._archive.endpoints() if self._archive is not None else ())]

    def close(self) -> None:
        self._node.close()
        if self._archive is not None:
            self._archive.close()

    # --- how calls are made -------------------------------------------------------------------------------------

    @contextmanager
    def _asking(
        self, operation: str | None = None, netuid: int | None = None, block: Block | None = None
    ) -> Iterator[None]:
        """Measure, bound and name the errors of what is asked inside, by the runtime of `block`."""
        if netuid is not None and not 0 <= netuid <= NETUID_MAX:
            raise SubnetUnknown(f"Subnet {netuid} not found.")
        with ExitStack() as around:
            if operation is not None:
                around.enter_context(self._measured(operation, netuid))
            around.enter_context(self._told())
            around.enter_context(self._node.within(self.timeout))
            if block is not None:
                self._node.init_runtime(block.hash)
            yield

    def _measured(self, operation: str, netuid: int | None) -> AbstractContextManager[Any]:
        return self._samples.operation(operation, self._shown, netuid)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Any other exception than the port's own is the node's doing: the library has no root for what it raises
        about bytes that are not as the metadata say, or metadata that are not as they should be. Its parts in Rust
        panic, too."""
        try:
            yield
        except NodeUnreachable as error:
            self._lost(str(error))
            raise
        except ChainProblem as error:
            self._error = None if self._node.connection.is_open else str(error)
            raise
        except RpcError as error:
            raise self._lost(f"it refused {error.method} with error {error.code}") from error
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                raise
            self._forget()
            raise self._lost("it answered with garbage") from error
        self._asked, self._error = True, None

    def _lost(self, reason: str) -> NodeUnreachable:
        self._node.close()
        self._error = reason
        return NodeUnreachable(reason)

    def _forget(self) -> None:
        """What a node told of blocks, and is kept by their hashes, is no truer than what else it tells."""
        self._blocks.clear()
        self._final_hashes.clear()
        self._node.forget()

    def _newest(self) -> Block:
        return _of_newest(self._node.get_chain_head, self._at)

    def _finality(self) -> int:
        self._final = _of_newest(
            self._node.get_chain_finalised_head, lambda told: int(self._node.header(told)["number"])
        )
        self._told_final = max(self._told_final, self._final)
        return self._final

    def _block(self, number: int) -> Block:
        found = self._final_hashes.get(str(number)) or self._node.hash_of(number)
        if found is None:
            raise BlockUnknown(f"Block {number} not found.")
        block = self._at(found)
        if block.number != number:
            raise ValueError("another block")
        if number <= self._final:
            keep(self._final_hashes, str(number), found)
        return block

    def _at(self, block_hash: str) -> Block:
        known = self._blocks.get(block_hash)
        if known is None:
            number = int(self._node.header(block_hash)["number"])
            milliseconds = int(self._node.value("Timestamp", "Now", [], block_hash))
            known = Block(number, block_hash, milliseconds // 1000)
            keep(self._blocks, block_hash, known)
        return known

    def _outcome(self, block_hash: str, extrinsic_hash: str) -> Landed:
        """Raises WriteUncertain."""
        try:
            with self._told(), self._node.within(self.timeout):
                found = writing.landed(self._node, self._at(block_hash), extrinsic_hash)
        except ChainProblem as error:
            raise WriteUncertain(f"It landed, and how it fared could not be read: {error}") from None
        if found is None:
            raise WriteUncertain("The chain node named a block that the extrinsic is not in.")
        return found

    def _keyring(self) -> Wallets:
        if self._wallets is None:
            raise WriteRefused("There are no wallets.")
        return self._wallets

    def _prepare(self, signer: Signer, make: Callable[[Keypair, Block], Call]) -> Prepared:
        keypair = self._keyring().keypair(signer)
        with self._asking():
            head = self._newest()
            self._node.init_runtime(head.hash)
            return writing.prepare(self._node, keypair, signer.netuid, make(keypair, head), head, self._finality())


def _of_newest(name: Callable[[], Any], read: Callable[[str], T]) -> T:
    """A node that does not know the block that it has just named has lost it to a fork or to a restart, or is another
    one behind the same address. So it is asked once more."""
    for _ in range(2):
        told = name()
        if not is_hash(told):
            raise ValueError("no block hash")
        with suppress(BlockUnknown):
            return read(told)
    raise NodeUnreachable("it does not know its own newest block")
