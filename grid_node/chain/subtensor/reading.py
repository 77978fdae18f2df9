"""What a subtensor's runtime is asked about a subnet, at one block. The runtime of the block is in use already."""

from typing import Any, cast

from scalecodec import ScaleBytes

from grid_node import ss58
from grid_node.chain.ports import Block, BlockUnknown, Certificate, Commitment, Hyperparams, SubnetUnknown
from grid_node.chain.subtensor import decoding
from grid_node.chain.subtensor.node import Node, unhex

PALLET = "SubtensorModule"
COMMIT_REVEAL_VERSION = 4
"""Of a runtime that does not say which one it has."""
HYPERPARAMS = ["NetworksAdded", "Tempo", "CommitRevealWeightsEnabled", "RevealPeriodEpochs", "WeightsVersionKey"]


def neurons_lite(node: Node, netuid: int, block: Block) -> list[dict[str, Any]]:
    """[] for a subnet that is not there, too."""
    told: list[dict[str, Any]] = node.call_api("NeuronInfoRuntimeApi", "get_neurons_lite", [netuid], block.hash)
    return told


def subnet_state(node: Node, netuid: int, block: Block) -> dict[str, Any]:
    """Raises SubnetUnknown."""
    told: dict[str, Any] | None = node.call_api("SubnetInfoRuntimeApi", "get_subnet_state", [netuid], block.hash)
    if told is None:
        raise unknown(netuid)
    return told


def hyperparams(node: Node, netuid: int, block: Block) -> Hyperparams:
    """Raises SubnetUnknown."""
    told = node.values(PALLET, HYPERPARAMS, [netuid], block.hash)
    if not told["NetworksAdded"]:
        raise unknown(netuid)
    version = COMMIT_REVEAL_VERSION
    if node.has_storage(PALLET, "CommitRevealWeightsVersion"):
        version = int(node.value(PALLET, "CommitRevealWeightsVersion", [], block.hash))
    return Hyperparams(
        tempo=int(told["Tempo"]),
        commit_reveal=bool(told.get("CommitRevealWeightsEnabled", False)),
        commit_reveal_version=version,
        reveal_period=int(told.get("RevealPeriodEpochs", 1)),
        weights_version=int(told["WeightsVersionKey"]),
    )


def commitments(node: Node, netuid: int, block: Block) -> list[Commitment]:
    """Those that hold plain bytes (see decoding.commitment), by hotkey. Raises SubnetUnknown."""
    expect_subnet(node, netuid, block)
    rows = node.rows("Commitments", "CommitmentOf", [netuid], block.hash)
    told = node.decode_many("Commitments", "CommitmentOf", [value for _, value in rows])
    hotkeys = [decoding.account_of(key) for key, _ in rows]
    found = [decoding.commitment(hotkey, value) for hotkey, value in zip(hotkeys, told, strict=True)]
    return sorted((one for one in found if one is not None), key=lambda one: one.hotkey)


def commitment(node: Node, netuid: int, hotkey: str, block: Block) -> Commitment | None:
    """Raises SubnetUnknown."""
    raw = row(node, "Commitments", "CommitmentOf", netuid, hotkey, block)
    return (
        None if raw is None else decoding.commitment(hotkey, node.decode_many("Commitments", "CommitmentOf", [raw])[0])
    )


def certificates(node: Node, netuid: int, block: Block) -> dict[str, Certificate]:
    """By hotkey, and in that order. Raises SubnetUnknown."""
    expect_subnet(node, netuid, block)
    rows = node.rows(PALLET, "NeuronCertificates", [netuid], block.hash)
    found = {decoding.account_of(key): decoding.certificate(value) for key, value in rows}
    return dict(sorted(found.items()))


def certificate(node: Node, netuid: int, hotkey: str, block: Block) -> Certificate | None:
    """Raises SubnetUnknown."""
    raw = row(node, PALLET, "NeuronCertificates", netuid, hotkey, block)
    return None if raw is None else decoding.certificate(raw)


def row(node: Node, pallet: str, name: str, netuid: int, hotkey: str, block: Block) -> bytes | None:
    """What is stored under a subnet and a hotkey; None also for what is no hotkey. Raises SubnetUnknown."""
    expect_subnet(node, netuid, block)
    return node.raw(pallet, name, [netuid, hotkey], block.hash) if is_account(hotkey) else None


def expect_subnet(node: Node, netuid: int, block: Block) -> None:
    """Raises SubnetUnknown."""
    if not node.value(PALLET, "NetworksAdded", [netuid], block.hash):
        raise unknown(netuid)


def unknown(netuid: int) -> SubnetUnknown:
    return SubnetUnknown(f"Subnet {netuid} not found.")


def extrinsics(node: Node, block: Block) -> list[bytes]:
    """Of a block, in their order, as they were sent. Raises BlockUnknown."""
    told = node.ask("chain_getBlock", block.hash)
    if told is None:
        raise BlockUnknown(f"Block {block.number} not found.")
    return [unhex(text) for text in told["block"]["extrinsics"]]


def extrinsic(node: Node, block: Block, index: int) -> dict[str, Any] | None:
    """As in Pylon's answer; None: the block has fewer. Raises BlockUnknown."""
    found = extrinsics(node, block)
    if not 0 <= index < len(found):
        return None
    decoder = node.runtime_config.create_scale_object(
        "Extrinsic", data=ScaleBytes(found[index]), metadata=node.metadata
    )
    decoder.decode(check_remaining=True)
    return decoding.extrinsic(block.number, index, found[index], cast(dict[str, Any], decoder.value))


def is_account(hotkey: str) -> bool:
    """Whether it is SS58 of the prefix that Bittensor uses."""
    try:
        ss58.decode(hotkey)
    except ValueError:
        return False
    return True
