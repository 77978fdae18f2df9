import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_store import archive
from models_store.errors import InvalidModel
from tests.crafted import zipped

HONEST = zipped({"m/data.pkl": b"one", "m/data/0": b"second"})
CENTRAL, END = HONEST.index(b"PK\1\2"), HONEST.index(b"PK\5\6")


def read(content: bytes) -> archive.Archive:
    return archive.read(io.BytesIO(content), len(content))


def patched(offset: int, patch: bytes, content: bytes = HONEST) -> bytes:
    return content[:offset] + patch + content[offset + len(patch) :]


def test_entries_are_found_without_their_root() -> None:
    found = read(HONEST)
    assert list(found.entries) == ["data.pkl", "data/0"]
    assert found.content(io.BytesIO(HONEST), "data/0", 6) == b"second"


def test_an_entry_above_the_limit_or_missing_is_refused() -> None:
    for name, most in (("data/0", 5), ("data/1", 9)):
        with pytest.raises(InvalidModel):
            read(HONEST).content(io.BytesIO(HONEST), name, most)


def with_duplicate() -> bytes:
    return zipped({"m/aa": b"", "m/ab": b""}).replace(b"m/ab", b"m/aa")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too short"),
        (HONEST[:-1], "end as an archive"),
        (HONEST + b"\0", "end as an archive"),
        (b"x" + HONEST, "disagree"),
        (HONEST[:END] + b"x" + HONEST[END:], "disagree"),
        (HONEST[:CENTRAL] + b"x" + HONEST[CENTRAL:], "disagree"),
        (patched(END + 20, b"\1"), "end as an archive"),
        (patched(END + 8, b"\3\0\3\0"), "disagree"),
        (patched(END + 8, b"\1\0\2\0"), "disagree"),
        (patched(END + 4, b"\1\0"), "disagree"),
        (patched(0, b"PK\3\5"), "not what its table says"),
        (patched(30, b"m/data.pkx"), "not what its table says"),
        (patched(8, b"\x08\0"), "not what its table says"),
        (patched(CENTRAL + 24, struct.pack("<I", 9)), "its size"),
        (patched(CENTRAL + 20, struct.pack("<2I", 2, 2)), "no entry"),
        (patched(CENTRAL + 20, struct.pack("<2I", 2**31, 2**31)), "no entry"),
        (patched(CENTRAL + 42, struct.pack("<I", 1)), "no entry"),
        (patched(CENTRAL + 42, struct.pack("<I", 2**31)), "no entry"),
        (patched(CENTRAL + 28, b"\xff\xff"), "table is damaged"),
        (patched(CENTRAL + 32, b"\1\0"), "table is damaged"),
        (zipped({"m/a": b"", "n/b": b""}), "several roots"),
        (zipped({"m/a": b"", "m/A": b""}), "one name twice"),
        (with_duplicate(), "one name twice"),
        (zipped({"a": b""}), "a name that torch does not use"),
        (zipped({"m/../a": b""}), "a name that torch does not use"),
        (zipped({"../a": b""}), "a name that torch does not use"),
        (zipped({"/a": b""}), "a name that torch does not use"),
        (zipped({"m/a b": b""}), "a name that torch does not use"),
        (zipped({"m/ü": b""}), "a name that torch does not use"),
        (zipped({"m/": b""}), "a name that torch does not use"),
        (zipped({"m/a": b"x"}, zipfile.ZIP_LZMA), "packed in a way"),
    ],
)
def test_whatever_two_readers_could_understand_differently_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidModel, match=reason):
        read(content)


def test_an_entry_that_inflates_to_more_than_it_says_is_refused() -> None:
    content = zipped({"m/code/a.py": bytes(1000)}, zipfile.ZIP_DEFLATED)
    lying = patched(content.index(b"PK\1\2") + 24, struct.pack("<I", 999), content)
    for candidate, is_honest in ((content, True), (lying, False)):
        found = read(candidate)
        if is_honest:
            found.check_inflates(io.BytesIO(candidate), found.entries["code/a.py"])
        else:
            with pytest.raises(InvalidModel):
                found.check_inflates(io.BytesIO(candidate), found.entries["code/a.py"])


@settings(max_examples=300)
@given(st.integers(0, len(HONEST) - 1), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_changes_no_place(place: int, value: int) -> None:
    try:
        found = read(patched(place, bytes([value])))
    except InvalidModel:
        return
    assert all(entry.start + entry.size <= CENTRAL for entry in found.entries.values())
