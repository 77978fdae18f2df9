"""Names of uploads as every Cog sends them, and as nobody should."""

import unicodedata

import pytest

from grid_node.runners.naming import clean_name, extension_of, parse_upload_name, possible_ids


def parsed(file_name, said=None, known=()):
    name = parse_upload_name(file_name, said, known)
    return name.prediction_id, name.index, name.label, name.filename


@pytest.mark.parametrize(
    ("file_name", "said", "known", "expected"),
    [
        # the prediction in a header
        ("7_0_out.png", "7", (), ("7", 0, None, "out.png")),
        ("7_000012_out.png", "7", (), ("7", 12, None, "out.png")),
        ("7_mask_out.png", "7", (), ("7", None, "mask", "out.png")),
        ("7_out.png", "7", (), ("7", None, None, "out.png")),
        ("image.png", "7", (), ("7", None, None, "image.png")),
        ("8_0_out.png", "7", ["8"], ("7", None, None, "8_0_out.png")),
        ("77_0_out.png", "7", (), ("7", None, None, "77_0_out.png")),
        ("a/b_1_out.png", "a/b", (), ("a/b", 1, None, "out.png")),
        ("None_1_out.png", "7", (), ("7", None, None, "None_1_out.png")),
        ("7_1234567_out.png", "7", (), ("7", None, "1234567", "out.png")),
        ("7_٣_out.png", "7", (), ("7", None, "٣", "out.png")),
        ("7__out.png", "7", (), ("7", None, None, "_out.png")),
        ("7_" + "k" * 65 + "_out.png", "7", (), ("7", None, None, "k" * 65 + "_out.png")),
        ("7_k\n_out.png", "7", (), ("7", None, None, "k_out.png")),
        ("7_0_", "7", (), ("7", 0, None, "file")),
        ("7_", "7", (), ("7", None, None, "file")),
        ("7_0_sub/out.png", "7", (), ("7", 0, None, "out.png")),
        # only the name
        ("7_0_out.png", None, ["7"], ("7", 0, None, "out.png")),
        ("a_b_2_out.png", None, ["a", "a_b"], ("a_b", 2, None, "out.png")),
        ("a_b_2_out.png", None, ["a"], ("a", None, "b", "2_out.png")),
        ("7_0_out.png", None, (), (None, None, None, "7_0_out.png")),
        ("out.png", None, ["out"], (None, None, None, "out.png")),
        ("None_4_out.png", None, (), (None, 4, None, "out.png")),
        ("None_4_out.png", None, ["None"], (None, 4, None, "out.png")),
        ("None_mask_out.png", None, (), (None, None, None, "mask_out.png")),
    ],
)
def test_a_name_tells_prediction_and_item(file_name, said, known, expected) -> None:
    assert parsed(file_name, said, known) == expected


def test_only_beginnings_before_a_line_can_be_ids() -> None:
    assert possible_ids("a_b_c.png") == ["a", "a_b"]
    assert possible_ids("_x") == []
    assert possible_ids("a\n_x") == []
    assert possible_ids("k" * 128 + "_x") == ["k" * 128]
    assert possible_ids("k" * 129 + "_x") == []
    assert len(possible_ids("_" * 100_000)) <= 128


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("..", "file"),
        ("", "file"),
        ("...", "file"),
        ("a/..", "file"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\win.ini", "win.ini"),
        ("\0x", "x"),
        ("a\r\nb", "ab"),
        (".htaccess", ".htaccess"),
        ("x.png/", "x.png"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("a\u2028b\x7f\x85", "ab"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("\ufffd\ufffd.png", "\ufffd\ufffd.png"),
        ("a\ud800b", "ab"),
        ("  a b  ", "a b"),
        ("n" * 300 + ".png", "n" * 251 + ".png"),
        ("é" * 200 + ".png", "é" * 125 + ".png"),
        ("n" * 300, "n" * 255),
        ("x." + "e" * 300, "x." + "e" * 253),
    ],
)
def test_a_name_is_cleaned(given, kept) -> None:
    cleaned = clean_name(given)
    assert cleaned == kept
    assert len(cleaned.encode()) <= 255
    assert unicodedata.is_normalized("NFC", cleaned)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("x.png", ".png"),
        ("x.PNG", ".png"),
        ("x.tar.gz", ".gz"),
        (".htaccess", ""),
        ("x", ""),
        ("x.", ""),
        ("x.p/g", ""),
        ("x.пнг", ""),
        ("x.elevenchars", ""),
    ],
)
def test_only_a_plain_extension_becomes_part_of_an_address(name, extension) -> None:
    assert extension_of(name) == extension
