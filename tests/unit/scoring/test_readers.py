"""Reading PLY and SPZ: what is accepted, and with which reason everything else is refused."""

import gzip
import io
import struct

import numpy as np
import pytest
import zstandard

from grid_node.scoring.assets import detect_format, read_splats
from grid_node.scoring.cloud import SplatCloud
from grid_node.scoring.ply import REQUIRED, write_ply
from grid_node.scoring.port import InvalidAsset
from grid_node.scoring.settings import ScoringSettings
from grid_node.scoring.spz import encode_spz

SMALL = ScoringSettings(min_splats=1, max_splats=1_000)


def read(data: bytes, said: str = "ply", settings: ScoringSettings = SMALL) -> SplatCloud:
    return read_splats(io.BytesIO(data), len(data), said, settings)


def reason_of(data: bytes, said: str = "ply", settings: ScoringSettings = SMALL) -> str:
    with pytest.raises(InvalidAsset) as caught:
        read(data, said, settings)
    return caught.value.reason


def header(*, count: object = 2, lines: list[str] | None = None, form: str = "binary_little_endian 1.0") -> bytes:
    names = [f"property float {name}" for name in REQUIRED] if lines is None else lines
    return "\n".join(["ply", f"format {form}", f"element vertex {count}", *names, "end_header", ""]).encode()


BODY = np.ones((2, 14), "<f4").tobytes()


def test_a_minimal_ply_is_read():
    cloud = read(header() + BODY)

    assert len(cloud) == 2
    assert cloud.opacity == pytest.approx(1 / (1 + np.exp(-1)))


def test_carriage_returns_comments_and_normals_are_allowed():
    lines = ["comment made by hand", *(f"property float32 {n}" for n in ("nx", *REQUIRED))]
    rows = np.arange(30, dtype="<f4").reshape(2, 15)

    cloud = read(header(lines=lines).replace(b"\n", b"\r\n") + rows.tobytes())

    assert cloud.centers.tolist() == [[1, 2, 3], [16, 17, 18]]


def test_higher_harmonics_are_read_past():
    names = [*REQUIRED[:6], *(f"f_rest_{k}" for k in range(45)), *REQUIRED[6:]]
    rows = np.zeros((2, len(names)), "<f4")
    rows[:, names.index("rot_0")] = 7

    cloud = read(header(lines=[f"property float {n}" for n in names]) + rows.tobytes())

    assert cloud.rotations[:, 0].tolist() == [7, 7]


@pytest.mark.parametrize("logit", [np.inf, -np.inf, 1e30])
def test_an_infinite_logit_is_cut(logit):
    rows = np.ones((2, 14), "<f4")
    rows[0, 6] = logit

    assert read(header() + rows.tobytes()).opacity[0] == pytest.approx(float(logit > 0), abs=1e-6)


NOT_FINITE = [(k, np.nan) for k in range(14)] + [(k, np.inf) for k in range(14) if REQUIRED[k] != "opacity"]


@pytest.mark.parametrize(("column", "value"), NOT_FINITE)
def test_a_number_that_is_not_finite_is_refused(column, value):
    rows = np.ones((2, 14), "<f4")
    rows[1, column] = value

    assert reason_of(header() + rows.tobytes()) == "non_finite"


PROPERTIES = [f"property float {name}" for name in REQUIRED]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "unknown_format", id="empty"),
        pytest.param(b"hello", "unknown_format", id="text"),
        pytest.param(b"<html></html>", "unknown_format", id="html"),
        pytest.param(b"PK\x03\x04" + bytes(40), "unknown_format", id="zip"),
        pytest.param(b"glTF" + bytes(40), "unknown_format", id="gltf"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(40), "unknown_format", id="png"),
        pytest.param(b"plyx\n", "unknown_format", id="nearly ply"),
        pytest.param(b"NGSP" + bytes(28), "unsupported_version", id="spz 4"),
        pytest.param(header(form="ascii 1.0"), "unsupported_version", id="ascii"),
        pytest.param(header(form="binary_big_endian 1.0") + BODY, "unsupported_version", id="big-endian"),
        pytest.param(header(form="binary_little_endian"), "bad_header", id="format cut"),
        pytest.param(header(lines=[*PROPERTIES, "property double t"]), "bad_header", id="double"),
        pytest.param(header(lines=[*PROPERTIES, "property list uchar int i"]), "bad_header", id="list"),
        pytest.param(header(lines=[*PROPERTIES, "element face 0"]), "bad_header", id="second element"),
        pytest.param(header(lines=["\x80"]), "bad_header", id="not ascii"),
        pytest.param(header()[:-11], "bad_header", id="no end"),
        pytest.param(header(lines=["comment " + "x" * 9_000, *PROPERTIES]) + BODY, "bad_header", id="9 KiB"),
        pytest.param(header(lines=["comment"] * 130 + PROPERTIES) + BODY, "bad_header", id="150 lines"),
        pytest.param(header(count=-1) + BODY, "bad_header", id="minus one"),
        pytest.param(header(count="1e6") + BODY, "bad_header", id="1e6"),
        pytest.param(header(count="٢") + BODY, "bad_header", id="other digits"),
        pytest.param(header(count=2**40) + BODY, "too_many_splats", id="2^40"),
        pytest.param(header(count="9" * 400) + BODY, "bad_header", id="400 digits"),
        pytest.param(header(count=1_001) + BODY, "too_many_splats", id="one too many"),
        pytest.param(header(count=0), "too_few_splats", id="none"),
        pytest.param(header() + BODY[:-1], "truncated", id="one byte short"),
        pytest.param(header() + BODY + b"\0", "trailing_data", id="one byte long"),
        pytest.param(header(lines=PROPERTIES[1:]) + BODY, "missing_property", id="no x"),
        pytest.param(header(lines=[*PROPERTIES, PROPERTIES[0]]) + BODY, "bad_header", id="x twice"),
        pytest.param(header(lines=[*PROPERTIES, "property float q"]) + BODY, "unknown_property", id="unknown"),
        pytest.param(header(lines=[*PROPERTIES, "property float f_rest_45"]), "unknown_property", id="f_rest_45"),
    ],
)
def test_a_bad_ply_is_refused(data, reason):
    assert reason_of(data) == reason


def test_the_number_of_splats_is_judged_from_the_header_alone():
    limits = ScoringSettings()

    assert reason_of(header(count=6_999), settings=limits) == "too_few_splats"
    assert reason_of(header(count=2_000_001), settings=limits) == "too_many_splats"


def test_a_file_that_is_not_what_it_was_sent_as_is_refused(ply_bytes, spz_bytes):
    assert reason_of(ply_bytes, "spz") == "format_mismatch"
    assert reason_of(spz_bytes, "ply") == "format_mismatch"


def test_a_file_above_the_limit_is_refused_unread():
    class Unreadable(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("read")

    with pytest.raises(InvalidAsset, match="too_large"):
        read_splats(Unreadable(), 134_217_729, "ply", ScoringSettings())


def spz(
    *, magic=0x5053474E, version=2, count=2, degree=0, bits=12, flags=0, body: bytes | None = None, extra=b""
) -> bytes:
    head = struct.pack("<IIIBBBB", magic, version, count, degree, bits, flags, 0)
    size = count * (16 + (4 if version == 3 else 3) + (0, 9, 24, 45, 0)[degree])
    return head + (bytes([100]) * size if body is None else body) + extra


def zst(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


@pytest.mark.parametrize(("degree", "version"), [(0, 2), (3, 2), (1, 3)])
def test_gzip_spz_of_versions_2_and_3_is_read(degree, version):
    assert len(read(gzip.compress(spz(degree=degree, version=version)), "spz")) == 2


def test_the_antialiased_flag_is_allowed():
    assert len(read(zst(spz(flags=1)), "spz")) == 2


@pytest.mark.parametrize("pack", [zst, gzip.compress])
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(spz(magic=1), "bad_header", id="magic"),
        pytest.param(spz(version=1), "unsupported_version", id="version 1"),
        pytest.param(spz(version=7), "unsupported_version", id="version 7"),
        pytest.param(spz(degree=4), "bad_header", id="degree 4"),
        pytest.param(spz(bits=24), "bad_header", id="24 fraction bits"),
        pytest.param(spz(flags=2), "unsupported_extension", id="extensions"),
        pytest.param(spz(flags=64), "bad_header", id="unknown flag"),
        pytest.param(spz(count=1_001, body=b""), "too_many_splats", id="too many"),
        pytest.param(spz(count=0), "too_few_splats", id="none"),
        pytest.param(spz()[:-1], "truncated", id="one byte short"),
        pytest.param(spz(extra=b"\0"), "trailing_data", id="one byte long"),
        pytest.param(b"", "truncated", id="nothing inside"),
    ],
)
def test_a_bad_spz_is_refused(pack, raw, reason):
    assert reason_of(pack(raw), "spz") == reason


def test_the_zstd_form_is_version_2_only():
    assert reason_of(zst(spz(version=3)), "spz") == "unsupported_version"


@pytest.mark.parametrize("pack", [zst, gzip.compress])
def test_a_second_frame_is_trailing_data(pack):
    assert reason_of(pack(spz()) + pack(spz()), "spz") == "trailing_data"
    assert reason_of(pack(spz()) + b"\0", "spz") == "trailing_data"


def test_an_empty_second_zstd_frame_is_trailing_data_too():
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"free"

    assert reason_of(zst(spz()) + skippable, "spz") == "trailing_data"


@pytest.mark.parametrize("pack", [lambda data: zst(data, write_checksum=True), gzip.compress])
def test_half_a_file_and_a_broken_checksum_are_refused(pack):
    noise = np.random.default_rng(1).integers(0, 256, 19 * 900, np.uint8).tobytes()
    whole = pack(spz(count=900, body=noise))
    broken = bytearray(whole)
    broken[-6 if whole[0] == 0x1F else -1] ^= 1

    assert reason_of(whole[: len(whole) // 2], "spz") == "truncated"
    assert reason_of(whole[:-1], "spz") == "truncated"
    assert reason_of(bytes(broken), "spz") == "bad_header"


def test_a_frame_that_needs_a_dictionary_is_refused():
    samples = [bytes(np.random.default_rng(k).integers(0, 8, 400, np.uint8)) for k in range(200)]
    dictionary = zstandard.train_dictionary(1_024, samples)

    assert reason_of(zst(spz(), dict_data=dictionary), "spz") == "bad_header"


def test_a_frame_with_a_huge_window_is_refused():
    options = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=0)
    compressor = zstandard.ZstdCompressor(compression_params=options).compressobj()

    assert reason_of(compressor.compress(spz()) + compressor.flush(), "spz") == "too_large"


@pytest.mark.parametrize("head", [b"ply\n", b"ply\r\n"])
def test_detection_looks_at_the_first_bytes(head):
    assert detect_format(head) == "ply"
    assert detect_format(b"\x28\xb5\x2f\xfd") == detect_format(b"\x1f\x8b\x08") == "spz"


def test_spz_and_back_keeps_the_geometry(cloud, spz_bytes, ply_bytes):
    back = read(spz_bytes, "spz")

    assert np.abs(back.centers - cloud.centers).max() <= 2**-12
    assert np.abs(back.opacity - cloud.opacity).max() <= 1 / 255
    assert np.abs(back.log_scales - cloud.log_scales).max() <= 1 / 32 + 1e-6
    again = io.BytesIO()
    write_ply(again, back)
    assert np.abs(read(again.getvalue()).centers - cloud.centers).max() <= 2**-12
    assert np.abs(read(again.getvalue()).opacity - back.opacity).max() <= 1 / 255


def test_version_3_rotations_are_the_smallest_three():
    """w is largest: index 3; x = +½·√½ (magnitude 255.5 -> 256), y = -0, z = 0."""
    word = (3 << 30) | (256 << 20) | (1 << 19) | 0
    raw = spz(version=3, count=1, body=bytes(16) + struct.pack("<I", word))

    w, x, y, z = read(gzip.compress(raw), "spz").rotations[0]

    assert x == pytest.approx(256 / 511 * np.sqrt(0.5))
    assert (y, z) == (0, 0)
    assert w == pytest.approx(np.sqrt(1 - x * x))


@pytest.mark.parametrize("rotation", [[1, 0, 0, 0], [0.5, 0.5, -0.5, 0.5], [-0.5, 0.5, 0.5, 0.5]])
def test_version_2_rotations_survive_up_to_their_sign(cloud, rotation):
    turned = cloud.take(np.arange(1))
    turned.rotations[:] = rotation
    back = read(zst(encode_spz(turned)), "spz").rotations[0]

    assert abs(back @ np.array(rotation)) == pytest.approx(1, abs=0.01)


def test_stored_logits_are_never_infinite(cloud):
    clear = cloud.take(np.arange(2))
    clear.opacity[:] = (0, 1)
    file = io.BytesIO()
    write_ply(file, clear)
    logits = np.frombuffer(file.getvalue()[-2 * 56 :], "<f4").reshape(2, 14)[:, 6]

    assert logits.tolist() == pytest.approx([-6.23, 6.23])


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_positions_of_any_size_survive_the_conversion(cloud, factor):
    moved = cloud.take(np.arange(len(cloud)))
    moved.centers[:] *= factor

    back = read(zst(encode_spz(moved)), "spz")

    assert np.abs(back.centers - moved.centers).max() <= factor * 2**-9
