"""Mutated files: the readers answer with a finite cloud or InvalidAsset, nothing else."""

import gzip
import io

import numpy as np
import pytest
import zstandard

from grid_node.scoring import shapes
from grid_node.scoring.assets import read_splats
from grid_node.scoring.ply import write_ply
from grid_node.scoring.port import InvalidAsset
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.spz import encode_spz
from grid_node.scoring.validity import check_valid

ROUNDS = 10_000
LIMITS = ScoringSettings(min_splats=1, max_splats=50)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat or insert, one to four times."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, min(len(out), 700 if rng.random() < 0.7 else len(out)))))
        match rng.integers(0, 6):
            case 0:
                out[at : at + 1] = bytes([out[at] ^ (1 << int(rng.integers(0, 8)))]) if out else b""
            case 1:
                out[at : at + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
            case 2:
                del out[at:]
            case 3:
                out[at:at] = out[at : at + int(rng.integers(1, 80))]
            case 4:
                del out[at : at + int(rng.integers(1, 20))]
            case _:
                out[at : at + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", b"1e99"][int(rng.integers(0, 4))]
    return bytes(out)


def seeds_of() -> list[tuple[str, bytes]]:
    cloud = shapes.build("donut", 20)
    ply = io.BytesIO()
    write_ply(ply, cloud)
    raw = encode_spz(cloud)
    return [
        ("ply", ply.getvalue()),
        ("spz", zstandard.ZstdCompressor(write_checksum=False).compress(raw)),
        ("spz", gzip.compress(raw, mtime=0)),
    ]


def test_ten_thousand_mutated_files_are_read_or_refused():
    rng = np.random.default_rng(404)
    originals = seeds_of()
    raw = encode_spz(shapes.build("donut", 20))
    outcomes: dict[str, int] = {}
    for k in range(ROUNDS):
        if k % 4 == 3:  # mutated inside an intact zstd frame, so that the layout itself is reached
            said, data = "spz", zstandard.ZstdCompressor().compress(mutated(raw, rng))
        else:
            said, original = originals[k % 4]
            data = mutated(original, rng)
        try:
            cloud = read_splats(io.BytesIO(data), len(data), said, LIMITS)
            check_valid(cloud)
        except InvalidAsset as error:
            outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
        else:
            outcomes["read"] = outcomes.get("read", 0) + 1
            assert all(np.isfinite(part).all() for part in (cloud.centers, cloud.opacity, cloud.log_scales))
    assert outcomes["read"] > ROUNDS // 100
    assert len(outcomes) > 8


@pytest.mark.parametrize("size", [0, 1, 4, 15, 16, 64])
def test_noise_after_each_magic_is_refused(size):
    rng = np.random.default_rng(size)
    for magic in (b"ply\n", b"ply\r\n", b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"NGSP"):
        for said in ("ply", "spz"):
            data = magic + rng.integers(0, 256, size, np.uint8).tobytes()
            with pytest.raises(InvalidAsset):
                read_splats(io.BytesIO(data), len(data), said, LIMITS)
