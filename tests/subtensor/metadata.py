"""The runtime's metadata in the versions 14 and 15, and what else it says of itself."""

from functools import cache
from typing import Any

from tests.subtensor import shapes
from tests.subtensor.apis import APIS
from tests.subtensor.pallets import PALLETS, RUNTIME_CALL, RUNTIME_ERROR, RUNTIME_EVENT, Pallet
from tests.subtensor.scale import U32, Registry, Tuple, Type, Wrapped, blob, compact, listed, optional, text
from tests.subtensor.state import SPEC_VERSION
from tests.subtensor.storage import Entry

TRANSACTION_VERSION = 1
VERSIONS = (14, 15)
LAST_VERSION = VERSIONS[-1]
EXTRINSIC_VERSION = 4
_MAGIC = b"meta"
_NO_DOCS = listed([])
_UNCHECKED = ("sp_runtime", "generic", "unchecked_extrinsic", "UncheckedExtrinsic")
"""Clients find out by this type how addresses and signatures look."""
_UNIT, _VERSION = Tuple(), U32
SIGNED_EXTENSIONS: tuple[tuple[str, Type, Type], ...] = (
    ("CheckNonZeroSender", _UNIT, _UNIT),
    ("CheckSpecVersion", _UNIT, _VERSION),
    ("CheckTxVersion", _UNIT, _VERSION),
    ("CheckGenesis", _UNIT, shapes.HASH),
    ("CheckMortality", shapes.ERA, shapes.HASH),
    ("CheckNonce", shapes.CHECK_NONCE, _UNIT),
    ("CheckWeight", _UNIT, _UNIT),
    ("ChargeTransactionPayment", shapes.CHARGE, _UNIT),
    ("SubtensorTransactionExtension", _UNIT, _UNIT),
    ("CheckMetadataHash", shapes.CHECK_METADATA, shapes.METADATA_HASH),
)
"""Identifier, what it puts into an extrinsic, and what it only has signed."""


def runtime_version(spec_version: int = SPEC_VERSION) -> dict[str, Any]:
    return {
        "specName": "node-subtensor",
        "implName": "node-subtensor",
        "authoringVersion": 1,
        "specVersion": spec_version,
        "implVersion": 1,
        "apis": [],
        "transactionVersion": TRANSACTION_VERSION,
        "systemVersion": 1,
        "stateVersion": 1,
    }


def _entry(registry: Registry, entry: Entry) -> bytes:
    value = compact(registry.add(entry.value))
    if entry.keys:
        hashers = listed([bytes([hasher.index]) for hasher, _ in entry.keys])
        kind = b"\1" + hashers + compact(registry.add(entry.key_type)) + value
    else:
        kind = b"\0" + value
    modifier = b"\0" if entry.default is None else b"\1"
    default = b"\0" if entry.default is None else entry.value.encode(entry.default)
    return text(entry.name) + modifier + kind + blob(default) + _NO_DOCS


def _pallet(registry: Registry, pallet: Pallet, version: int) -> bytes:
    entries = listed([_entry(registry, entry) for entry in pallet.storage])
    kinds = [pallet.calls, pallet.events]
    calls, events = (optional(None if kind is None else compact(registry.add(kind))) for kind in kinds)
    errors = optional(None if pallet.errors is None else compact(registry.add(pallet.errors)))
    constants = [
        text(name) + compact(registry.add(kind)) + blob(kind.encode(value)) + _NO_DOCS
        for name, kind, value in pallet.constants
    ]
    storage = optional(text(pallet.name) + entries)
    docs = _NO_DOCS if version >= LAST_VERSION else b""
    return text(pallet.name) + storage + calls + events + listed(constants) + errors + bytes([pallet.index]) + docs


def _extrinsic(registry: Registry, version: int) -> bytes:
    extra = Tuple([one for _, one, _ in SIGNED_EXTENSIONS])
    kinds = (shapes.MULTI_ADDRESS, RUNTIME_CALL, shapes.MULTI_SIGNATURE, extra)
    params = tuple(zip(("Address", "Call", "Signature", "Extra"), kinds, strict=True))
    whole = compact(registry.add(Wrapped(_UNCHECKED, shapes.BYTES, params)))
    extensions = [
        text(name) + compact(registry.add(kind)) + compact(registry.add(signed))
        for name, kind, signed in SIGNED_EXTENSIONS
    ]
    if version < LAST_VERSION:
        return whole + bytes([EXTRINSIC_VERSION]) + listed(extensions)
    ids = b"".join(compact(registry.add(kind)) for kind in kinds)
    return bytes([EXTRINSIC_VERSION]) + ids + listed(extensions)


def _apis(registry: Registry) -> bytes:
    apis = []
    for name, methods in APIS.items():
        parts = []
        for method in methods:
            inputs = [text(one) + compact(registry.add(kind)) for one, kind in method.inputs]
            parts.append(text(method.name) + listed(inputs) + compact(registry.add(method.output)) + _NO_DOCS)
        apis.append(text(name) + listed(parts) + _NO_DOCS)
    return listed(apis)


@cache
def metadata(version: int) -> bytes:
    """Magic and version in front. `version` is one of VERSIONS."""
    registry = Registry()
    pallets = listed([_pallet(registry, pallet, version) for pallet in PALLETS])
    body = pallets + _extrinsic(registry, version) + compact(registry.add(Tuple()))
    if version >= LAST_VERSION:
        outer = b"".join(compact(registry.add(kind)) for kind in (RUNTIME_CALL, RUNTIME_EVENT, RUNTIME_ERROR))
        body += _apis(registry) + outer + listed([])
    return _MAGIC + bytes([version]) + registry.scale() + body
