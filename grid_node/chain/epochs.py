"""Epochs of a subnet, and the arithmetic of weights.

An epoch is `tempo + 1` blocks long and shifted by the subnet's number, as in subtensor's `blocks_until_next_epoch`
(pallet `subtensor`, `coinbase/run_coinbase.rs`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from grid_node.chain.ports import U16

RETRY_CAP = 10
"""The longest pause between two attempts, in units of the first."""


class Epoch(NamedTuple):
    """The blocks `start` to `end - 1`. Weights that land at `end` count for the next one."""

    start: int
    end: int

    def body(self) -> dict[str, int]:
        return {"start": self.start, "end": self.end}


def epoch_of(block: int, netuid: int, tempo: int) -> Epoch:
    """The epoch that holds block number `block`. The first one may start below block 0: it is shorter."""
    length = tempo + 1
    following = block + tempo - (block + netuid + 1) % length
    if following == block:
        return Epoch(block, block + length)
    return Epoch(following - length, following)


def automatic_window(epoch: Epoch, start_offset: int, end_buffer: int) -> range:
    """The blocks in which automatic weights are sent: late enough for scores to have come in, early enough to land.

    `start_offset` and `end_buffer` are blocks; a short epoch gets half and a tenth of its tempo instead.
    """
    tempo = epoch.end - epoch.start - 1
    return range(epoch.start + min(start_offset, tempo // 2), epoch.end - min(end_buffer, tempo // 10))


def retry_delay(attempt: int, base: float) -> float:
    """Seconds between failed attempt number `attempt`, counted from 1, and the next: base x 1, 2, 4, 8, 10, 10, .."""
    return base * min(2 ** min(attempt - 1, RETRY_CAP), RETRY_CAP)


def to_u16(weights: Sequence[float]) -> list[int]:
    """Weights, finite and none below 0, as the chain takes them: the largest becomes 65535; zeros stay zeros."""
    largest = max(weights, default=0.0)
    if largest <= 0:
        return [0] * len(weights)
    return [round(weight / largest * U16) for weight in weights]
