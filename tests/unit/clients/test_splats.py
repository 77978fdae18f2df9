import struct

import numpy as np
import pytest
import zstandard
from grid_client.splats import PLY_PROPERTIES, SH_C0, Splats, encode, encode_ply, encode_spz

RNG = np.random.default_rng(5)


def cloud(n: int = 300) -> Splats:
    def array(*shape: int) -> np.ndarray:
        return RNG.normal(0, 1, shape).astype(np.float32)

    return Splats(array(n, 3), array(n, 3), array(n), array(n, 3) - 4, array(n, 4))


def test_ply_has_the_fourteen_properties_and_56_bytes_a_splat() -> None:
    splats = cloud(10)
    header, _, body = encode_ply(splats).partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 10"]
    assert lines[3:] == [f"property float {name}" for name in PLY_PROPERTIES]
    rows = np.frombuffer(body, "<f4").reshape(10, 14)
    np.testing.assert_array_equal(rows[:, :3], splats.centers)
    np.testing.assert_array_equal(rows[:, 6], splats.opacity)
    np.testing.assert_array_equal(rows[:, 10:], splats.rotations)


def test_spz_is_one_zstd_frame_of_header_and_19_bytes_a_splat() -> None:
    raw = zstandard.ZstdDecompressor().decompress(encode_spz(cloud(7)))
    assert struct.unpack("<IIIBBBB", raw[:16]) == (0x5053474E, 2, 7, 0, 12, 0, 0)
    assert len(raw) == 16 + 7 * 19


def test_spz_keeps_geometry_within_its_precision() -> None:
    splats = cloud()
    n = len(splats)
    raw = np.frombuffer(zstandard.ZstdDecompressor().decompress(encode_spz(splats)), np.uint8)[16:]
    parts = np.split(raw, np.cumsum([9 * n, n, 3 * n, 3 * n]))
    low, middle, high = parts[0].reshape(n, 3, 3).astype(np.int32).transpose(2, 0, 1)
    fixed = low | middle << 8 | np.where(high > 127, high - 256, high) << 16
    np.testing.assert_allclose(fixed / 4096, splats.centers, atol=0.5 / 4096 + 1e-6)
    np.testing.assert_allclose(parts[1] / 255, 1 / (1 + np.exp(-splats.opacity)), atol=0.5 / 255 + 1e-6)
    colours = (parts[2].reshape(n, 3) / 255 - 0.5) / 0.15
    np.testing.assert_allclose(colours, np.clip(splats.f_dc, -3.333, 3.333), atol=0.014)
    np.testing.assert_allclose(parts[3].reshape(n, 3) / 16 - 10, splats.scales, atol=0.5 / 16 + 1e-6)
    xyz = parts[4].reshape(n, 3) / 127.5 - 1
    unit = splats.rotations / np.linalg.norm(splats.rotations, axis=1, keepdims=True)
    unit *= np.where(unit[:, :1] < 0, -1, 1)
    np.testing.assert_allclose(xyz, unit[:, 1:], atol=1 / 255 + 1e-6)


def test_centres_too_far_for_spz_are_refused_and_not_wrapped() -> None:
    splats = cloud(3)
    splats.centers[1, 2] = 2048.0
    with pytest.raises(ValueError, match="2048"):
        encode_spz(splats)


def test_wrong_shapes_and_types_are_refused() -> None:
    good = cloud(4)
    with pytest.raises(ValueError, match=r"opacity must be float32 \(4,\)"):
        Splats(good.centers, good.f_dc, good.opacity[:3], good.scales, good.rotations)
    with pytest.raises(ValueError, match="float64"):
        Splats(good.centers.astype(np.float64), good.f_dc, good.opacity, good.scales, good.rotations)


def test_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="'glb'"):
        encode(cloud(2), "glb")


def test_colour_constant_is_the_first_harmonic() -> None:
    assert pytest.approx(0.5 / np.sqrt(np.pi)) == SH_C0
