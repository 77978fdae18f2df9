"""The types of the runtime that clients of a subnet meet, by their names and fields in subtensor and substrate."""

from collections.abc import Mapping

from tests.subtensor.scale import (
    BOOL,
    I64,
    STR,
    U8,
    U16,
    U32,
    U64,
    U128,
    Array,
    Compact,
    Enum,
    List,
    Option,
    Struct,
    Tuple,
    Type,
    Variant,
    Wrapped,
)

BYTES = List(U8)
HASH = Wrapped(("primitive_types", "H256"), Array(U8, 32))
ACCOUNT = Wrapped(("sp_core", "crypto", "AccountId32"), HASH.item)
UNIT = Tuple()
TEXTS = List(STR)

NETUID = Wrapped(("subtensor_runtime_common", "NetUid"), U16)
INDEX = Wrapped(("subtensor_runtime_common", "NetUidStorageIndex"), U16)
ALPHA = Wrapped(("subtensor_runtime_common", "currency", "AlphaCurrency"), U64)
TAO = Wrapped(("subtensor_runtime_common", "currency", "TaoCurrency"), U64)
C_NETUID, C_ALPHA, C_TAO = Compact(NETUID), Compact(ALPHA), Compact(TAO)
C_U16, C_U32, C_U64 = Compact(U16), Compact(U32), Compact(U64)


def bounded(item: Type, listing: Type | None = None) -> Wrapped:
    """BoundedVec<T, S>."""
    params = (("T", item), ("S", None))
    return Wrapped(("bounded_collections", "bounded_vec", "BoundedVec"), listing or List(item), params)


BOUNDED_BYTES = bounded(U8, BYTES)


def plain(path: tuple[str, ...], *names: str) -> Enum:
    """An enum of cases without fields."""
    return Enum(path, tuple(Variant(number, name) for number, name in enumerate(names)))


# --- blocks and extrinsics --------------------------------------------------------------------------------------

WEIGHT = Struct(("sp_weights", "weight_v2", "Weight"), {"ref_time": C_U64, "proof_size": C_U64})
DISPATCH_CLASS = plain(("frame_support", "dispatch", "DispatchClass"), "Normal", "Operational", "Mandatory")
PAYS = plain(("frame_support", "dispatch", "Pays"), "Yes", "No")
DISPATCH_INFO = Struct(
    ("frame_system", "DispatchEventInfo"), {"weight": WEIGHT, "class": DISPATCH_CLASS, "pays_fee": PAYS}
)
MODULE_ERROR = Struct(("sp_runtime", "ModuleError"), {"index": U8, "error": Array(U8, 4)})
DISPATCH_ERROR = Enum(
    ("sp_runtime", "DispatchError"),
    (
        Variant(0, "Other"),
        Variant(1, "CannotLookup"),
        Variant(2, "BadOrigin"),
        Variant(3, "Module", ((None, MODULE_ERROR),)),
    ),
)
PHASE = Enum(
    ("frame_system", "Phase"),
    (Variant(0, "ApplyExtrinsic", ((None, U32),)), Variant(1, "Finalization"), Variant(2, "Initialization")),
)
_ENGINE = ((None, Array(U8, 4)), (None, BYTES))
DIGEST_ITEM = Enum(
    ("sp_runtime", "generic", "digest", "DigestItem"),
    (
        Variant(0, "Other", ((None, BYTES),)),
        Variant(4, "Consensus", _ENGINE),
        Variant(5, "Seal", _ENGINE),
        Variant(6, "PreRuntime", _ENGINE),
        Variant(8, "RuntimeEnvironmentUpdated"),
    ),
)
DIGEST = Struct(("sp_runtime", "generic", "digest", "Digest"), {"logs": List(DIGEST_ITEM)})
MULTI_ADDRESS = Enum(
    ("sp_runtime", "multiaddress", "MultiAddress"),
    (
        Variant(0, "Id", ((None, ACCOUNT),)),
        Variant(1, "Index", ((None, Compact(UNIT)),)),
        Variant(2, "Raw", ((None, BYTES),)),
        Variant(3, "Address32", ((None, HASH.item),)),
        Variant(4, "Address20", ((None, Array(U8, 20)),)),
    ),
    (("AccountId", ACCOUNT), ("AccountIndex", UNIT)),
)
_SIGNATURE = Array(U8, 64)
MULTI_SIGNATURE = Enum(
    ("sp_runtime", "MultiSignature"),
    (
        Variant(0, "Ed25519", ((None, _SIGNATURE),)),
        Variant(1, "Sr25519", ((None, _SIGNATURE),)),
        Variant(2, "Ecdsa", ((None, Array(U8, 65)),)),
    ),
)
ERA = Enum(
    ("sp_runtime", "generic", "era", "Era"),
    (Variant(0, "Immortal"), *(Variant(n, f"Mortal{n}", ((None, U8),)) for n in range(1, 256))),
)
CHECK_NONCE = Wrapped(("frame_system", "extensions", "check_nonce", "CheckNonce"), C_U32)
CHARGE = Wrapped(("pallet_transaction_payment", "ChargeTransactionPayment"), C_U64)
MODE = plain(("frame_metadata_hash_extension", "Mode"), "Disabled", "Enabled")
CHECK_METADATA = Struct(("frame_metadata_hash_extension", "CheckMetadataHash"), {"mode": MODE})
METADATA_HASH = Option(HASH.item)
ACCOUNT_DATA = Struct(
    ("pallet_balances", "types", "AccountData"),
    {"free": U64, "reserved": U64, "frozen": U64, "flags": Wrapped(("pallet_balances", "types", "ExtraFlags"), U128)},
)
ACCOUNT_INFO = Struct(
    ("frame_system", "AccountInfo"),
    {"nonce": U32, "consumers": U32, "providers": U32, "sufficients": U32, "data": ACCOUNT_DATA},
)

# --- subnets ----------------------------------------------------------------------------------------------------

_SERVED = {"block": U64, "version": U32, "ip": U128, "port": U16, "ip_type": U8}
PLACEHOLDERS = {"placeholder1": U8, "placeholder2": U8}
AXON = Struct(("pallet_subtensor", "pallet", "AxonInfo"), {**_SERVED, "protocol": U8, **PLACEHOLDERS})
PROMETHEUS = Struct(("pallet_subtensor", "pallet", "PrometheusInfo"), _SERVED)
CERTIFICATE = Struct(
    ("pallet_subtensor", "pallet", "NeuronCertificate"), {"public_key": BOUNDED_BYTES, "algorithm": U8}
)
NEURON_LITE = Struct(
    ("pallet_subtensor", "rpc_info", "neuron_info", "NeuronInfoLite"),
    {
        "hotkey": ACCOUNT,
        "coldkey": ACCOUNT,
        "uid": C_U16,
        "netuid": C_NETUID,
        "active": BOOL,
        "axon_info": AXON,
        "prometheus_info": PROMETHEUS,
        "stake": List(Tuple((ACCOUNT, C_ALPHA))),
        "rank": C_U16,
        "emission": C_ALPHA,
        "incentive": C_U16,
        "consensus": C_U16,
        "trust": C_U16,
        "validator_trust": C_U16,
        "dividends": C_U16,
        "last_update": C_U64,
        "validator_permit": BOOL,
        "pruning_score": C_U16,
    },
    (("AccountId", ACCOUNT),),
)
_ACCOUNTS, _BOOLS, _C_U16S, _C_U64S = List(ACCOUNT), List(BOOL), List(C_U16), List(C_U64)
SUBNET_STATE = Struct(
    ("pallet_subtensor", "rpc_info", "show_subnet", "SubnetState"),
    {
        "netuid": C_NETUID,
        "hotkeys": _ACCOUNTS,
        "coldkeys": _ACCOUNTS,
        "active": _BOOLS,
        "validator_permit": _BOOLS,
        "pruning_score": _C_U16S,
        "last_update": _C_U64S,
        "emission": List(C_ALPHA),
        "dividends": _C_U16S,
        "incentives": _C_U16S,
        "consensus": _C_U16S,
        "trust": _C_U16S,
        "rank": _C_U16S,
        "block_at_registration": _C_U64S,
        "alpha_stake": List(C_ALPHA),
        "tao_stake": List(C_TAO),
        "total_stake": List(C_TAO),
        "emission_history": List(List(C_ALPHA)),
    },
    (("AccountId", ACCOUNT),),
)
HYPERPARAMS_FIELDS: Mapping[str, Type] = {
    "rho": C_U16,
    "kappa": C_U16,
    "immunity_period": C_U16,
    "min_allowed_weights": C_U16,
    "max_weights_limit": C_U16,
    "tempo": C_U16,
    "min_difficulty": C_U64,
    "max_difficulty": C_U64,
    "weights_version": C_U64,
    "weights_rate_limit": C_U64,
    "adjustment_interval": C_U16,
    "activity_cutoff": C_U16,
    "registration_allowed": BOOL,
    "target_regs_per_interval": C_U16,
    "min_burn": C_TAO,
    "max_burn": C_TAO,
    "bonds_moving_avg": C_U64,
    "max_regs_per_block": C_U16,
    "serving_rate_limit": C_U64,
    "max_validators": C_U16,
    "adjustment_alpha": C_U64,
    "difficulty": C_U64,
    "commit_reveal_period": C_U64,
    "commit_reveal_weights_enabled": BOOL,
    "alpha_high": C_U16,
    "alpha_low": C_U16,
    "liquid_alpha_enabled": BOOL,
}
HYPERPARAMS = Struct(("pallet_subtensor", "rpc_info", "subnet_info", "SubnetHyperparams"), HYPERPARAMS_FIELDS)
FIXED = Struct(("substrate_fixed", "FixedI64"), {"bits": I64})
HYPERPARAMS_V2 = Struct(
    ("pallet_subtensor", "rpc_info", "subnet_info", "SubnetHyperparamsV2"),
    {
        **HYPERPARAMS_FIELDS,
        "alpha_sigmoid_steepness": FIXED,
        "yuma_version": C_U16,
        "subnet_is_active": BOOL,
        "transfers_enabled": BOOL,
        "bonds_reset_enabled": BOOL,
        "user_liquidity_enabled": BOOL,
    },
)
WEIGHT_ROW = List(Tuple((U16, U16)))
TIMELOCKED = List(Tuple((ACCOUNT, U64, BOUNDED_BYTES, U64)))

# --- commitments ------------------------------------------------------------------------------------------------

RAW_MAX = 128
_DIGESTS = ("BlakeTwo256", "Sha256", "Keccak256", "ShaThree256")
DATA = Enum(
    ("pallet_commitments", "types", "Data"),
    (
        Variant(0, "None"),
        *(Variant(n + 1, f"Raw{n}", ((None, Array(U8, n)),)) for n in range(RAW_MAX + 1)),
        *(Variant(130 + n, name, ((None, HASH.item),)) for n, name in enumerate(_DIGESTS)),
        Variant(134, "TimelockEncrypted", (("encrypted", BOUNDED_BYTES), ("reveal_round", U64))),
        Variant(135, "ResetBondsFlag"),
        Variant(136, "BigRaw", ((None, BOUNDED_BYTES),)),
    ),
)
COMMITMENT_INFO = Struct(
    ("pallet_commitments", "types", "CommitmentInfo"), {"fields": bounded(DATA)}, (("FieldLimit", None),)
)
REGISTRATION = Struct(
    ("pallet_commitments", "types", "Registration"),
    {"deposit": U64, "block": U32, "info": COMMITMENT_INFO},
    (("Balance", U64), ("MaxFields", None), ("BlockNumber", U32)),
)
