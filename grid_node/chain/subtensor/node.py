"""async-substrate-interface's sync client over our own connection.

The library knows SCALE, metadata and how an extrinsic is signed. Its transport is replaced, because it waits up to
five times a minute, takes messages of any size, and decodes an error about storage to the default value. So is its
choice of the runtime: it loads the same one again for a block that it has seen, and forgets nothing.
"""

import gc
import re
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Any

from async_substrate_interface.sync_substrate import SubstrateInterface
from async_substrate_interface.types import Runtime
from scalecodec.base import RuntimeConfigurationObject
from scalecodec.type_registry import load_type_registry_preset

from grid_node.chain.ports import BlockUnknown, NodeUnreachable, StateDiscarded
from grid_node.chain.subtensor.connection import Connection, RpcError

HASH = re.compile(r"0x[0-9a-f]{64}")
SS58_PREFIX = 42
RUNTIMES_MAX = 3
"""Decoded metadata that are kept; about 20 MB each."""
BLOCKS_MAX = 2048
"""Blocks whose header and runtime version are kept."""
PAGE = 256
"""Keys of one page of a storage map."""
KEYS_MAX = 20_000
"""Keys of one storage map under one prefix. A subnet has 256 neurons; those of the past may still be in its maps."""
CLIENT_ERROR = 4003
"""sc-rpc-api's code for an error of the node's own store or runtime."""


class Node(SubstrateInterface):
    """The library's interface, for one thread. Every call raises NodeUnreachable, RpcError or what the library raises
    about values that are not as the metadata say."""

    def __init__(self, uri: str) -> None:
        self.connection = Connection(uri)
        super().__init__(uri, chain_name="Bittensor", ss58_format=SS58_PREFIX, _mock=True)
        self.ws = None
        self._runtimes: OrderedDict[int, Runtime] = OrderedDict()
        self._versions: dict[str, int] = {}
        self._headers: dict[str, dict[str, Any]] = {}
        self._generation = 0
        self._genesis: str | None = None

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """See Connection.within."""
        return self.connection.within(seconds)

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one JSON-RPC call. Raises StateDiscarded and BlockUnknown where the node says so, RpcError
        for its other errors."""
        self.ready()
        try:
            return self.connection.call(method, list(params))
        except RpcError as error:
            raise (about_block(error) or error) from None

    def close(self) -> None:
        self.connection.close()

    def hash_of(self, number: int) -> str | None:
        """Of the block with this number on the best chain; None: there is none."""
        found = self.ask("chain_getBlockHash", number)
        if found is not None and not is_hash(found):
            raise ValueError("no block hash")
        return found

    def forget(self) -> None:
        """All that was heard of blocks."""
        self._headers.clear()
        self._versions.clear()

    def header(self, block_hash: str) -> dict[str, Any]:
        """`{"number", "parent"}`. Raises BlockUnknown."""
        known = self._headers.get(block_hash)
        if known is None:
            found = self.ask("chain_getHeader", block_hash)
            if found is None:
                raise BlockUnknown("The block is not known.")
            known = {"number": int(found["number"], 16), "parent": found["parentHash"]}
            if not is_hash(known["parent"]):
                raise ValueError("no block hash")
            keep(self._headers, block_hash, known)
        return known

    def has_storage(self, pallet: str, name: str) -> bool:
        """Whether the runtime in use has this storage item."""
        found = self.metadata.get_metadata_pallet(pallet)
        return found is not None and found.get_storage_function(name) is not None

    def call_api(self, api: str, method: str, params: list[Any], block_hash: str) -> Any:
        """What a method of a runtime API answers, decoded. Raises BlockUnknown where the runtime is so old that it
        answers in bytes of its own (before 2025)."""
        runtime = self.init_runtime(block_hash)
        definition = runtime.runtime_api_map.get(api, {}).get(method)
        if definition is None:
            raise NodeUnreachable(f"its runtime has no {api}.{method}")
        if runtime.type_id_to_name.get(definition["output"]) == "Vec<u8>":
            raise too_old()
        kinds = [f"scale_info::{one['ty']}" for one in definition["inputs"]]
        data = b"".join(self.encode_scale(kind, one, runtime=runtime) for kind, one in zip(kinds, params, strict=True))
        raw = unhex(self.ask("state_call", f"{api}_{method}", "0x" + data.hex(), block_hash))
        return self.decode(f"scale_info::{definition['output']}", raw)

    def decode(self, kind: str, raw: bytes) -> Any:
        """A value of this type, which is all of `raw`, by the runtime in use. 256 neurons take 1 ms; the library's
        own `decode_scale` makes an object of every part, and takes 20."""
        return self.runtime_config.batch_decode([kind], [raw])[0]

    def value(self, pallet: str, name: str, params: list[Any], block_hash: str) -> Any:
        """One storage item, decoded; its default where there is none."""
        key = self.create_storage_key(pallet, name, params, block_hash=block_hash)
        return self._decoded(key, self.ask("state_getStorage", key.to_hex(), block_hash))

    def raw(self, pallet: str, name: str, params: list[Any], block_hash: str) -> bytes | None:
        """The SCALE bytes of one storage item; None: there is none."""
        key = self.create_storage_key(pallet, name, params, block_hash=block_hash).to_hex()
        found = self.ask("state_getStorage", key, block_hash)
        return None if found is None else unhex(found)

    def values(self, pallet: str, names: list[str], params: list[Any], block_hash: str) -> dict[str, Any]:
        """Several items of one pallet under the same keys, in one call. Those that the runtime lacks are left out."""
        self.init_runtime(block_hash)
        present = [name for name in names if self.has_storage(pallet, name)]
        keys = [self.create_storage_key(pallet, name, params, block_hash=block_hash) for name in present]
        found = {str(key): value for key, value in self._at([str(key.to_hex()) for key in keys], block_hash)}
        decoded = {}
        for name, key in zip(present, keys, strict=True):
            raw = found.get(str(key.to_hex()))
            decoded[name] = self._decoded(key, raw)
        return decoded

    def rows(self, pallet: str, name: str, params: list[Any], block_hash: str) -> list[tuple[bytes, bytes]]:
        """A storage map below the given keys: SCALE bytes after the prefix (hash of the last key and the key itself),
        and of the value."""
        prefix = str(self.create_storage_key(pallet, name, params, block_hash=block_hash).to_hex())
        keys: list[str] = []
        while page := self.ask("state_getKeysPaged", prefix, PAGE, keys[-1] if keys else prefix, block_hash):
            keys += page
            if len(page) < PAGE:
                break
            if len(keys) > KEYS_MAX:
                raise NodeUnreachable("it has more to tell than it should")
        found = []
        for start in range(0, len(keys), PAGE):
            found += self._at(keys[start : start + PAGE], block_hash)
        return [(unhex(key)[len(prefix) // 2 - 1 :], unhex(value)) for key, value in found if value is not None]

    def decode_many(self, pallet: str, name: str, raws: list[bytes]) -> list[Any]:
        """Values of one storage item, by the runtime in use."""
        kind = self.metadata.get_metadata_pallet(pallet).get_storage_function(name).get_value_type_string()
        return list(self.runtime_config.batch_decode([kind] * len(raws), raws))

    def _at(self, keys: list[str], block_hash: str) -> list[tuple[str, str | None]]:
        if not keys:
            return []
        found = self.ask("state_queryStorageAt", keys, block_hash)
        told = [(key, value) for group in found for key, value in group["changes"]]
        if {key for key, _ in told} != set(keys):
            raise ValueError("an answer about other keys")
        return told

    def _decoded(self, key: Any, raw: str | None) -> Any:
        item = key.metadata_storage_function
        if raw is not None:
            return self.decode(key.value_scale_type, unhex(raw))
        kind = key.value_scale_type if item.value["modifier"] == "Default" else f"Option<{key.value_scale_type}>"
        return self.decode(kind, bytes(item.value_object["default"].value_object))

    # --- what the library calls ---------------------------------------------------------------------------------

    def _make_rpc_request(
        self,
        payloads: list[dict[str, Any]],
        value_scale_type: str | None = None,
        storage_item: Any = None,
        result_handler: Any = None,
        attempt: int = 1,
    ) -> Any:
        if value_scale_type is not None or result_handler is not None:
            raise NotImplementedError("storage and subscriptions are not read through the library")
        calls = [(payload["id"], payload["payload"]) for payload in payloads]
        return {number: [{"result": self.ask(call["method"], *call["params"])}] for number, call in calls}

    def get_block_hash(self, block_id: int | None) -> str:
        found = self.get_chain_head() if block_id is None else self.hash_of(block_id)
        if found is None:
            raise BlockUnknown(f"Block {block_id} not found.")
        return found

    def init_runtime(self, block_hash: str | None = None, block_id: int | None = None) -> Runtime:
        """The runtime that a block was made with: its parent's. Named by neither, the one in use."""
        if block_hash is None and self.runtime is not None:
            return self.runtime
        if block_hash is None:
            block_hash = self.get_chain_head()
        version = self._version_of(block_hash)
        if self.runtime is not None and self.runtime.runtime_version == version:
            return self.runtime
        runtime = self._runtimes.get(version) or self._load(version, block_hash)
        self._runtimes.move_to_end(version)
        self.runtime, self.runtime_config = runtime, runtime.runtime_config
        return runtime

    def _version_of(self, block_hash: str) -> int:
        known = self._versions.get(block_hash)
        if known is None:
            told = self.ask("state_getRuntimeVersion", self._parent(block_hash))
            known = int(told["specVersion"])
            keep(self._versions, block_hash, known)
        return known

    def _parent(self, block_hash: str) -> str:
        header = self.header(block_hash)
        return block_hash if header["number"] == 0 else str(header["parent"])

    def _load(self, version: int, block_hash: str) -> Runtime:
        """Ask for the metadata and decode them: 0.2 s of CPU. Raises BlockUnknown where they are older than V15."""
        parent = self._parent(block_hash)
        types = RuntimeConfigurationObject(ss58_format=SS58_PREFIX)
        types.update_type_registry(load_type_registry_preset("core") or {})
        try:
            metadata = self._load_registry_at_block(parent, runtime_config=types)
        except RpcError as error:
            raise (too_old() if "is not found" in error.message else error) from None
        if metadata is None:
            raise too_old()
        runtime = Runtime(
            chain=self._chain,
            runtime_config=types,
            metadata=metadata,
            metadata_v15=metadata,
            type_registry={},
            runtime_info=self.ask("state_getRuntimeVersion", parent),
            ss58_format=SS58_PREFIX,
        )
        self._runtimes[version] = runtime
        while len(self._runtimes) > RUNTIMES_MAX:
            self._runtimes.popitem(last=False)
        settle()
        return runtime

    def genesis(self) -> str:
        """Hash of the chain's block 0."""
        self.ready()
        assert self._genesis is not None
        return self._genesis

    def ready(self) -> None:
        """Open the connection if it is not, and see that it leads to the same chain as ever."""
        if self.connection.is_open and self._generation == self.connection.generation:
            return
        self.connection.open()
        self._generation = self.connection.generation
        genesis = self.connection.call("chain_getBlockHash", [0])
        if not is_hash(genesis) or self._genesis not in (None, genesis):
            self.connection.close()
            raise NodeUnreachable("it keeps another chain")
        self._genesis = genesis


def about_block(error: RpcError) -> BlockUnknown | None:
    """What the node says about the block that it was asked at, if that is what is wrong."""
    text = error.message.lower()
    if "discarded" in text:
        return StateDiscarded("The state of the block is discarded.")
    if "unknownblock" in text or "unknown block" in text or "header was not found" in text:
        return BlockUnknown("The block is not known.")
    if error.code == CLIENT_ERROR and "execution failed" not in text:
        return StateDiscarded("The state of the block is discarded.")
    return None


def too_old() -> BlockUnknown:
    return BlockUnknown("The block is too old to be read.")


def keep(known: dict[str, Any], key: str, value: Any) -> None:
    """Remember one more, and forget the oldest of too many."""
    known[key] = value
    if len(known) > BLOCKS_MAX:
        del known[next(iter(known))]


def is_hash(value: Any) -> bool:
    """Whether it is `0x` and 64 lower hex digits."""
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def unhex(text: str) -> bytes:
    """Raises ValueError and TypeError."""
    if text[:2] != "0x":
        raise ValueError("no hex text of a node")
    return bytes.fromhex(text[2:])


def settle() -> None:
    """Take the decoded metadata out of the collector's sight: half a million objects that every full collection would
    look at again, for 50 ms and more."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
