"""The JSON-RPC methods of a node that answer at once. Those that subscribe are the server's."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tests.subtensor.apis import METHODS
from tests.subtensor.chain import Block, Chain, account, hexed
from tests.subtensor.extrinsics import Refused
from tests.subtensor.faults import SUBMISSION, Faults
from tests.subtensor.metadata import VERSIONS, metadata, runtime_version
from tests.subtensor.pallets import STORAGE
from tests.subtensor.scale import BadScale, blob, optional

METADATA_CALL = "Metadata_metadata_at_version"
STATE_ERROR = 4003
KEYS_MAX = 1000
"""Keys that a page has at most, as on a node."""


def bad_params(why: str) -> Refused:
    return Refused(-32602, "Invalid params", why)


def unhex(value: Any) -> bytes:
    """`0x` may be left out. Raises Refused."""
    try:
        return bytes.fromhex(value.removeprefix("0x"))
    except (AttributeError, ValueError):
        raise bad_params("invalid hex") from None


class Node:
    """One node of the chain: its own faults, the same blocks."""

    def __init__(self, chain: Chain, faults: Faults) -> None:
        self.chain = chain
        self.faults = faults
        self._call = lru_cache(maxsize=64)(self._call_block)
        self.methods: dict[str, Callable[..., Any]] = {
            "system_chain": lambda: "Bittensor",
            "system_name": lambda: "Subtensor Node",
            "system_version": lambda: "4.0.0-dev",
            "system_properties": lambda: {"ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO"},
            "system_health": lambda: {"peers": 8, "isSyncing": False, "shouldHavePeers": True},
            "system_accountNextIndex": self.next_index,
            "account_nextIndex": self.next_index,
            "chain_getHead": self.block_hash,
            "chain_getBlockHash": self.block_hash,
            "chain_getFinalizedHead": lambda: hexed(chain.finalized.hash),
            "chain_getFinalisedHead": lambda: hexed(chain.finalized.hash),
            "chain_getHeader": self.header,
            "chain_getBlock": self.block,
            "state_getRuntimeVersion": self.runtime_version,
            "chain_getRuntimeVersion": self.runtime_version,
            "state_getMetadata": self.metadata,
            "state_call": self.call,
            "state_getStorage": self.storage,
            "state_getStorageAt": self.storage,
            "state_getKeysPaged": self.keys,
            "state_getKeysPagedAt": self.keys,
            "state_queryStorageAt": self.query,
            "author_submitExtrinsic": self.submit,
            "author_pendingExtrinsics": lambda: [hexed(one.raw) for one in chain.pool.pending()],
            "rpc_methods": lambda: {"methods": sorted([*self.methods, *SUBSCRIBING])},
        }

    def answer(self, method: str, params: list[Any]) -> Any:
        """Raises Refused."""
        if (run := self.methods.get(method)) is None:
            raise Refused(-32601, "Method not found")
        try:
            return run(*params)
        except (TypeError, ValueError, BadScale) as problem:
            raise bad_params(str(problem)) from None

    # --- blocks ---------------------------------------------------------------------------------------------

    def _block(self, at: str | None) -> Block | None:
        return self.chain.head if at is None else self.chain.by_hash(unhex(at))

    def _kept(self, at: str | None, error: str = "UnknownBlock") -> Block:
        """A block whose state this node has. Raises Refused.

        Reads of storage and calls say UnknownBlock; what asks the runtime for its version says it in other words.
        """
        if (block := self._block(at)) is None:
            raise Refused(STATE_ERROR, f"Client error: {error}: Header was not found in the database: {at}")
        if block.number < self.faults.pruned_before:
            raise Refused(STATE_ERROR, f"Client error: {error}: State already discarded for {hexed(block.hash)}")
        return block

    def block_hash(self, number: Any = None) -> Any:
        if isinstance(number, list):
            return [self.block_hash(one) for one in number]
        number = int(number, 16) if isinstance(number, str) else number
        block = self.chain.head if number is None else self.chain.block(number)
        return hexed(block.hash) if block else None

    def header(self, at: str | None = None) -> dict[str, Any] | None:
        block = self._block(at)
        return block.header if block else None

    def block(self, at: str | None = None) -> dict[str, Any] | None:
        if (block := self._block(at)) is None:
            return None
        raw = [hexed(one.raw) for one in block.extrinsics]
        return {"block": {"header": block.header, "extrinsics": raw}, "justifications": None}

    # --- state ----------------------------------------------------------------------------------------------

    def runtime_version(self, at: str | None = None) -> dict[str, Any]:
        return runtime_version(self._kept(at, "Api called for an unknown Block").state.spec_version)

    def metadata(self, at: str | None = None) -> str:
        """The older version, as on a node."""
        self._kept(at, "Api called for an unknown Block")
        return hexed(metadata(VERSIONS[0]))

    def call(self, name: str, data: str, at: str | None = None) -> str:
        block = self._kept(at)
        if name == METADATA_CALL:
            version = int.from_bytes(unhex(data), "little")
            return hexed(optional(blob(metadata(version)) if version in VERSIONS else None))
        if name not in METHODS:
            missing = f"Execution failed: Other: Exported method {name} is not found"
            raise Refused(STATE_ERROR, f"Client error: {missing}")
        return self._call(block.hash, name, unhex(data))

    def _call_block(self, at: bytes, name: str, data: bytes) -> str:
        block = self.chain.by_hash(at)
        assert block is not None
        return hexed(METHODS[name].call(block.state, data))

    def storage(self, key: str, at: str | None = None) -> str | None:
        value = STORAGE.get(self._kept(at).state, unhex(key))
        return None if value is None else hexed(value)

    def keys(self, prefix: str, count: int, start: str | None = None, at: str | None = None) -> list[str]:
        if count > KEYS_MAX:
            raise Refused(4002, f"count exceeds maximum value. value: {count}, max: {KEYS_MAX}")
        after = unhex(start) if start else b""
        keys = STORAGE.keys(self._kept(at).state, unhex(prefix))
        return [hexed(key) for key in keys if key > after][:count]

    def query(self, keys: list[str], at: str | None = None) -> list[dict[str, Any]]:
        block = self._kept(at)
        return [{"block": hexed(block.hash), "changes": [[key, self.storage(key, at)] for key in keys]}]

    # --- extrinsics -----------------------------------------------------------------------------------------

    def next_index(self, who: str) -> int:
        return self.chain.pool.next_nonce(account(who))

    def submit(self, raw: str) -> str:
        fault = self.faults.take(SUBMISSION)
        return hexed(self.chain.submit(unhex(raw), forget=fault is not None and fault.kind == "forget"))


SUBSCRIBING = {
    "author_submitAndWatchExtrinsic": "author_extrinsicUpdate",
    "chain_subscribeNewHeads": "chain_newHead",
    "chain_subscribeFinalizedHeads": "chain_finalizedHead",
}
"""Methods that subscribe, and those that their messages bear."""
UNSUBSCRIBING = frozenset({"author_unwatchExtrinsic", "chain_unsubscribeNewHeads", "chain_unsubscribeFinalizedHeads"})
