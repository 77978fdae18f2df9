"""The runtime APIs: what `state_call` answers, and how the metadata describes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.subtensor import shapes
from tests.subtensor.scale import U32, U64, Cursor, List, Option, Type
from tests.subtensor.state import Neuron, State, Subnet


@dataclass(frozen=True)
class Method:
    name: str
    inputs: Sequence[tuple[str, Type]]
    output: Type
    answer: Callable[..., Any]
    """Called with the state and the inputs."""

    def call(self, state: State, data: bytes) -> bytes:
        """Raises BadScale."""
        cursor = Cursor(data)
        return self.output.encode(self.answer(state, *(kind.decode(cursor) for _, kind in self.inputs)))


def neuron_lite(netuid: int, neuron: Neuron) -> dict[str, Any]:
    served = {"block": 0, "version": 0, "ip": 0, "port": 0, "ip_type": 0}
    same = {name: getattr(neuron, name) for name in shapes.NEURON_LITE.fields if hasattr(Neuron, name)}
    same |= {name: getattr(neuron, name) for name in ("hotkey", "coldkey", "uid")}
    stake = [(neuron.coldkey, neuron.alpha_stake)]
    return {"netuid": netuid, "axon_info": neuron.axon(), "prometheus_info": served, "stake": stake, **same}


def neurons_lite(state: State, netuid: int) -> list[dict[str, Any]]:
    """[] for a subnet that is not there, as the chain says it."""
    subnet = state.subnets.get(netuid)
    return [neuron_lite(netuid, neuron) for neuron in subnet.neurons] if subnet else []


_COLUMNS = {
    "hotkeys": "hotkey",
    "coldkeys": "coldkey",
    "incentives": "incentive",
    "block_at_registration": "registered_at",
}


def subnet_state(state: State, netuid: int) -> dict[str, Any] | None:
    if (subnet := state.subnets.get(netuid)) is None:
        return None
    columns = [name for name in shapes.SUBNET_STATE.fields if name not in ("netuid", "emission_history")]
    values = {name: [getattr(one, _COLUMNS.get(name, name)) for one in subnet.neurons] for name in columns}
    history = [[one.emission for one in subnet.neurons] for _ in state.subnets]
    return {"netuid": netuid, **values, "emission_history": history}


_RARELY_CHANGED = {
    "rho": 10,
    "kappa": 32767,
    "immunity_period": 4096,
    "min_allowed_weights": 1,
    "max_weights_limit": 65535,
    "min_difficulty": 10_000_000,
    "max_difficulty": 2**62,
    "adjustment_interval": 360,
    "activity_cutoff": 5000,
    "registration_allowed": True,
    "target_regs_per_interval": 1,
    "min_burn": 500_000,
    "max_burn": 100_000_000_000,
    "bonds_moving_avg": 900_000,
    "max_regs_per_block": 1,
    "max_validators": 64,
    "adjustment_alpha": 0,
    "difficulty": 10_000_000,
    "alpha_high": 58982,
    "alpha_low": 45875,
    "liquid_alpha_enabled": False,
}
_NEWER = {
    "alpha_sigmoid_steepness": {"bits": 1000 << 32},
    "yuma_version": 3,
    "subnet_is_active": True,
    "transfers_enabled": True,
    "bonds_reset_enabled": False,
    "user_liquidity_enabled": False,
}


def _hyperparams(subnet: Subnet) -> dict[str, Any]:
    return {
        **_RARELY_CHANGED,
        "tempo": subnet.tempo,
        "weights_version": subnet.weights_version,
        "weights_rate_limit": subnet.weights_rate_limit,
        "serving_rate_limit": subnet.serving_rate_limit,
        "commit_reveal_period": subnet.reveal_period,
        "commit_reveal_weights_enabled": subnet.commit_reveal,
    }


def hyperparams(state: State, netuid: int) -> dict[str, Any] | None:
    subnet = state.subnets.get(netuid)
    return _hyperparams(subnet) if subnet else None


def hyperparams_v2(state: State, netuid: int) -> dict[str, Any] | None:
    subnet = state.subnets.get(netuid)
    return {**_hyperparams(subnet), **_NEWER} if subnet else None


def next_epoch(state: State, netuid: int) -> int | None:
    """The first block from this one on that an epoch ends with."""
    if (subnet := state.subnets.get(netuid)) is None:
        return None
    return state.number + subnet.tempo - (state.number + netuid + 1) % (subnet.tempo + 1)


_NETUID = (("netuid", shapes.NETUID),)
APIS: dict[str, tuple[Method, ...]] = {
    "NeuronInfoRuntimeApi": (Method("get_neurons_lite", _NETUID, List(shapes.NEURON_LITE), neurons_lite),),
    "SubnetInfoRuntimeApi": (
        Method("get_subnet_hyperparams", _NETUID, Option(shapes.HYPERPARAMS), hyperparams),
        Method("get_subnet_hyperparams_v2", _NETUID, Option(shapes.HYPERPARAMS_V2), hyperparams_v2),
        Method("get_subnet_state", _NETUID, Option(shapes.SUBNET_STATE), subnet_state),
        Method("get_next_epoch_start_block", _NETUID, Option(U64), next_epoch),
    ),
    "AccountNonceApi": (
        Method("account_nonce", (("account", shapes.ACCOUNT),), U32, lambda state, who: state.nonces.get(who, 0)),
    ),
}
METHODS = {f"{api}_{method.name}": method for api, methods in APIS.items() for method in methods}
