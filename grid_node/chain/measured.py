"""A chain whose operations are timed for the metrics, for a port that does not do so itself."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from grid_node.chain.ports import (
    Block,
    Certificate,
    ChainPort,
    Commitment,
    Hyperparams,
    Landed,
    Neuron,
    Prepared,
    Signer,
)
from grid_node.chain.samples import Samples


class Measured:
    """Fills ChainPort with another one, under the names that Pylon's metrics have for operations."""

    def __init__(self, port: ChainPort, uri: str, samples: Samples) -> None:
        self._port = port
        self._uri = uri
        self._samples = samples
        self._signed: dict[str, tuple[str, Signer]] = {}

    def head(self) -> Block:
        with self._timed("get_latest_block"):
            return self._port.head()

    def genesis(self) -> str:
        return self._port.genesis()

    def finalized(self) -> int:
        return self._port.finalized()

    def block(self, number: int) -> Block:
        with self._timed("get_block"):
            return self._port.block(number)

    def state(self, netuid: int, block: Block) -> str:
        return self._port.state(netuid, block)

    def neurons(self, netuid: int, block: Block) -> list[Neuron]:
        with self._timed("get_neurons", netuid):
            return self._port.neurons(netuid, block)

    def hyperparams(self, netuid: int, block: Block) -> Hyperparams:
        with self._timed("get_hyperparams", netuid):
            return self._port.hyperparams(netuid, block)

    def commitments(self, netuid: int, block: Block) -> list[Commitment]:
        with self._timed("get_commitments", netuid):
            return self._port.commitments(netuid, block)

    def commitment(self, netuid: int, hotkey: str, block: Block) -> Commitment | None:
        with self._timed("get_commitment", netuid):
            return self._port.commitment(netuid, hotkey, block)

    def certificates(self, netuid: int, block: Block) -> dict[str, Certificate]:
        with self._timed("get_certificates", netuid):
            return self._port.certificates(netuid, block)

    def certificate(self, netuid: int, hotkey: str, block: Block) -> Certificate | None:
        with self._timed("get_certificate", netuid):
            return self._port.certificate(netuid, hotkey, block)

    def extrinsic(self, block: Block, index: int) -> dict[str, Any] | None:
        with self._timed("get_extrinsic"):
            return self._port.extrinsic(block, index)

    def hotkey(self, signer: Signer) -> str:
        return self._port.hotkey(signer)

    def prepare_weights(self, signer: Signer, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Prepared:
        prepared = self._port.prepare_weights(signer, uids, values, at)
        return self._noted(prepared, "commit_weights" if at.commit_reveal else "set_weights", signer)

    def prepare_commitment(self, signer: Signer, data: bytes) -> Prepared:
        return self._noted(self._port.prepare_commitment(signer, data), "set_commitment", signer)

    def prepare_certificate(self, signer: Signer, certificate: Certificate) -> Prepared:
        prepared = self._port.prepare_certificate(signer, certificate)
        return self._noted(prepared, "generate_certificate_keypair", signer)

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        noted = self._signed.pop(prepared.extrinsic_hash, None)
        if noted is None:
            return self._port.submit(prepared, timeout)
        operation, signer = noted
        with self._samples.operation(operation, self._uri, signer.netuid, self._port.hotkey(signer)):
            return self._port.submit(prepared, timeout)

    def find(self, extrinsic_hash: str, first: int, last: int) -> Landed | None:
        return self._port.find(extrinsic_hash, first, last)

    def endpoints(self) -> list[Mapping[str, Any]]:
        return self._port.endpoints()

    def close(self) -> None:
        self._port.close()

    def _timed(self, operation: str, netuid: int | None = None) -> AbstractContextManager[None]:
        return self._samples.operation(operation, self._uri, netuid)

    def _noted(self, prepared: Prepared, operation: str, signer: Signer) -> Prepared:
        """A signer sends one after the other: what was signed before is not sent any more."""
        self._signed = {key: noted for key, noted in self._signed.items() if noted[1] != signer}
        self._signed[prepared.extrinsic_hash] = operation, signer
        return prepared
