"""Extrinsics: signed here, sent and watched until they are final, and looked for in the blocks.

The updates of a watched extrinsic are Substrate's `TransactionStatus`, the codes of refusals those of `sc-rpc-api`'s
`author`.
"""

import re
from typing import Any, NamedTuple, cast

from bittensor_wallet import Keypair
from scalecodec import ScaleBytes

from grid_node.chain.ports import (
    Block,
    Landed,
    NodeUnreachable,
    Prepared,
    WriteRefused,
    WriteUncertain,
)
from grid_node.chain.subtensor import decoding
from grid_node.chain.subtensor.calls import Call
from grid_node.chain.subtensor.connection import RpcError
from grid_node.chain.subtensor.node import Node, is_hash
from grid_node.chain.subtensor.reading import extrinsics

ERA_BLOCKS = 8
"""Blocks in which an extrinsic may land, counted from the last final one when it was signed. A power of two."""
REFUSALS = frozenset((1001, 1002, 1010, 1011, 1014, 1015, 1016, 1017, 1018, 1019, 1020, -32600, -32601, -32602))
"""Codes by which a node says that it did not take an extrinsic. Not among them: 1012 (banned for a while) and 1013
(it has it already), which tell that it saw the same one before."""
LOST = frozenset(("usurped", "dropped", "invalid", "finalitytimeout"))
"""Updates after which this node tells no more. Others may have the extrinsic, and include it."""
CUSTOM = re.compile(r"Custom error: (\d+)")
CUSTOM_ERRORS = {
    3: "SubnetNotExists",
    4: "HotkeyAccountDoesntExist",
    5: "NotEnoughStake",
    6: "RateLimitExceeded",
    10: "HotKeyNotRegisteredInNetwork",
    11: "InvalidIpAddress",
    12: "ServingRateLimitExceeded",
    13: "InvalidPort",
    15: "InvalidRevealRound",
    18: "InputLengthsUnequal",
    19: "UidNotFound",
}
"""subtensor's `CustomTransactionError`, as far as it is about the calls that the node makes."""
REASON_MAX = 200
"""Characters of the node's own words that are passed on."""


class Payload(NamedTuple):
    """What `submit` needs of a prepared extrinsic."""

    operation: str
    netuid: int
    hotkey: str
    extrinsic: bytes


def prepare(node: Node, keypair: Keypair, netuid: int, call: Call, head: Block, final: int) -> Prepared:
    """Sign for the nonce at `head` and the era that starts with block `final`. Raises WriteRefused.

    The nonce is that of the state, not of the node's pool: two extrinsics of one hotkey that are on their way at the
    same time have the same nonce, so that only one of them can ever land.
    """
    nonce = int(node.value("System", "Account", [keypair.ss58_address], head.hash)["nonce"])
    if not has_call(node, call.module, call.function):
        raise WriteRefused(f"The chain's runtime has no call {call.module}.{call.function}.")
    composed = node.compose_call(call.module, call.function, call.params, block_hash=head.hash)
    signed = node.create_signed_extrinsic(composed, keypair, era={"period": ERA_BLOCKS, "current": final}, nonce=nonce)
    raw = bytes(cast(ScaleBytes, signed.data).data)
    return Prepared(
        extrinsic_hash=decoding.extrinsic_hash(raw),
        nonce=nonce,
        era_start=final,
        era_end=final + ERA_BLOCKS,
        reveal_round=call.reveal_round,
        payload=Payload(call.operation, netuid, str(keypair.ss58_address), raw),
    )


def has_call(node: Node, module: str, function: str) -> bool:
    return any(
        call.name == function
        for pallet in node.metadata.pallets
        if pallet.name == module
        for call in pallet.calls or []
    )


def send(node: Node, prepared: Prepared) -> str:
    """Send and watch; the hash of the final block that it is in. Raises WriteRefused, WriteUncertain."""
    node.ready()
    try:
        watch = node.connection.call("author_submitAndWatchExtrinsic", ["0x" + prepared.payload.extrinsic.hex()])
        while True:
            name, detail = status(node.connection.update(watch))
            if name == "finalized" and is_hash(detail):
                return str(detail)
            if name in LOST:
                raise WriteUncertain(f"The chain node lost sight of the extrinsic: {name}.")
    except RpcError as error:
        raise refusal(error) from None
    except NodeUnreachable as error:
        raise WriteUncertain(f"Sent, and no word of what became of it: {error}.") from None


def status(told: Any) -> tuple[str, Any]:
    """Name in lower case, and what comes with it: the hash of a block, mostly."""
    if isinstance(told, dict) and len(told) == 1:
        name, detail = next(iter(told.items()))
        return str(name).lower(), detail
    return str(told).lower(), None


def refusal(error: RpcError) -> WriteRefused | WriteUncertain:
    told = readable(error.message)
    if (custom := CUSTOM.search(told)) and (name := CUSTOM_ERRORS.get(int(custom[1]))):
        told = f"{told} ({name})"
    if error.code in REFUSALS:
        return WriteRefused(f"The chain node refused it: {told}")
    return WriteUncertain(f"The chain node gave no clear answer: {told}")


def readable(text: str) -> str:
    """A node's words on one line, of bounded length."""
    return "".join(char if char.isprintable() else " " for char in text[:REASON_MAX]).strip()


def landed(node: Node, block: Block, extrinsic_hash: str) -> Landed | None:
    """How the extrinsic with this hash fared in a block; None: it is not in there. Raises BlockUnknown."""
    for index, raw in enumerate(extrinsics(node, block)):
        if decoding.extrinsic_hash(raw) == extrinsic_hash:
            events = node.value("System", "Events", [], block.hash)
            error = decoding.failure(events, index)
            return Landed(block, extrinsic_hash, None if error is None else error_text(node, error))
    return None


def error_text(node: Node, error: Any) -> str:
    """`SubtensorModule.NotEnoughStakeToSetWeights`, or the words of an error that is no pallet's."""
    told = decoding.module_error(error)
    if told is None:
        return readable(decoding.words(error))
    pallet, number = told
    try:
        name = node.metadata.get_module_error(module_index=pallet, error_index=number).name
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return f"error {number} of pallet {pallet}"
    return readable(f"{pallet_name(node, pallet)}{name}")


def pallet_name(node: Node, index: int) -> str:
    return next((f"{pallet.name}." for pallet in node.metadata.pallets if pallet.value.get("index") == index), "")
