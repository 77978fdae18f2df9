"""The pallets of the runtime, as far as clients of a subnet use them: storage, calls, events, errors, constants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.subtensor import shapes
from tests.subtensor.scale import BOOL, U8, U16, U32, U64, U128, Enum, List, Struct, Type, Variant
from tests.subtensor.state import State, Subnet
from tests.subtensor.storage import BLAKE2_128_CONCAT, IDENTITY, TWOX_64_CONCAT, Entry, Storage, Table

_ROOT = "node_subtensor_runtime"


@dataclass(frozen=True)
class Pallet:
    index: int
    name: str
    storage: Sequence[Entry] = ()
    calls: Enum | None = None
    events: Enum | None = None
    errors: Enum | None = None
    constants: Sequence[tuple[str, Type, Any]] = field(default=())


def _named(number: int, name: str, **fields: Type) -> Variant:
    return Variant(number, name, tuple(fields.items()))


def _per_subnet(name: str, value: Type, read: Callable[[State, Subnet], Any], default: Any) -> Entry:
    def table(state: State) -> Table:
        return {(netuid,): read(state, subnet) for netuid, subnet in state.subnets.items()}

    return Entry(name, value, table, ((IDENTITY, shapes.NETUID),), default)


def _per_row(
    name: str, value: Type, rows: Callable[[Subnet], dict[Any, Any]], key: tuple[Any, Type], default: Any = None
) -> Entry:
    def table(state: State) -> Table:
        return {(netuid, one): item for netuid, subnet in state.subnets.items() for one, item in rows(subnet).items()}

    return Entry(name, value, table, ((IDENTITY, shapes.NETUID), key), default)


# --- System and Timestamp ---------------------------------------------------------------------------------------

_NO_FUNDS = {"free": 0, "reserved": 0, "frozen": 0, "flags": 1 << 127}
_NOBODY = {"nonce": 0, "consumers": 0, "providers": 0, "sufficients": 0, "data": _NO_FUNDS}


def _accounts(state: State) -> Table:
    return {(one,): {**_NOBODY, "nonce": nonce, "providers": 1} for one, nonce in state.nonces.items()}


_SYSTEM_EVENTS = Enum(
    ("frame_system", "pallet", "Event"),
    (
        _named(0, "ExtrinsicSuccess", dispatch_info=shapes.DISPATCH_INFO),
        _named(1, "ExtrinsicFailed", dispatch_error=shapes.DISPATCH_ERROR, dispatch_info=shapes.DISPATCH_INFO),
    ),
)
_SYSTEM_CALLS = Enum(("frame_system", "pallet", "Call"), (_named(0, "remark", remark=shapes.BYTES),))
_SYSTEM_ERRORS = shapes.plain(("frame_system", "pallet", "Error"), "InvalidSpecName", "CallFiltered")
_TIMESTAMP_CALLS = Enum(("pallet_timestamp", "pallet", "Call"), (_named(0, "set", now=shapes.C_U64),))

# --- SubtensorModule --------------------------------------------------------------------------------------------

_SUBTENSOR_CALLS = Enum(
    ("pallet_subtensor", "pallet", "Call"),
    (
        _named(0, "set_weights", netuid=shapes.NETUID, dests=List(U16), weights=List(U16), version_key=U64),
        _named(
            40,
            "serve_axon_tls",
            netuid=shapes.NETUID,
            version=U32,
            ip=U128,
            port=U16,
            ip_type=U8,
            protocol=U8,
            **shapes.PLACEHOLDERS,
            certificate=shapes.BYTES,
        ),
        _named(
            113,
            "commit_timelocked_weights",
            netuid=shapes.NETUID,
            commit=shapes.BOUNDED_BYTES,
            reveal_round=U64,
            commit_reveal_version=U16,
        ),
    ),
)
_SUBTENSOR_EVENTS = Enum(
    ("pallet_subtensor", "pallet", "Event"),
    (
        Variant(5, "WeightsSet", ((None, shapes.INDEX), (None, U16))),
        Variant(24, "AxonServed", ((None, shapes.NETUID), (None, shapes.ACCOUNT))),
        Variant(
            107,
            "TimelockedWeightsCommitted",
            ((None, shapes.ACCOUNT), (None, shapes.INDEX), (None, shapes.HASH), (None, U64)),
        ),
    ),
)
_SUBTENSOR_ERRORS = shapes.plain(
    ("pallet_subtensor", "pallet", "Error"),
    "SubnetNotExists",
    "InvalidIpType",
    "InvalidIpAddress",
    "InvalidPort",
    "HotKeyNotRegisteredInSubNet",
    "HotKeyNotRegisteredInNetwork",
    "NeuronNoValidatorPermit",
    "WeightVecNotEqualSize",
    "DuplicateUids",
    "UidVecContainInvalidOne",
    "UidsLengthExceedUidsInSubNet",
    "SettingWeightsTooFast",
    "CommittingWeightsTooFast",
    "IncorrectWeightVersionKey",
    "CommitRevealEnabled",
    "CommitRevealDisabled",
    "IncorrectCommitRevealVersion",
    "TooManyUnrevealedCommits",
    "ServingRateLimitExceeded",
)


def _weights(state: State) -> Table:
    return {
        (netuid, neuron.uid): list(subnet.weights[neuron.hotkey].values.items())
        for netuid, subnet in state.subnets.items()
        for neuron in subnet.neurons
        if neuron.hotkey in subnet.weights
    }


def _timelocked(state: State) -> Table:
    table: dict[tuple[int, int], list[tuple[bytes, int, bytes, int]]] = {}
    for netuid, subnet in state.subnets.items():
        for one in subnet.commits:
            table.setdefault((netuid, one.epoch), []).append((one.hotkey, one.block, one.data, one.reveal_round))
    return table


_ACCOUNT_KEY = (BLAKE2_128_CONCAT, shapes.ACCOUNT)
_NO_AXON = dict.fromkeys(shapes.AXON.fields, 0)
_SUBTENSOR_STORAGE = (
    _per_subnet("NetworksAdded", BOOL, lambda _, subnet: True, False),
    _per_subnet("Tempo", U16, lambda _, subnet: subnet.tempo, 360),
    _per_subnet("WeightsVersionKey", U64, lambda _, subnet: subnet.weights_version, 0),
    _per_subnet("WeightsSetRateLimit", U64, lambda _, subnet: subnet.weights_rate_limit, 100),
    _per_subnet("CommitRevealWeightsEnabled", BOOL, lambda _, subnet: subnet.commit_reveal, True),
    _per_subnet("SubnetworkN", U16, lambda _, subnet: len(subnet.neurons), 0),
    _per_subnet("BlocksSinceLastStep", U64, lambda state, subnet: state.number - subnet.last_step_block, 0),
    _per_subnet("LastMechansimStepBlock", U64, lambda _, subnet: subnet.last_step_block, 0),
    _per_subnet("LastEpochBlock", U64, lambda _, subnet: subnet.last_epoch_block, 0),
    _per_subnet("PendingEpochAt", U64, lambda _, subnet: subnet.pending_epoch_at, 0),
    _per_subnet("SubnetEpochIndex", U64, lambda _, subnet: subnet.epoch_index, 0),
    _per_subnet("LastUpdate", List(U64), lambda _, subnet: [one.last_update for one in subnet.neurons], []),
    _per_subnet("ValidatorPermit", List(BOOL), lambda _, subnet: [one.validator_permit for one in subnet.neurons], []),
    Entry(
        "RevealPeriodEpochs",
        U64,
        lambda state: {(netuid,): subnet.reveal_period for netuid, subnet in state.subnets.items()},
        ((TWOX_64_CONCAT, shapes.NETUID),),
        1,
    ),
    Entry("CommitRevealWeightsVersion", U16, lambda state: {(): 4}, (), 4),
    _per_row(
        "Keys", shapes.ACCOUNT, lambda subnet: {n.uid: n.hotkey for n in subnet.neurons}, (IDENTITY, U16), bytes(32)
    ),
    _per_row("Uids", U16, lambda subnet: {n.hotkey: n.uid for n in subnet.neurons}, _ACCOUNT_KEY),
    _per_row(
        "Axons", shapes.AXON, lambda subnet: {n.hotkey: n.axon() for n in subnet.neurons if n.serves}, _ACCOUNT_KEY
    ),
    _per_row(
        "NeuronCertificates",
        shapes.CERTIFICATE,
        lambda subnet: {
            k: {"public_key": key, "algorithm": number} for k, (number, key) in subnet.certificates.items()
        },
        _ACCOUNT_KEY,
    ),
    Entry("Weights", shapes.WEIGHT_ROW, _weights, ((IDENTITY, shapes.INDEX), (IDENTITY, U16)), []),
    Entry(
        "TimelockedWeightCommits",
        shapes.TIMELOCKED,
        _timelocked,
        ((TWOX_64_CONCAT, shapes.INDEX), (TWOX_64_CONCAT, U64)),
        [],
    ),
)

# --- Commitments ------------------------------------------------------------------------------------------------

_COMMITMENTS_CALLS = Enum(
    ("pallet_commitments", "pallet", "Call"),
    (_named(0, "set_commitment", netuid=shapes.NETUID, info=shapes.COMMITMENT_INFO),),
)
_COMMITMENTS_EVENTS = Enum(
    ("pallet_commitments", "pallet", "Event"),
    (_named(0, "Commitment", netuid=shapes.NETUID, who=shapes.ACCOUNT),),
)
_COMMITMENTS_ERRORS = shapes.plain(
    ("pallet_commitments", "pallet", "Error"), "TooManyFieldsInCommitmentInfo", "AccountNotAllowedCommit"
)
_COMMITMENTS_STORAGE = (
    _per_row(
        "CommitmentOf",
        shapes.REGISTRATION,
        lambda subnet: {
            who: {"deposit": 0, "block": one.block, "info": {"fields": one.fields}}
            for who, one in subnet.commitments.items()
        },
        (TWOX_64_CONCAT, shapes.ACCOUNT),
    ),
)

# --- the runtime ------------------------------------------------------------------------------------------------

_CALLS = (
    ("System", 0, _SYSTEM_CALLS),
    ("Timestamp", 2, _TIMESTAMP_CALLS),
    ("SubtensorModule", 7, _SUBTENSOR_CALLS),
    ("Commitments", 18, _COMMITMENTS_CALLS),
)
_EVENTS = (
    ("System", 0, _SYSTEM_EVENTS),
    ("SubtensorModule", 7, _SUBTENSOR_EVENTS),
    ("Commitments", 18, _COMMITMENTS_EVENTS),
)
_ERRORS = (
    ("System", 0, _SYSTEM_ERRORS),
    ("SubtensorModule", 7, _SUBTENSOR_ERRORS),
    ("Commitments", 18, _COMMITMENTS_ERRORS),
)


def _outer(name: str, inner: Sequence[tuple[str, int, Enum]]) -> Enum:
    return Enum((_ROOT, name), tuple(Variant(index, pallet, ((None, kind),)) for pallet, index, kind in inner))


RUNTIME_CALL = _outer("RuntimeCall", _CALLS)
RUNTIME_EVENT = _outer("RuntimeEvent", _EVENTS)
RUNTIME_ERROR = _outer("RuntimeError", _ERRORS)
EVENT_RECORD = Struct(
    ("frame_system", "EventRecord"),
    {"phase": shapes.PHASE, "event": RUNTIME_EVENT, "topics": List(shapes.HASH)},
    (("E", RUNTIME_EVENT), ("T", shapes.HASH)),
)
_SYSTEM_STORAGE = (
    Entry("Account", shapes.ACCOUNT_INFO, _accounts, (_ACCOUNT_KEY,), _NOBODY),
    Entry("Number", U32, lambda state: {(): state.number}, (), 0),
    Entry(
        "BlockHash",
        shapes.HASH,
        lambda state: {(number,): one for number, one in state.hashes.items() if number < state.number},
        ((TWOX_64_CONCAT, U32),),
        bytes(32),
    ),
    Entry("Digest", shapes.DIGEST, lambda state: {(): {"logs": state.digest}}, (), {"logs": []}),
    Entry("Events", List(EVENT_RECORD), lambda state: {(): state.events}, (), []),
)
_TIMESTAMP_STORAGE = (Entry("Now", U64, lambda state: {(): state.now}, (), 0),)
PALLETS = (
    Pallet(
        0,
        "System",
        _SYSTEM_STORAGE,
        _SYSTEM_CALLS,
        _SYSTEM_EVENTS,
        _SYSTEM_ERRORS,
        (("BlockHashCount", U32, 4096), ("SS58Prefix", U16, 42)),
    ),
    Pallet(2, "Timestamp", _TIMESTAMP_STORAGE, _TIMESTAMP_CALLS, constants=(("MinimumPeriod", U64, 6000),)),
    Pallet(7, "SubtensorModule", _SUBTENSOR_STORAGE, _SUBTENSOR_CALLS, _SUBTENSOR_EVENTS, _SUBTENSOR_ERRORS),
    Pallet(18, "Commitments", _COMMITMENTS_STORAGE, _COMMITMENTS_CALLS, _COMMITMENTS_EVENTS, _COMMITMENTS_ERRORS),
)
STORAGE = Storage({pallet.name: pallet.storage for pallet in PALLETS})


def module_error(pallet: str, name: str) -> tuple[str, list[Any]]:
    """A DispatchError of that pallet."""
    one = next(one for one in PALLETS if one.name == pallet)
    assert one.errors is not None
    return "Module", [{"index": one.index, "error": bytes([one.errors.index(name), 0, 0, 0])}]
