"""Stable radix sort of 32- and 64-bit keys, and the order in which splats are kept in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from grid_node.scoring.cloud import SplatCloud

DIGIT_BITS = 11
MORTON_BITS = 16

Order = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def radix_order(keys: Any, bits: int) -> Any:
    """Indices (int32) that sort unsigned keys of `bits` bits; equal keys keep their order."""
    count = len(keys)
    order = np.arange(count).astype(np.int32)
    other = np.empty(count, np.int32)
    mask = (1 << DIGIT_BITS) - 1
    for shift in range(0, bits, DIGIT_BITS):
        starts = np.zeros(mask + 2, np.int64)
        for i in range(count):
            starts[((keys[i] >> shift) & mask) + 1] += 1
        if starts.max() == count:
            continue  # one digit for all: nothing to move
        for digit in range(mask):
            starts[digit + 1] += starts[digit]
        for i in range(count):
            item = order[i]
            digit = (keys[item] >> shift) & mask
            other[starts[digit]] = item
            starts[digit] += 1
        order, other = other, order
    return order


def float_keys(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Unsigned keys that sort like the floats (no NaN), -0 like 0."""
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0)).view(np.uint32)
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, ~bits, bits | sign)


def canonical(cloud: SplatCloud) -> SplatCloud:
    """The same splats in an order that follows from the set alone: along a Morton curve, ties by a hash.

    A score therefore cannot depend on the order in the file, and neighbours in space are neighbours in memory.
    """
    order = radix_order(_cell_keys(cloud.centers) | _row_hash(cloud), 64)
    return cloud.take(order)


def _cell_keys(centers: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Interleaved 16-bit cell numbers in the robust box of the centres, in the upper 48 bits."""
    low, high = np.quantile(centers, (0.005, 0.995), axis=0)
    side = max(float((high - low).max()), 1e-12)
    steps = (1 << MORTON_BITS) - 1
    cells = np.clip((centers - low) / side * steps, 0, steps).astype(np.uint64)
    keys = np.zeros(len(centers), np.uint64)
    for axis in range(3):
        keys |= _spread(cells[:, axis]) << np.uint64(axis + 16)
    return keys


def _spread(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Put two zero bits between the 16 bits of each value."""
    for shift, mask in ((16, 0xFF0000FF), (8, 0xF00F00F00F), (4, 0xC30C30C30C3), (2, 0x249249249249)):
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values


def _row_hash(cloud: SplatCloud) -> npt.NDArray[np.uint64]:
    """16 bits of a hash over all numbers of each splat."""
    mixed = np.zeros(len(cloud), np.uint32)
    for array in (cloud.centers, cloud.f_dc, cloud.opacity[:, None], cloud.log_scales, cloud.rotations):
        for column in array.T:
            mixed = (mixed ^ np.ascontiguousarray(column).view(np.uint32)) * np.uint32(0x9E3779B1)
            mixed ^= mixed >> np.uint32(15)
    return mixed.astype(np.uint64) >> np.uint64(16)
