"""3D Gaussian splat PLY (Kerbl et al. 2023), `binary_little_endian 1.0` only: reader and writer.

The reader believes nothing: the header is short, every count is checked against the limits and the size of the file
before an array is made, and the body is taken in slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from grid_node.scoring.cloud import Floats, SplatCloud, logit_of_opacity, opacity_of_logit
from grid_node.scoring.port import InvalidAsset

MAX_HEADER_BYTES = 8_192
MAX_HEADER_LINES = 128
SLICE_ROWS = 65_536
STORED_LOGIT_CUT = 6.23
"""Largest logit in a stored PLY: the logit of alpha 254.5/255, so alpha 255 reads back as 255."""

REQUIRED = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
ALLOWED = frozenset(REQUIRED) | {"nx", "ny", "nz"} | {f"f_rest_{k}" for k in range(45)}


@dataclass(frozen=True, slots=True)
class _Header:
    count: int
    properties: tuple[str, ...]
    size: int  # bytes, the body starts here


def read_ply(file: BinaryIO, size: int, *, min_splats: int, max_splats: int) -> SplatCloud:
    """Read a file of `size` bytes from its start; raises InvalidAsset."""
    header = _read_header(file)
    if header.count > max_splats:
        raise InvalidAsset("too_many_splats", f"{header.count} splats, at most {max_splats}")
    if header.count < min_splats:
        raise InvalidAsset("too_few_splats", f"{header.count} splats, at least {min_splats}")
    _check_properties(header.properties)
    body = header.count * 4 * len(header.properties)
    if size - header.size < body:
        raise InvalidAsset("truncated", f"{size - header.size} of {body} bytes of splats")
    if size - header.size > body:
        raise InvalidAsset("trailing_data", f"{size - header.size - body} bytes after the last splat")
    file.seek(header.size)
    return _cloud(_read_rows(file, header))


def _read_header(file: BinaryIO) -> _Header:
    file.seek(0)
    block = file.read(MAX_HEADER_BYTES)
    ending = b"\r\n" if block.startswith(b"ply\r\n") else b"\n"
    lines: list[str] = []
    start = 0
    while len(lines) < MAX_HEADER_LINES:
        stop = block.find(ending, start)
        if stop < 0:
            break
        try:
            lines.append(block[start:stop].decode("ascii"))
        except UnicodeDecodeError:
            break
        start = stop + len(ending)
        if lines[-1] == "end_header":
            count, properties = _parse_header(lines[1:-1])
            return _Header(count, properties, start)
    raise InvalidAsset("bad_header", "no end_header within 8 KiB and 128 lines of ASCII")


def _parse_header(lines: list[str]) -> tuple[int, tuple[str, ...]]:
    """Count and property names of the header lines between `ply` and `end_header`."""
    rows = [line.split() for line in lines]
    rows = [row for row in rows if not row or row[0] not in ("comment", "obj_info")]
    if not rows or len(rows[0]) != 3 or rows[0][0] != "format":
        raise InvalidAsset("bad_header", "the second line must state the format")
    if rows[0][1:] != ["binary_little_endian", "1.0"]:
        raise InvalidAsset("unsupported_version", "only binary_little_endian 1.0 is read")
    if len(rows) < 2 or len(rows[1]) != 3 or rows[1][:2] != ["element", "vertex"]:
        raise InvalidAsset("bad_header", "the first element must be `element vertex N`")
    return _parse_count(rows[1][2]), tuple(_parse_property(row) for row in rows[2:])


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidAsset("bad_header", "the number of splats is not a whole number")
    return int(text)


def _parse_property(row: list[str]) -> str:
    if len(row) != 3 or row[0] != "property" or row[1] not in ("float", "float32"):
        raise InvalidAsset("bad_header", "only `property float NAME` may follow the one element")
    return row[2]


def _check_properties(names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise InvalidAsset("bad_header", "a property is named twice")
    for name in names:
        if name not in ALLOWED:
            raise InvalidAsset("unknown_property", name[:40])
    for name in REQUIRED:
        if name not in names:
            raise InvalidAsset("missing_property", name)


def _read_rows(file: BinaryIO, header: _Header) -> Floats:
    """The required columns (N, 14) in the order of REQUIRED, read slice by slice."""
    width = len(header.properties)
    columns = [header.properties.index(name) for name in REQUIRED]
    opacity = header.properties.index("opacity")
    rows = np.empty((header.count, len(REQUIRED)), np.float32)
    for start in range(0, header.count, SLICE_ROWS):
        stop = min(start + SLICE_ROWS, header.count)
        data = file.read((stop - start) * width * 4)
        if len(data) != (stop - start) * width * 4:
            raise InvalidAsset("truncated", "the file ends within the splats")
        block = np.frombuffer(data, "<f4").reshape(-1, width)
        _check_finite(block, opacity)
        rows[start:stop] = block[:, columns]
    return rows


def _check_finite(block: Floats, opacity: int) -> None:
    finite = np.isfinite(block)
    finite[:, opacity] = ~np.isnan(block[:, opacity])
    if not finite.all():
        raise InvalidAsset("non_finite", "NaN, or an infinity outside opacity")


def _cloud(rows: Floats) -> SplatCloud:
    return SplatCloud(
        centers=np.ascontiguousarray(rows[:, 0:3]),
        f_dc=np.ascontiguousarray(rows[:, 3:6]),
        opacity=opacity_of_logit(rows[:, 6]),
        log_scales=np.ascontiguousarray(rows[:, 7:10]),
        rotations=np.ascontiguousarray(rows[:, 10:14]),
    )


def write_ply(file: BinaryIO, cloud: SplatCloud) -> None:
    """Write the stored form: the 14 properties in the order of REQUIRED, logits cut to ±6.23."""
    names = "".join(f"property float {name}\n" for name in REQUIRED)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(cloud)}\n{names}end_header\n"
    file.write(head.encode("ascii"))
    logits = logit_of_opacity(cloud.opacity, STORED_LOGIT_CUT)[:, None]
    for start in range(0, len(cloud), SLICE_ROWS):
        part = slice(start, start + SLICE_ROWS)
        columns = (
            cloud.centers[part],
            cloud.f_dc[part],
            logits[part],
            cloud.log_scales[part],
            cloud.rotations[part],
        )
        file.write(np.concatenate(columns, axis=1).astype("<f4").tobytes())
