"""The chain as the node sees it: values, errors and the port that the ledger and the subtensor fill.

Whole tokens are rao / 1e9; proportions are u16 / 65535. Hotkeys and coldkeys are SS58 with prefix 42. Everything here
is plain and synchronous: the process of the chain calls it from threads of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

NETUID_MAX = 65535
BLOCK_MAX = 2**32 - 1
UIDS_MAX = 256
"""Neurons that one subnet has at most."""
U16 = 65535
NEURONS, VALIDATORS, COMMITMENTS, CERTIFICATES = KINDS = ("neurons", "validators", "commitments", "certificates")
"""What is read of a whole subnet."""
RAO = 1_000_000_000
"""Smallest unit of a token."""


@dataclass(frozen=True, slots=True)
class Block:
    """`hash` is `0x` and 64 lower hex digits; `timestamp` is in whole seconds since 1970-01-01 UTC."""

    number: int
    hash: str
    timestamp: int

    def ref(self) -> dict[str, Any]:
        """As Pylon puts it into an answer about a subnet."""
        return {"number": self.number, "hash": self.hash}

    def body(self) -> dict[str, Any]:
        return {"number": self.number, "hash": self.hash, "timestamp": self.timestamp}


@dataclass(frozen=True, slots=True)
class Neuron:
    """One neuron of a subnet at one block."""

    uid: int
    coldkey: str
    hotkey: str
    active: bool
    ip: str
    """`0.0.0.0`: it serves nothing."""
    port: int
    protocol: int
    stake: float
    rank: float
    emission: float
    incentive: float
    consensus: float
    trust: float
    validator_trust: float
    dividends: float
    last_update: int
    validator_permit: bool
    pruning_score: int
    stake_alpha: float
    stake_tao: float
    stake_total: float

    def body(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "coldkey": self.coldkey,
            "hotkey": self.hotkey,
            "active": self.active,
            "axon_info": {"ip": self.ip, "port": self.port, "protocol": self.protocol},
            "stake": self.stake,
            "rank": self.rank,
            "emission": self.emission,
            "incentive": self.incentive,
            "consensus": self.consensus,
            "trust": self.trust,
            "validator_trust": self.validator_trust,
            "dividends": self.dividends,
            "last_update": self.last_update,
            "validator_permit": self.validator_permit,
            "pruning_score": self.pruning_score,
            "stakes": {"alpha": self.stake_alpha, "tao": self.stake_tao, "total": self.stake_total},
        }


@dataclass(frozen=True, slots=True)
class Hyperparams:
    """What decides how weights are set."""

    tempo: int
    """Blocks of an epoch, less one."""
    commit_reveal: bool
    commit_reveal_version: int
    reveal_period: int
    """Epochs after which committed weights are revealed."""
    weights_version: int


@dataclass(frozen=True, slots=True)
class Commitment:
    hotkey: str
    data: bytes
    block_number: int
    """The block that it was set in."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`public_key` is 32 bytes, of an Ed25519 pair where `algorithm` is 1."""

    algorithm: int
    public_key: bytes

    def body(self) -> dict[str, Any]:
        return {"algorithm": self.algorithm, "public_key": self.public_key.hex()}


@dataclass(frozen=True, slots=True)
class Signer:
    """Who writes: an identity, by the names of its wallet. The keys themselves stay with the chain's process."""

    identity: str
    netuid: int
    wallet: str
    hotkey: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A signed extrinsic that was not sent yet. What it takes to recognise it later is to be stored before `submit`."""

    extrinsic_hash: str
    nonce: int
    era_start: int
    """The block that its mortality counts from."""
    era_end: int
    """The first block that can no longer include it."""
    reveal_round: int | None
    payload: Any
    """The adapter's own; it does not outlive the process."""


@dataclass(frozen=True, slots=True)
class Landed:
    """Where an extrinsic was included."""

    block: Block
    extrinsic_hash: str
    error: str | None = None
    """Why it was dispatched in vain; None: it did what it says."""


class ChainProblem(Exception):
    """The root of what a ChainPort raises. The text is told to clients: no secret and no address of ours in it."""


class SubnetUnknown(ChainProblem):
    """There is no such subnet at that block."""


class BlockUnknown(ChainProblem):
    """There is no such block, or nobody keeps its state."""


class StateDiscarded(BlockUnknown):
    """The block is there, and this node has thrown its state away: an archive may have it."""


class NodeUnreachable(ChainProblem):
    """No answer, no connection, or an answer that is none: garbage, half a frame, another chain's."""


class WriteRefused(ChainProblem):
    """The chain understood and said no: another try with the same content may fare better, but not by itself."""


class WriteUncertain(ChainProblem):
    """Sent, and no word of what became of it: it may have landed."""


class ChainPort(Protocol):
    """One chain. A call may take long and never waits without an end. Every call may raise NodeUnreachable.

    Blocks are named by the Block values that `head` and `block` gave. Reads of one block never change.
    """

    def genesis(self) -> str:
        """Hash of block 0: the name of the chain."""

    def head(self) -> Block:
        """The newest block."""

    def finalized(self) -> int:
        """Number of the newest block that can no longer be undone."""

    def block(self, number: int) -> Block:
        """Raises BlockUnknown."""

    def state(self, netuid: int, block: Block) -> str:
        """A word for the metagraph of the subnet at this block: equal words, equal neurons. Raises nothing else."""

    def neurons(self, netuid: int, block: Block) -> list[Neuron]:
        """In the order of their uids. Raises SubnetUnknown, BlockUnknown."""

    def hyperparams(self, netuid: int, block: Block) -> Hyperparams:
        """Raises SubnetUnknown, BlockUnknown."""

    def commitments(self, netuid: int, block: Block) -> list[Commitment]:
        """Raises SubnetUnknown, BlockUnknown."""

    def commitment(self, netuid: int, hotkey: str, block: Block) -> Commitment | None:
        """Raises SubnetUnknown, BlockUnknown."""

    def certificates(self, netuid: int, block: Block) -> dict[str, Certificate]:
        """By hotkey. Raises SubnetUnknown, BlockUnknown."""

    def certificate(self, netuid: int, hotkey: str, block: Block) -> Certificate | None:
        """Raises SubnetUnknown, BlockUnknown."""

    def extrinsic(self, block: Block, index: int) -> dict[str, Any] | None:
        """As in Pylon's answer (`block_number`, `extrinsic_index`, `extrinsic_hash`, `extrinsic_length`, `address`,
        `call`); None: the block has fewer. Raises BlockUnknown."""

    def hotkey(self, signer: Signer) -> str:
        """SS58 of the signer's hotkey. Raises WriteRefused when its wallet cannot be read."""

    def prepare_weights(self, signer: Signer, uids: Sequence[int], values: Sequence[int], at: Hyperparams) -> Prepared:
        """Sign a `set_weights`, or where the subnet says so a `commit_timelocked_weights`. `values` are u16.
        Raises WriteRefused."""

    def prepare_commitment(self, signer: Signer, data: bytes) -> Prepared:
        """Sign a `set_commitment` of 1 to 128 bytes. Raises WriteRefused."""

    def prepare_certificate(self, signer: Signer, certificate: Certificate) -> Prepared:
        """Sign a `serve_axon_tls` that keeps the neuron's axon. Raises WriteRefused."""

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        """Send, and wait until it is finalized. Raises WriteRefused (it is certain that it did not land) and
        WriteUncertain (after `timeout` seconds, or when the connection broke)."""

    def find(self, extrinsic_hash: str, first: int, last: int) -> Landed | None:
        """The extrinsic with this hash in the finalized blocks `first` to `last`, if it is there. Raises BlockUnknown
        when one of them can no longer be read."""

    def endpoints(self) -> list[Mapping[str, Any]]:
        """`[{"uri", "ok", "error"}]` of every connection; never asks the chain."""

    def close(self) -> None:
        """Let go of connections."""
