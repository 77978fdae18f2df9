"""The bodies of Pylon's answers, as the final bytes of JSON; made in the process of the chain.

What a subnet's answer says beside its block is encoded once for each state of the subnet, and the block is put in
front: an unchanged metagraph at a new block costs no decoding and no encoding.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import orjson

from grid_node.chain.cache import ByteCache
from grid_node.chain.ports import Block, ChainPort, Commitment, Neuron
from grid_node.errors import ChainNotFound

KEPT_BYTES = 32 * 1024 * 1024
"""Encoded states that are kept: about 200 subnets of 256 neurons."""

NO_COMMITMENT = "Commitment not found."
NO_CERTIFICATE = "Certificate not found or error fetching."


class Bodies:
    """Makes bodies out of what a ChainPort says, whose errors pass through. Threads of several connections to the same
    chain may share one.

    The answers about a whole subnet come with a word for their content: equal words, equal content beside the block.
    """

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._kept: ByteCache[tuple[str, bytes]] = ByteCache(max_bytes)

    def neurons(self, port: ChainPort, netuid: int, block: Block) -> tuple[str, bytes]:
        """`{"block", "neurons": {hotkey: Neuron}}` in the order of the uids."""
        return self._metagraph("neurons", port, netuid, block)

    def validators(self, port: ChainPort, netuid: int, block: Block) -> tuple[str, bytes]:
        """`{"block", "validators": [Neuron]}`: those with a permit, most stake first, then by uid."""
        return self._metagraph("validators", port, netuid, block)

    def commitments(self, port: ChainPort, netuid: int, block: Block) -> tuple[str, bytes]:
        """`{"block", "commitments": {hotkey: "0x.."}}`."""
        key = "commitments", netuid, block.hash
        kept = self._kept.get(key)
        if kept is None:
            kept = self._keep(key, _commitments(port.commitments(netuid, block)))
        return kept[0], _at(block, kept[1])

    def certificates(self, port: ChainPort, netuid: int, block: Block) -> tuple[str, bytes]:
        """`{hotkey: Certificate}`; this answer does not name its block."""
        key = "certificates", netuid, block.hash
        kept = self._kept.get(key)
        if kept is None:
            found = port.certificates(netuid, block)
            kept = self._keep(key, orjson.dumps({hotkey: one.body() for hotkey, one in found.items()}))
        return kept

    def commitment(self, port: ChainPort, netuid: int, hotkey: str, block: Block) -> bytes:
        """`{"block", "hotkey", "commitment", "commitment_block_number"}`. Raises ChainNotFound."""
        found = port.commitment(netuid, hotkey, block)
        if found is None:
            raise ChainNotFound(NO_COMMITMENT)
        told = {"hotkey": found.hotkey, "commitment": _hex(found), "commitment_block_number": found.block_number}
        return orjson.dumps({"block": block.ref(), **told})

    def certificate(self, port: ChainPort, netuid: int, hotkey: str, block: Block) -> bytes:
        """A Certificate. Raises ChainNotFound."""
        found = port.certificate(netuid, hotkey, block)
        if found is None:
            raise ChainNotFound(NO_CERTIFICATE)
        return orjson.dumps(found.body())

    def extrinsic(self, port: ChainPort, block: Block, index: int) -> bytes:
        """Raises ChainNotFound."""
        found = port.extrinsic(block, index)
        if found is None:
            raise ChainNotFound(no_extrinsic(block.number, index))
        return _encode(found)

    def _metagraph(self, kind: str, port: ChainPort, netuid: int, block: Block) -> tuple[str, bytes]:
        state = port.state(netuid, block)
        kept = self._kept.get((kind, netuid, state))
        if kept is None:
            kept = state, self._decode(port, netuid, block, state)[kind]
        return state, _at(block, kept[1])

    def _decode(self, port: ChainPort, netuid: int, block: Block, state: str) -> dict[str, bytes]:
        """One answer of the chain holds both bodies, and to ask is what costs."""
        neurons = port.neurons(netuid, block)
        made = {"neurons": _neurons(neurons), "validators": _validators(neurons)}
        for kind, rest in made.items():
            self._kept.put((kind, netuid, state), (state, rest), len(rest))
        return made

    def _keep(self, key: tuple[str, int, str], rest: bytes) -> tuple[str, bytes]:
        kept = blake2b(rest, digest_size=16).hexdigest(), rest
        self._kept.put(key, kept, len(rest))
        return kept


def no_extrinsic(number: int, index: int) -> str:
    return f"Extrinsic {number}-{index} not found."


def _at(block: Block, rest: bytes) -> bytes:
    """`rest` is an object without its opening brace."""
    return b'{"block":' + orjson.dumps(block.ref()) + b"," + rest


def _neurons(neurons: Iterable[Neuron]) -> bytes:
    return orjson.dumps({"neurons": {one.hotkey: one.body() for one in neurons}})[1:]


def _validators(neurons: Iterable[Neuron]) -> bytes:
    ranked = sorted((one for one in neurons if one.validator_permit), key=lambda one: (-one.stake_total, one.uid))
    return orjson.dumps({"validators": [one.body() for one in ranked]})[1:]


def _commitments(found: Iterable[Commitment]) -> bytes:
    return orjson.dumps({"commitments": {one.hotkey: _hex(one) for one in found}})[1:]


def _hex(commitment: Commitment) -> str:
    return f"0x{commitment.data.hex()}"


def _encode(value: dict[str, Any]) -> bytes:
    """An extrinsic may hold integers of 128 bits or text that is no UTF-8, which orjson refuses."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
