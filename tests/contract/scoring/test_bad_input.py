"""Hostile files against the whole scorer in a process of its own: the reason, and how far memory grew."""

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard

ROOT = Path(__file__).parents[3]
MAX_GROWTH_MIB = 8

PROGRAM = """
import json, resource, sys
from pathlib import Path
from grid_node.scoring.port import InvalidAsset, ScoreTask
from grid_node.scoring.splats import SplatScorer
scorer = SplatScorer()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
answers = {}
for path in [Path(sys.argv[1]) / "first.spz", *sorted(Path(sys.argv[1]).iterdir())]:
    before = peak()
    try:
        scorer.score(path, ScoreTask("t", "", 1, "text_to_3d", path.suffix[1:]))
        reason = "read"
    except InvalidAsset as error:
        reason = error.reason
    answers[path.stem] = [reason, peak() - before]
print(json.dumps(answers))
"""


def spz_header(count: int) -> bytes:
    return struct.pack("<IIIBBBB", 0x5053474E, 2, count, 0, 12, 0, 0)


def zst(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def endless_zstd(head: bytes) -> bytes:
    """A frame of run-length blocks that never says which is the last."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x58])  # window of 2 MiB, no content size
    raw = struct.pack("<I", len(head) << 3)[:3] + head
    runs = struct.pack("<I", (131_072 << 3) | 2)[:3] + b"\0"
    return frame + raw + runs * 5_000


BOMB = bytes(1 << 30)

FILES = {
    "first.spz": (b"\x1f\x8b", "truncated"),
    "bomb_zstd.spz": (lambda: zst(BOMB), "bad_header"),
    "bomb_gzip.spz": (lambda: gzip.compress(BOMB[: 1 << 27], 9), "bad_header"),
    "bomb_zstd_with_header.spz": (lambda: zst(spz_header(7_000) + BOMB[: 1 << 29]), "trailing_data"),
    "bomb_gzip_with_header.spz": (lambda: gzip.compress(spz_header(7_000) + BOMB[: 1 << 27]), "trailing_data"),
    "endless.spz": (lambda: endless_zstd(spz_header(7_000)), "trailing_data"),
    "lying_content_size.spz": (
        lambda: zst(spz_header(2_000_000), write_content_size=True),
        "truncated",
    ),
    "too_many.spz": (lambda: zst(spz_header(2_000_001)), "too_many_splats"),
    "too_few.spz": (lambda: zst(spz_header(6_999)), "too_few_splats"),
    "huge_gzip_name.spz": (lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (32 << 20), "truncated"),
    "long_header.ply": (lambda: b"ply\n" + b"comment x\n" * 3_000_000, "bad_header"),
    "no_newline.ply": (lambda: b"ply\n" + b"x" * (32 << 20), "bad_header"),
    "zeros.ply": (lambda: b"\0" * (32 << 20), "unknown_format"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data() if callable(data) else data)
    (folder / "over_the_limit.ply").touch()
    with (folder / "over_the_limit.ply").open("r+b") as file:
        file.truncate(134_217_729)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*FILES, "over_the_limit.ply"])
def test_a_hostile_file_is_refused_without_growing(answers, name):
    reason, growth_mib = answers[Path(name).stem]

    assert reason == (FILES[name][1] if name in FILES else "too_large")
    assert growth_mib < MAX_GROWTH_MIB


def test_a_bomb_of_30_kilobytes_really_is_one():
    assert len(zst(BOMB[: 1 << 28])) < 30_538
    assert np.frombuffer(gzip.compress(BOMB[: 1 << 20]), np.uint8).size < 2_000
