"""Gaussian splats in memory and their two file formats.

PLY is the layout of Kerbl et al. 2023 ("3D Gaussian Splatting"), without spherical harmonics above degree 0.
SPZ is Niantic's packed layout (header and arrays of version 2), compressed as 404-GEN does: one zstd frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SH_C0 = 0.28209479177387814
"""First spherical harmonic: colour = 0.5 + SH_C0 * f_dc."""

PLY_PROPERTIES = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
SPZ_MAGIC = 0x5053474E
SPZ_FRACTIONAL_BITS = 12
MEDIA_TYPES = {"ply": "application/octet-stream", "spz": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Splats:
    """N Gaussian splats as float32 arrays.

    centers (N, 3); f_dc (N, 3) degree-0 harmonics; opacity (N,) logit; scales (N, 3) natural logarithms of
    the standard deviations; rotations (N, 4) quaternions w, x, y, z.
    """

    centers: Floats
    f_dc: Floats
    opacity: Floats
    scales: Floats
    rotations: Floats

    def __post_init__(self) -> None:
        n = len(self.centers)
        shapes = {"centers": (n, 3), "f_dc": (n, 3), "opacity": (n,), "scales": (n, 3), "rotations": (n, 4)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} must be float32 {shape}, not {array.dtype} {array.shape}")

    def __len__(self) -> int:
        return len(self.centers)


def encode(splats: Splats, fmt: str) -> bytes:
    """The splats as a file of format `ply` or `spz`."""
    encoders = {"ply": encode_ply, "spz": encode_spz}
    if fmt not in encoders:
        raise ValueError(f"cannot write splats as {fmt!r}; known formats: {', '.join(encoders)}")
    return encoders[fmt](splats)


def encode_ply(splats: Splats) -> bytes:
    """Binary little-endian PLY, 14 float properties, 56 bytes a splat."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(splats)}"]
    header += [f"property float {name}" for name in PLY_PROPERTIES]
    columns = (splats.centers, splats.f_dc, splats.opacity[:, None], splats.scales, splats.rotations)
    body = np.hstack(columns).astype("<f4", copy=False)
    return "\n".join([*header, "end_header", ""]).encode("ascii") + body.tobytes()


def encode_spz(splats: Splats, level: int = 12) -> bytes:
    """SPZ version 2 of degree 0 in one zstd frame, 19 bytes a splat before compression.

    Centres are kept to 1/4096, so they must lie within +-2048. Levels above 19 need a window that readers
    refuse.
    """
    header = struct.pack("<IIIBBBB", SPZ_MAGIC, 2, len(splats), 0, SPZ_FRACTIONAL_BITS, 0, 0)
    arrays = (
        _fixed_point_24(splats.centers),
        _to_bytes(255.0 / (1.0 + np.exp(-splats.opacity.astype(np.float64)))),
        _to_bytes((splats.f_dc * 0.15 + 0.5) * 255.0),
        _to_bytes((splats.scales + 10.0) * 16.0),
        _packed_rotations(splats.rotations),
    )
    return zstandard.ZstdCompressor(level=level).compress(header + b"".join(arrays))


def _to_bytes(values: NDArray[np.floating]) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _fixed_point_24(centers: Floats) -> bytes:
    fixed = np.rint(centers.astype(np.float64) * (1 << SPZ_FRACTIONAL_BITS)).astype(np.int64)
    if fixed.size and np.abs(fixed).max() >= 1 << 23:
        raise ValueError("centres beyond +-2048 do not fit into SPZ; scale the asset down")
    unsigned = (fixed & 0xFFFFFF).astype("<u4")
    return unsigned.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def _packed_rotations(rotations: Floats) -> bytes:
    """x, y, z of the unit quaternion with w >= 0, one byte each."""
    unit = rotations / np.linalg.norm(rotations, axis=1, keepdims=True)
    unit = np.where(unit[:, :1] < 0, -unit, unit)
    return _to_bytes((unit[:, 1:] + 1.0) * 127.5)
