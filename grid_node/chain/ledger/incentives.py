"""What the neurons of a subnet earned at the end of its last epoch.

Nothing is stored: an epoch that ends at block E counts what was so at block E - 1, and history never changes, so
whoever works it out, whenever, finds the same.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grid_node.chain.ports import U16


@dataclass(frozen=True, slots=True)
class Row:
    """The weights of one validator. `stake` is in rao; `block` is the one that they were set in."""

    stake: int
    block: int
    weights: Sequence[tuple[int, int]]
    """Pairs of uid and value."""


def incentives(rows: Sequence[Row], registered: Mapping[int, int]) -> dict[int, int]:
    """Per uid the stake-weighted mean of the normalised rows, normalised to sum 1, as u16 (65535 = 1).

    `registered` is the block in which each uid got its present hotkey: weights that are older were meant for another
    one and do not count. Uids that earned nothing are left out.
    """
    shares: dict[int, list[float]] = {}
    for row in rows:
        weights = [(uid, value) for uid, value in row.weights if registered.get(uid, row.block + 1) <= row.block]
        total = sum(value for _, value in weights)
        for uid, value in weights:
            if value:
                shares.setdefault(uid, []).append(row.stake * (value / total))
    # fsum: the order of the validators leaves no trace
    earned = {uid: math.fsum(parts) for uid, parts in shares.items()}
    whole = math.fsum(earned.values())
    as_u16 = {uid: round(share / whole * U16) for uid, share in earned.items()} if whole > 0 else {}
    return {uid: value for uid, value in as_u16.items() if value}


def pack(uids: Sequence[int], values: Sequence[int]) -> bytes:
    """Pairs of uid and value as unsigned little-endian 16-bit numbers."""
    return struct.pack(f"<{2 * len(uids)}H", *(number for pair in zip(uids, values, strict=True) for number in pair))


def unpack(row: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("<2H", row))
