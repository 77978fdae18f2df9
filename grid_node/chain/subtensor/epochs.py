"""Weights sealed until their epoch is over: commit-reveal version 4.

`bittensor_drand.get_encrypted_commit_v2` seals them for a round of the drand beacon that it works out from the epoch's
state on the chain, by subtensor's own schedule (pallet subtensor, `tempo_control.rs`).
"""

from collections.abc import Sequence
from typing import Any

import bittensor_drand

from grid_node.chain.ports import Block, Hyperparams, WriteRefused
from grid_node.chain.subtensor.node import Node
from grid_node.chain.subtensor.reading import PALLET

SEALED_FOR = 4
"""The commit-reveal version that the library seals for."""
REVEAL_PERIOD_MAX = 10_000
"""Epochs. subtensor allows 100; the library looks at one after the other, and would do so for hours."""
ROUND_MAX = 2**63 - 1
"""More than this no database keeps."""
BLOCK_SECONDS = 12.0
"""Of the public networks; a chain that says otherwise is believed."""
STORED = {
    "LastEpochBlock": "last_epoch_block",
    "PendingEpochAt": "pending_epoch_at",
    "SubnetEpochIndex": "subnet_epoch_index",
    "BlocksSinceLastStep": "blocks_since_last_step",
}
"""Storage items of the pallet, and the arguments that they become."""


def epoch_values(node: Node, netuid: int, block: Block) -> dict[str, int]:
    """The epoch's state at a block. Raises WriteRefused, naming what the runtime lacks."""
    told = node.values(PALLET, list(STORED), [netuid], block.hash)
    missing = [name for name in STORED if not isinstance(told.get(name), int)]
    if missing:
        raise WriteRefused(f"The chain's runtime does not tell {', '.join(missing)}, which sealing weights needs.")
    return {argument: int(told[name]) for name, argument in STORED.items()}


def sealed_weights(
    node: Node, netuid: int, uids: Sequence[int], values: Sequence[int], at: Hyperparams, block: Block, hotkey: bytes
) -> tuple[bytes, int]:
    """The commit, and the drand round that reveals it. Raises WriteRefused."""
    if at.commit_reveal_version != SEALED_FOR:
        raise WriteRefused(f"Commit-reveal version {at.commit_reveal_version} of the chain is not known.")
    if at.reveal_period > REVEAL_PERIOD_MAX:
        raise WriteRefused(f"A reveal period of {at.reveal_period} epochs is none.")
    state = epoch_values(node, netuid, block)
    try:
        commit, reveal_round = bittensor_drand.get_encrypted_commit_v2(
            uids=list(uids),
            weights=list(values),
            version_key=at.weights_version,
            tempo=at.tempo,
            current_block=block.number,
            subnet_reveal_period_epochs=at.reveal_period,
            block_time=block_seconds(node),
            hotkey=hotkey,
            **state,
        )
    except (ValueError, OverflowError) as error:
        raise WriteRefused(f"The weights could not be sealed: {str(error)[:200]}") from None
    if not 0 <= reveal_round <= ROUND_MAX:
        raise WriteRefused(f"The weights would be revealed in round {reveal_round} of drand, which is none.")
    return bytes(commit), int(reveal_round)


def block_seconds(node: Node) -> float:
    """Time between two blocks: twice the least time between two timestamps, as the runtime says it in ms."""
    pallet: Any = node.metadata.get_metadata_pallet("Timestamp")
    told = next((item for item in (pallet.constants or []) if item.value["name"] == "MinimumPeriod"), None)
    if told is None:
        return BLOCK_SECONDS
    milliseconds = 2 * int.from_bytes(bytes(told.constant_value), "little")
    return milliseconds / 1000 if milliseconds else BLOCK_SECONDS
