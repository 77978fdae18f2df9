"""SPZ: 404-GEN's zstd form (version 2) and Niantic's gzip form (versions 2 and 3) of the same layout.

The 16-byte header is decompressed alone, the size of the rest follows from its checked numbers, and the body is drawn
in slices up to one byte more than that: a bomb dies there, whatever it unpacks to.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard

from grid_node.scoring.cloud import Floats, SplatCloud, robust_box
from grid_node.scoring.inflate import ByteSource, open_gzip, open_zstd
from grid_node.scoring.port import InvalidAsset

MAGIC = 0x5053474E
HEADER = struct.Struct("<IIIBBBB")
FLAG_ANTIALIASED = 1
FLAG_EXTENSIONS = 2
MAX_FRACTION_BITS = 23
USUAL_FRACTION_BITS = 12
SH_BYTES = (0, 9, 24, 45)
"""Bytes a splat of spherical harmonics above degree 0, by degree."""
ROTATION_BYTES = {2: 3, 3: 4}
COLOR_SCALE = 0.15
SLICE_BYTES = 1 << 20
ZSTD_LEVEL = 3

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    count: int
    degree: int
    fraction_bits: int

    @property
    def body_bytes(self) -> int:
        return self.count * (9 + 1 + 3 + 3 + ROTATION_BYTES[self.version] + SH_BYTES[self.degree])


def read_zstd_spz(file: BinaryIO, *, min_splats: int, max_splats: int) -> SplatCloud:
    """Read a 404-GEN SPZ from its start; raises InvalidAsset."""
    with open_zstd(file) as source:
        return _read(source, versions=(2,), min_splats=min_splats, max_splats=max_splats)


def read_gzip_spz(file: BinaryIO, *, min_splats: int, max_splats: int) -> SplatCloud:
    """Read a Niantic SPZ from its start; raises InvalidAsset."""
    source = open_gzip(file)
    return _read(source, versions=(2, 3), min_splats=min_splats, max_splats=max_splats)


def _read(source: ByteSource, *, versions: tuple[int, ...], min_splats: int, max_splats: int) -> SplatCloud:
    header = _parse_header(source.draw(HEADER.size), versions)
    if header.count > max_splats:
        raise InvalidAsset("too_many_splats", f"{header.count} splats, at most {max_splats}")
    if header.count < min_splats:
        raise InvalidAsset("too_few_splats", f"{header.count} splats, at least {min_splats}")
    body = _draw_body(source, header.body_bytes)
    source.finish()
    return _decode(body, header)


def _parse_header(data: bytes, versions: tuple[int, ...]) -> _Header:
    if len(data) < HEADER.size:
        raise InvalidAsset("truncated", "shorter than the header")
    magic, version, count, degree, fraction_bits, flags, _ = HEADER.unpack(data)
    if magic != MAGIC:
        raise InvalidAsset("bad_header", "no SPZ magic inside the compressed frame")
    if version not in versions:
        raise InvalidAsset("unsupported_version", f"SPZ version {version} in this compression")
    if flags & FLAG_EXTENSIONS:
        raise InvalidAsset("unsupported_extension", "SPZ extensions are not read")
    if degree >= len(SH_BYTES) or fraction_bits > MAX_FRACTION_BITS or flags & ~FLAG_ANTIALIASED:
        raise InvalidAsset("bad_header", "degree, fraction bits or flags out of range")
    return _Header(version, count, degree, fraction_bits)


def _draw_body(source: ByteSource, size: int) -> Bytes:
    """Exactly `size` bytes; memory is touched only as bytes arrive."""
    body = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        piece = source.draw(min(SLICE_BYTES, size - filled))
        if not piece:
            raise InvalidAsset("truncated", f"{filled} of {size} bytes of splats")
        body[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if source.draw(1):
        raise InvalidAsset("trailing_data", f"more than {size} bytes of splats")
    return body


def _decode(body: Bytes, header: _Header) -> SplatCloud:
    count = header.count
    ends = np.cumsum([9 * count, count, 3 * count, 3 * count, ROTATION_BYTES[header.version] * count])
    positions, alphas, colors, scales, rotations, _ = np.split(body, ends)
    unpack = _smallest_three if header.version == 3 else _first_three
    return SplatCloud(
        centers=_fixed_point(positions.reshape(count, 3, 3), header.fraction_bits),
        f_dc=_affine(colors, 1 / (255 * COLOR_SCALE), -0.5 / COLOR_SCALE).reshape(count, 3),
        opacity=_affine(alphas, 1 / 255, 0.0),
        log_scales=_affine(scales, 1 / 16, -10.0).reshape(count, 3),
        rotations=unpack(rotations.reshape(count, -1)),
    )


def _affine(data: Bytes, factor: float, shift: float) -> Floats:
    return (data * factor + shift).astype(np.float32)


def _fixed_point(data: Bytes, fraction_bits: int) -> Floats:
    """(N, 3, 3) bytes of 24-bit signed numbers, little-endian -> (N, 3)."""
    wide = np.zeros((*data.shape[:2], 4), np.uint8)
    wide[..., 1:] = data  # the top byte carries the sign
    whole = wide.view("<i4")[..., 0] >> 8
    return whole.astype(np.float32) / np.float32(1 << fraction_bits)


def _first_three(data: Bytes) -> Floats:
    """Version 2: x, y, z in a byte each, w >= 0 follows from the unit length."""
    rotations = np.empty((len(data), 4), np.float32)
    rotations[:, 1:] = data.astype(np.float32) / 127.5 - 1
    squares = np.einsum("ij,ij->i", rotations[:, 1:], rotations[:, 1:])
    rotations[:, 0] = np.sqrt(np.maximum(0, 1 - squares))
    return rotations


def _smallest_three(data: Bytes) -> Floats:
    """Version 3: 2 bits name the largest of x, y, z, w; the others take sign and 9 bits, the last one lowest."""
    packed = np.ascontiguousarray(data).view("<u4")[:, 0].copy()
    largest = (packed >> 30).astype(np.int64)
    xyzw = np.zeros((len(data), 4), np.float32)
    for part in (3, 2, 1, 0):
        here = largest != part
        size = (packed & 511).astype(np.float32) * np.float32(np.sqrt(0.5) / 511)
        xyzw[here, part] = np.where((packed >> 9) & 1, -size, size)[here]
        packed[here] >>= 10
    rest = 1 - np.einsum("ij,ij->i", xyzw, xyzw)
    xyzw[np.arange(len(data)), largest] = np.sqrt(np.maximum(0, rest))
    return xyzw[:, [3, 0, 1, 2]]


def encode_spz(cloud: SplatCloud) -> bytes:
    """The uncompressed version 2 of a cloud, degree 0: header and arrays."""
    bits = _fraction_bits(cloud.centers)
    header = HEADER.pack(MAGIC, 2, len(cloud), 0, bits, 0, 0)
    parts = (
        _to_fixed_point(cloud.centers, bits),
        _to_bytes(cloud.opacity * 255),
        _to_bytes((cloud.f_dc * np.float32(COLOR_SCALE) + 0.5) * 255),
        _to_bytes((cloud.log_scales + 10) * 16),
        _to_bytes((_unit_xyz(cloud.rotations) + 1) * 127.5),
    )
    return header + b"".join(part.tobytes() for part in parts)


def write_spz(file: BinaryIO, cloud: SplatCloud) -> None:
    """Write the stored form: one zstd frame around version 2."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
    file.write(compressor.compress(encode_spz(cloud)))


def _fraction_bits(centers: Floats) -> int:
    """12 as everyone, more for tiny and fewer for huge assets; single far splats do not count."""
    low, high = robust_box(centers)
    side = max(float((high - low).max()), 1e-9)
    reach = max(float(np.abs(low).max()), float(np.abs(high).max()), 1e-9)
    wanted = USUAL_FRACTION_BITS + max(0, int(np.ceil(np.log2(1 / side))))
    fitting = int(np.floor(np.log2((1 << 23) / (2 * reach))))
    return max(0, min(wanted, fitting, MAX_FRACTION_BITS))


def _to_fixed_point(centers: Floats, bits: int) -> Bytes:
    whole = np.rint(centers.astype(np.float64) * (1 << bits))
    inside = np.clip(whole, -(1 << 23), (1 << 23) - 1).astype("<i4")
    return inside.view(np.uint8).reshape(len(centers), 3, 4)[..., :3]


def _to_bytes(values: Floats) -> Bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _unit_xyz(rotations: Floats) -> Floats:
    """x, y, z of the unit quaternions whose w is not negative."""
    norm = np.maximum(np.linalg.norm(rotations, axis=1, keepdims=True), 1e-12)
    sign = np.where(rotations[:, :1] < 0, np.float32(-1), np.float32(1))
    return (rotations[:, 1:] / norm * sign).astype(np.float32)
