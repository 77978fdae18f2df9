"""From a file to a valid cloud of splats: detection by first bytes, limits, hard validity."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.ply import read_ply
from grid_node.scoring.port import InvalidAsset
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.spz import read_gzip_spz, read_zstd_spz

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC = b"\x1f\x8b"
SPZ4_MAGIC = b"NGSP"


def detect_format(head: bytes) -> str:
    """`ply` or `spz` of a file's first 5 bytes; raises InvalidAsset."""
    if head.startswith((b"ply\n", b"ply\r\n")):
        return "ply"
    if head.startswith((ZSTD_MAGIC, GZIP_MAGIC)):
        return "spz"
    if head.startswith(SPZ4_MAGIC):
        raise InvalidAsset("unsupported_version", "SPZ 4 is not read; send SPZ 2 or 3, or PLY")
    raise InvalidAsset("unknown_format", "neither a PLY nor an SPZ")


def read_asset(path: Path, said_format: str, settings: ScoringSettings) -> SplatCloud:
    """Read the splats of a file that was submitted as `said_format`; raises InvalidAsset."""
    with path.open("rb") as file:
        return read_splats(file, path.stat().st_size, said_format, settings)


def read_splats(file: BinaryIO, size: int, said_format: str, settings: ScoringSettings) -> SplatCloud:
    """The same from an open file of `size` bytes."""
    if size > settings.max_bytes:
        raise InvalidAsset("too_large", f"{size} bytes, at most {settings.max_bytes}")
    head = file.read(5)
    found = detect_format(head)
    if found != said_format:
        raise InvalidAsset("format_mismatch", f"the file is {found}, not {said_format}")
    splats = {"min_splats": settings.min_splats, "max_splats": settings.max_splats}
    if found == "ply":
        return read_ply(file, size, **splats)
    if head.startswith(ZSTD_MAGIC):
        return read_zstd_spz(file, **splats)
    return read_gzip_spz(file, **splats)
