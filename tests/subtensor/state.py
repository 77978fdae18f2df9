"""What the chain knows after one block. A change makes new values, so that old blocks stay readable."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

U16_MAX = 65535
SPEC_VERSION = 372
"""Of the runtime that a chain begins with."""


@dataclass(frozen=True)
class Neuron:
    """Proportions are u16, stake and emission are in rao, as on the chain. `ip` is 0 where nothing is served."""

    uid: int
    hotkey: bytes
    coldkey: bytes
    registered_at: int = 0
    active: bool = True
    axon_block: int = 0
    axon_version: int = 0
    ip: int = 0
    ip_type: int = 0
    port: int = 0
    protocol: int = 0
    rank: int = 0
    trust: int = 0
    consensus: int = 0
    incentive: int = 0
    validator_trust: int = 0
    dividends: int = 0
    emission: int = 0
    last_update: int = 0
    validator_permit: bool = False
    pruning_score: int = U16_MAX
    alpha_stake: int = 0
    tao_stake: int = 0
    total_stake: int = 0

    @property
    def serves(self) -> bool:
        return self.port != 0

    def axon(self) -> dict[str, int]:
        return {
            "block": self.axon_block,
            "version": self.axon_version,
            "ip": self.ip,
            "port": self.port,
            "ip_type": self.ip_type,
            "protocol": self.protocol,
            "placeholder1": 0,
            "placeholder2": 0,
        }


def neuron_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Neuron, where `ip` may be written as text."""
    if not isinstance(ip := fields.get("ip", 0), str):
        return dict(fields)
    address = ip_address(ip)
    return {**fields, "ip": int(address), "ip_type": address.version}


@dataclass(frozen=True)
class Weights:
    """A row of weights that landed: `values` maps uid to u16, `block` is where it was set."""

    block: int
    values: Mapping[int, int]
    version_key: int


@dataclass(frozen=True)
class Commit:
    """Weights that are still sealed."""

    block: int
    epoch: int
    hotkey: bytes
    data: bytes
    reveal_round: int


@dataclass(frozen=True)
class Registration:
    """One commitment; `fields` is a list of cases of the type Data, as `(name, [bytes])`."""

    block: int
    fields: list[Any]


@dataclass(frozen=True)
class Subnet:
    netuid: int
    tempo: int = 360
    commit_reveal: bool = False
    commit_reveal_version: int = 4
    reveal_period: int = 1
    weights_version: int = 0
    weights_rate_limit: int = 0
    serving_rate_limit: int = 0
    last_step_block: int = 0
    last_epoch_block: int = 0
    pending_epoch_at: int = 0
    epoch_index: int = 0
    neurons: tuple[Neuron, ...] = ()
    """By uid."""
    weights: Mapping[bytes, Weights] = field(default_factory=dict)
    commits: tuple[Commit, ...] = ()
    commitments: Mapping[bytes, Registration] = field(default_factory=dict)
    certificates: Mapping[bytes, tuple[int, bytes]] = field(default_factory=dict)
    """Algorithm and public key by hotkey."""

    def by_hotkey(self, hotkey: bytes) -> Neuron | None:
        return next((neuron for neuron in self.neurons if neuron.hotkey == hotkey), None)

    def with_neuron(self, neuron: Neuron) -> "Subnet":
        neurons = list(self.neurons)
        neurons[neuron.uid : neuron.uid + 1] = [neuron]
        return replace(self, neurons=tuple(neurons))

    def without(self, hotkey: bytes) -> "Subnet":
        """The neurons after it move down by one uid, as when the chain trims a subnet. Its records go with it."""
        left = [neuron for neuron in self.neurons if neuron.hotkey != hotkey]
        return replace(
            self,
            neurons=tuple(replace(neuron, uid=uid) for uid, neuron in enumerate(left)),
            weights=_less(self.weights, hotkey),
            certificates=_less(self.certificates, hotkey),
        )

    def is_epoch(self, number: int) -> bool:
        """Whether its epoch ends with this block."""
        return (number + self.netuid + 1) % (self.tempo + 1) == 0


@dataclass(frozen=True)
class State:
    """`now` is in milliseconds, as Timestamp keeps it."""

    number: int = 0
    now: int = 0
    spec_version: int = SPEC_VERSION
    nonces: Mapping[bytes, int] = field(default_factory=dict)
    subnets: Mapping[int, Subnet] = field(default_factory=dict)
    events: tuple[Any, ...] = ()
    """EventRecords of the block."""
    digest: tuple[Any, ...] = ()
    hashes: Mapping[int, bytes] = field(default_factory=dict)
    """Of all blocks; those from this one on are to be left out."""

    def with_subnet(self, subnet: Subnet) -> "State":
        return replace(self, subnets={**self.subnets, subnet.netuid: subnet})


def _less(table: Mapping[bytes, Any], key: bytes) -> dict[bytes, Any]:
    return {one: value for one, value in table.items() if one != key}
