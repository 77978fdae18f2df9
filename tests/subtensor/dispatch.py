"""What the calls do to the state, with the refusals of the pallets."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.subtensor.extrinsics import Call, blake2_256
from tests.subtensor.state import U16_MAX, Commit, Neuron, Registration, State, Subnet, Weights

COMMITS_MAX = 10
"""Sealed weights that one hotkey may have waiting."""

U32_MAX, U128_MAX = 2**32 - 1, 2**128 - 1

Event = tuple[str, Any]
"""A case of a pallet's events, and its fields."""
Arguments = dict[str, Any]


class Failed(Exception):
    """The extrinsic is in its block and did nothing. `pallet` and `name` are those of the error."""

    def __init__(self, name: str, pallet: str = "SubtensorModule") -> None:
        super().__init__(name)
        self.name = name
        self.pallet = pallet


def dispatch(state: State, signer: bytes, call: Call) -> tuple[State, list[Event]]:
    """The state after the call, and its events. Raises Failed."""
    pallet, function, arguments = call
    if (run := _CALLS.get((pallet, function))) is None:
        return state, []
    subnet = state.subnets.get(arguments["netuid"])
    if subnet is None and pallet == "SubtensorModule":
        raise Failed("SubnetNotExists")
    neuron = subnet.by_hotkey(signer) if subnet else None
    if subnet is None or neuron is None:
        raise _stranger(pallet, function)
    changed, event = run(subnet, neuron, state.number, arguments)
    return state.with_subnet(changed), [(pallet, [event])]


def _stranger(pallet: str, function: str) -> Failed:
    if pallet == "Commitments":
        return Failed("AccountNotAllowedCommit", pallet)
    return Failed("HotKeyNotRegisteredInNetwork" if function == "serve_axon_tls" else "HotKeyNotRegisteredInSubNet")


def _updated(subnet: Subnet, neuron: Neuron, **changes: Any) -> Subnet:
    return subnet.with_neuron(replace(neuron, **changes))


def _not_too_fast(subnet: Subnet, neuron: Neuron, number: int, error: str) -> None:
    if neuron.last_update and number - neuron.last_update < subnet.weights_rate_limit:
        raise Failed(error)


def _set_weights(subnet: Subnet, neuron: Neuron, number: int, arguments: Arguments) -> tuple[Subnet, Event]:
    uids, values, version_key = arguments["dests"], arguments["weights"], arguments["version_key"]
    _check_weights(subnet, neuron, number, uids, values, version_key)
    top = max(values, default=0) or 1
    row = Weights(number, {u: upscaled(v, top) for u, v in zip(uids, values, strict=True)}, version_key)
    changed = _updated(subnet, neuron, last_update=number)
    changed = replace(changed, weights={**subnet.weights, neuron.hotkey: row})
    return changed, ("WeightsSet", [subnet.netuid, neuron.uid])


def upscaled(value: int, top: int) -> int:
    """As the chain keeps weights: the largest becomes 65535, the others in proportion, rounded."""
    return (2 * value * U16_MAX + top) // (2 * top)


def _check_weights(
    subnet: Subnet, neuron: Neuron, number: int, uids: list[int], values: list[int], version_key: int
) -> None:
    if subnet.commit_reveal:
        raise Failed("CommitRevealEnabled")
    if len(uids) != len(values):
        raise Failed("WeightVecNotEqualSize")
    if not neuron.validator_permit and uids != [neuron.uid]:
        raise Failed("NeuronNoValidatorPermit")
    if version_key < subnet.weights_version:
        raise Failed("IncorrectWeightVersionKey")
    _not_too_fast(subnet, neuron, number, "SettingWeightsTooFast")
    if len(uids) > len(subnet.neurons):
        raise Failed("UidsLengthExceedUidsInSubNet")
    if len(set(uids)) != len(uids):
        raise Failed("DuplicateUids")
    if any(uid >= len(subnet.neurons) for uid in uids):
        raise Failed("UidVecContainInvalidOne")


def _commit_weights(subnet: Subnet, neuron: Neuron, number: int, arguments: Arguments) -> tuple[Subnet, Event]:
    if not subnet.commit_reveal:
        raise Failed("CommitRevealDisabled")
    if arguments["commit_reveal_version"] != subnet.commit_reveal_version:
        raise Failed("IncorrectCommitRevealVersion")
    _not_too_fast(subnet, neuron, number, "CommittingWeightsTooFast")
    waiting = [one for one in subnet.commits if one.hotkey == neuron.hotkey and _sealed(subnet, one)]
    if len(waiting) >= COMMITS_MAX:
        raise Failed("TooManyUnrevealedCommits")
    one = Commit(number, subnet.epoch_index, neuron.hotkey, arguments["commit"], arguments["reveal_round"])
    changed = _updated(subnet, neuron, last_update=number)
    told = [neuron.hotkey, subnet.netuid, blake2_256(one.data), one.reveal_round]
    return replace(changed, commits=(*subnet.commits, one)), ("TimelockedWeightsCommitted", told)


def _sealed(subnet: Subnet, commit: Commit) -> bool:
    return subnet.epoch_index < commit.epoch + subnet.reveal_period


def _is_public(ip_type: int, ip: int) -> bool:
    """As far as the pallet looks: no zero, no loopback, no all ones."""
    if ip_type == 4:
        return ip not in (0, 0x7F000001) and ip < U32_MAX
    return ip not in (0, 1, U128_MAX)


def _serve(subnet: Subnet, neuron: Neuron, number: int, arguments: Arguments) -> tuple[Subnet, Event]:
    if arguments["ip_type"] not in (4, 6):
        raise Failed("InvalidIpType")
    if not _is_public(arguments["ip_type"], arguments["ip"]):
        raise Failed("InvalidIpAddress")
    if neuron.axon_block and number - neuron.axon_block < subnet.serving_rate_limit:
        raise Failed("ServingRateLimitExceeded")
    if not arguments["port"]:
        raise Failed("InvalidPort")
    served = {name: arguments[name] for name in ("ip", "ip_type", "port", "protocol")}
    changed = _updated(subnet, neuron, axon_block=number, axon_version=arguments["version"], **served)
    if certificate := arguments["certificate"]:
        known = {**subnet.certificates, neuron.hotkey: (certificate[0], certificate[1:])}
        changed = replace(changed, certificates=known)
    return changed, ("AxonServed", [subnet.netuid, neuron.hotkey])


def _set_commitment(subnet: Subnet, neuron: Neuron, number: int, arguments: Arguments) -> tuple[Subnet, Event]:
    fields = arguments["info"]["fields"]
    if len(fields) > 1:
        raise Failed("TooManyFieldsInCommitmentInfo", "Commitments")
    known = {**subnet.commitments, neuron.hotkey: Registration(number, fields)}
    event = {"netuid": subnet.netuid, "who": neuron.hotkey}
    return replace(subnet, commitments=known), ("Commitment", event)


_CALLS: dict[tuple[str, str], Callable[[Subnet, Neuron, int, Arguments], tuple[Subnet, Event]]] = {
    ("SubtensorModule", "set_weights"): _set_weights,
    ("SubtensorModule", "commit_timelocked_weights"): _commit_weights,
    ("SubtensorModule", "serve_axon_tls"): _serve,
    ("Commitments", "set_commitment"): _set_commitment,
}
