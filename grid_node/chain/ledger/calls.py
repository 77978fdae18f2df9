"""What a signer may write: checked and done inside the block that takes it up.

Names and types of the arguments are subtensor's, and so are the names of the errors that a refusal begins with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, ClassVar, Protocol

from grid_node.chain.ledger.blocks import NewBlock
from grid_node.chain.ledger.history import put
from grid_node.chain.ledger.incentives import pack
from grid_node.chain.ledger.neurons import change, registered, require_subnet, uids
from grid_node.chain.ledger.tables import ChainCertificate, ChainCommitment, ChainWeightRow
from grid_node.chain.ports import U16, Certificate, WriteRefused

COMMITMENT_MAX = 128
"""Bytes of a commitment."""
PUBLIC_KEY_BYTES = 32


class Call(Protocol):
    """A signed call."""

    module: ClassVar[str]
    function: ClassVar[str]

    def args(self) -> list[dict[str, Any]]:
        """Pylon's `call_args`."""

    def apply(self, block: NewBlock, hotkey: str) -> None:
        """Do it. Raises WriteRefused, and then nothing of the block is kept."""


def _arg(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "value": value}


@dataclass(frozen=True)
class SetWeights:
    module: ClassVar[str] = "SubtensorModule"
    function: ClassVar[str] = "set_weights"

    netuid: int
    uids: tuple[int, ...]
    values: tuple[int, ...]
    version: int

    def args(self) -> list[dict[str, Any]]:
        return [
            _arg("netuid", "NetUid", self.netuid),
            _arg("dests", "Vec<u16>", list(self.uids)),
            _arg("weights", "Vec<u16>", list(self.values)),
            _arg("version_key", "u64", self.version),
        ]

    def apply(self, block: NewBlock, hotkey: str) -> None:
        require_subnet(block.tx, self.netuid)
        neuron = registered(block.tx, self.netuid, hotkey)
        if not neuron.validator_permit and self.uids != (neuron.uid,):
            raise WriteRefused(f"NeuronNoValidatorPermit: {hotkey} may set no weights but for itself.")
        unknown = sorted(set(self.uids) - set(uids(block.tx, self.netuid)))
        if unknown:
            raise WriteRefused(f"UidVecContainInvalidOne: uid {unknown[0]} is not on subnet {self.netuid}.")
        key = {"netuid": self.netuid, "uid": neuron.uid}
        put(block.tx, ChainWeightRow, key, {"row": pack(self.uids, self.values)}, block.number)
        change(block, neuron, last_update=block.number)


def check_weights(uids: Sequence[int], values: Sequence[int]) -> None:
    """What can be said of weights without the subnet. Raises WriteRefused."""
    if len(uids) != len(values):
        raise WriteRefused("WeightVecNotEqualSize: each uid needs one weight.")
    if not uids:
        raise WriteRefused("WeightVecLengthIsLow: there are no weights.")
    if len(set(uids)) != len(uids):
        raise WriteRefused("DuplicateUids: a uid has two weights.")
    if not all(0 <= number <= U16 for number in (*uids, *values)):
        raise WriteRefused("MaxWeightExceeded: uids and weights are unsigned 16-bit numbers.")


@dataclass(frozen=True)
class SetCommitment:
    module: ClassVar[str] = "Commitments"
    function: ClassVar[str] = "set_commitment"

    netuid: int
    data: bytes

    def args(self) -> list[dict[str, Any]]:
        fields = [[{f"Raw{len(self.data)}": "0x" + self.data.hex()}]]
        return [
            _arg("netuid", "NetUid", self.netuid),
            _arg("info", "CommitmentInfo<T::MaxFields>", {"fields": fields}),
        ]

    def apply(self, block: NewBlock, hotkey: str) -> None:
        require_subnet(block.tx, self.netuid)
        registered(block.tx, self.netuid, hotkey)
        key = {"netuid": self.netuid, "hotkey": hotkey}
        put(block.tx, ChainCommitment, key, {"data": self.data}, block.number)


def check_commitment(data: bytes) -> None:
    """Raises WriteRefused."""
    if not 1 <= len(data) <= COMMITMENT_MAX:
        raise WriteRefused(f"A commitment has 1 to {COMMITMENT_MAX} bytes, not {len(data)}.")


@dataclass(frozen=True)
class ServeAxonTls:
    """Publishes a certificate; the axon that a subtensor wants told along with it is the neuron's own."""

    module: ClassVar[str] = "SubtensorModule"
    function: ClassVar[str] = "serve_axon_tls"

    netuid: int
    certificate: Certificate
    ip: str
    port: int
    protocol: int

    def args(self) -> list[dict[str, Any]]:
        ip = ip_address(self.ip)
        packed = bytes([self.certificate.algorithm]) + self.certificate.public_key
        return [
            _arg("netuid", "NetUid", self.netuid),
            _arg("version", "u32", 0),
            _arg("ip", "u128", int(ip)),
            _arg("port", "u16", self.port),
            _arg("ip_type", "u8", ip.version),
            _arg("protocol", "u8", self.protocol),
            _arg("placeholder1", "u8", 0),
            _arg("placeholder2", "u8", 0),
            _arg("certificate", "Vec<u8>", "0x" + packed.hex()),
        ]

    def apply(self, block: NewBlock, hotkey: str) -> None:
        require_subnet(block.tx, self.netuid)
        registered(block.tx, self.netuid, hotkey)
        values = {"algorithm": self.certificate.algorithm, "public_key": self.certificate.public_key}
        put(block.tx, ChainCertificate, {"netuid": self.netuid, "hotkey": hotkey}, values, block.number)


def check_certificate(certificate: Certificate) -> None:
    """Raises WriteRefused."""
    if len(certificate.public_key) != PUBLIC_KEY_BYTES or not 0 <= certificate.algorithm <= 255:
        raise WriteRefused(f"A certificate's public key has {PUBLIC_KEY_BYTES} bytes.")
