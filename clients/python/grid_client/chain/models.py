"""What a chain holds, as the service tells it. Keys that are not named here are left out."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from grid_client.chain.types import (
    AlphaStake,
    BlockHash,
    BlockNumber,
    Coldkey,
    CommitmentDataHex,
    Consensus,
    Dividends,
    Emission,
    ExtrinsicHash,
    ExtrinsicIndex,
    ExtrinsicLength,
    Hotkey,
    IdentityName,
    Incentive,
    NetUid,
    NeuronActive,
    NeuronUid,
    Port,
    PrivateKey,
    PruningScore,
    PublicKey,
    Rank,
    RevealRound,
    Stake,
    TaoStake,
    Timestamp,
    TotalStake,
    Trust,
    ValidatorPermit,
    ValidatorTrust,
)


class BittensorModel(BaseModel):
    """Base of all."""

    model_config = ConfigDict(allow_inf_nan=False)


class OpenIntEnum(IntEnum):
    """Takes numbers that have no name yet; they are called `UNKNOWN_<number>`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


class AxonProtocol(OpenIntEnum):
    TCP = 0
    UDP = 1
    HTTP = 4


class CertificateAlgorithm(OpenIntEnum):
    ED25519 = 1


class CommitReveal(StrEnum):
    """How a subnet hides weights until they count."""

    DISABLED = "disabled"
    V2 = "v2"
    V3 = "v3"
    V4 = "v4"


class Block(BittensorModel):
    """hash: `0x` and 64 hex digits."""

    number: BlockNumber
    hash: BlockHash


class BlockInfo(Block):
    """timestamp: whole seconds since 1970-01-01 UTC."""

    timestamp: Timestamp


class AxonInfo(BittensorModel):
    """Where a neuron serves."""

    ip: IPv4Address | IPv6Address
    port: Port
    protocol: AxonProtocol

    @property
    def is_serving(self) -> bool:
        return not self.ip.is_unspecified


class Stakes(BittensorModel):
    """Whole tokens."""

    alpha: AlphaStake
    tao: TaoStake
    total: TotalStake


class Neuron(BittensorModel):
    """Proportions (rank, incentive, ...) are 0 to 1, stake and emission whole tokens, last_update a block number."""

    uid: NeuronUid
    coldkey: Coldkey
    hotkey: Hotkey
    active: NeuronActive
    axon_info: AxonInfo
    stake: Stake
    rank: Rank
    emission: Emission
    incentive: Incentive
    consensus: Consensus
    trust: Trust
    validator_trust: ValidatorTrust
    dividends: Dividends
    last_update: Timestamp
    validator_permit: ValidatorPermit
    pruning_score: PruningScore
    stakes: Stakes


class SubnetNeurons(BittensorModel):
    """neurons: in the order of their uids."""

    block: Block
    neurons: dict[Hotkey, Neuron]


class SubnetValidators(BittensorModel):
    """validators: neurons with a validator permit, the largest total stake first."""

    block: Block
    validators: list[Neuron]


class Commitment(BittensorModel):
    """commitment_block_number: where it was made; None from services that do not tell."""

    block: Block
    hotkey: Hotkey
    commitment: CommitmentDataHex
    commitment_block_number: BlockNumber | None = None


class SubnetCommitments(BittensorModel):
    block: Block
    commitments: dict[Hotkey, CommitmentDataHex]


class NeuronCertificate(BittensorModel):
    """public_key: hex digits without `0x`."""

    algorithm: CertificateAlgorithm
    public_key: PublicKey


class NeuronCertificateKeypair(NeuronCertificate):
    """private_key: hex digits; told once and kept nowhere."""

    private_key: PrivateKey


class _Open(BittensorModel):
    model_config = ConfigDict(extra="allow")


class ExtrinsicCallArg(_Open):
    name: str
    type: str
    value: Any


class ExtrinsicCall(_Open):
    call_module: str
    call_function: str
    call_args: list[ExtrinsicCallArg]


class Extrinsic(_Open):
    """address: SS58 of who signed it; None where nobody did."""

    block_number: BlockNumber
    extrinsic_index: ExtrinsicIndex
    extrinsic_hash: ExtrinsicHash
    extrinsic_length: ExtrinsicLength
    address: str | None = None
    call: ExtrinsicCall


class Epoch(BittensorModel):
    """Blocks: the first, and the first of the next."""

    start: BlockNumber
    end: BlockNumber


OVER = frozenset({"completed", "superseded", "tempo_expired", "failed"})


class WeightsStatus(BittensorModel):
    """What became of an identity's newest weights.

    status: `scheduled`, `running`, `completed`, `superseded`, `tempo_expired` or `failed`; weights_submitted: they are
    on the chain; dropped: hotkeys that the subnet does not have; source: `client` or `auto`; times: Unix seconds.
    """

    job_id: str
    identity_name: IdentityName
    netuid: NetUid
    status: str
    weights_submitted: bool
    count: int
    dropped: list[Hotkey]
    source: str
    attempts: int
    max_attempts: int
    created_at: float
    updated_at: float
    next_attempt_at: float | None = None
    epoch: Epoch | None = None
    block_number: BlockNumber | None = None
    extrinsic_hash: ExtrinsicHash | None = None
    reveal_round: RevealRound | None = None
    last_error: str | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more will be tried."""
        return self.status in OVER
