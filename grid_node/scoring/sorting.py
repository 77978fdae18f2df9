"""Stable radix sort of 32- and 64-bit keys, and the order in which splats are kept in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from grid_node.scoring.cloud import SplatCloud, robust_box

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
    low, high = robust_box(cloud.centers)
    cells_per_unit = ((1 << MORTON_BITS) - 1) / max(float((high - low).max()), 1e-12)
    rows = np.concatenate(
        (cloud.centers, cloud.f_dc, cloud.opacity[:, None], cloud.log_scales, cloud.rotations), axis=1
    )
    keys = _cells(cloud.centers, low, cells_per_unit) | _hashes(rows.view(np.uint32))
    return cloud.take(radix_order(keys, 64))


@njit(cache=True, nogil=True)
def _cells(centers: Any, low: Any, cells_per_unit: float) -> Any:
    """Interleaved 16-bit cell numbers in the robust box of the centres, in the upper 48 bits."""
    last = (1 << MORTON_BITS) - 1
    keys = np.empty(len(centers), np.uint64)
    for i in range(len(centers)):
        key = np.uint64(0)
        for axis in range(3):
            place = (np.float64(centers[i, axis]) - low[axis]) * cells_per_unit
            key |= _spread(np.uint64(min(float(last), max(0.0, place)))) << np.uint64(axis + 16)
        keys[i] = key
    return keys


@njit(cache=True, nogil=True)
def _spread(value: Any) -> Any:
    """Two zero bits between the 16 bits of a number."""
    value = (value | (value << np.uint64(16))) & np.uint64(0xFF0000FF)
    value = (value | (value << np.uint64(8))) & np.uint64(0xF00F00F00F)
    value = (value | (value << np.uint64(4))) & np.uint64(0xC30C30C30C3)
    return (value | (value << np.uint64(2))) & np.uint64(0x249249249249)


@njit(cache=True, nogil=True)
def _hashes(rows: Any) -> Any:
    """16 bits of a hash over the words of each row."""
    hashes = np.empty(len(rows), np.uint64)
    for i in range(len(rows)):
        mixed = np.uint64(0)
        for word in rows[i]:
            mixed = (mixed ^ np.uint64(word)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        hashes[i] = mixed >> np.uint64(48)
    return hashes
