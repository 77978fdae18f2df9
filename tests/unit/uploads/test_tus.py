"""The headers of tus."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.errors import InvalidPayload, UploadTooLarge
from grid_node.uploads import tus

KEYS = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@given(st.dictionaries(KEYS, st.text(max_size=50), max_size=8))
def test_metadata_comes_back_as_it_was_sent(metadata: dict[str, str]) -> None:
    header = ", ".join(f"{key} {encoded(value.encode())}" for key, value in metadata.items())
    assert tus.parse_metadata(header) == metadata


def test_a_key_may_stand_alone_and_the_header_may_be_empty() -> None:
    assert tus.parse_metadata("") == {}
    assert tus.parse_metadata("flag,name YQ==") == {"flag": "", "name": "a"}


@pytest.mark.parametrize(
    "header",
    [
        "key !!!!",
        "key YQ",
        "key YQ==,key YQ==",
        ",",
        "key YQ== YQ==",
        "k\x00y YQ==",
        "é YQ==",
        f"key {encoded(bytes([255]))}",
        "k" * 65,
        "key " + "A" * tus.METADATA_MAX,
    ],
)
def test_malformed_metadata_is_refused_by_name(header: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        tus.parse_metadata(header)
    assert "Upload-Metadata" in refused.value.body()["fields"]


@pytest.mark.parametrize("value", [None, "", "0", "-1", "1.5", "1e3", "NaN", "0x10", "١", "9" * 16, "+1", "1 2"])
def test_a_length_is_a_positive_whole_number(value: str | None) -> None:
    with pytest.raises(InvalidPayload):
        tus.parse_length(value, 100)


def test_a_length_is_bounded() -> None:
    assert tus.parse_length("100", 100) == 100
    with pytest.raises(UploadTooLarge) as refused:
        tus.parse_length("101", 100)
    assert refused.value.body()["limit"] == 100


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_checksum_names_its_algorithm(algorithm: str) -> None:
    digest = hashlib.new(algorithm, b"piece").digest()
    checksum = tus.parse_checksum(f"{algorithm} {encoded(digest)}")
    assert checksum is not None
    running = checksum.new()
    running.update(b"piece")
    assert running.digest() == checksum.digest


@pytest.mark.parametrize("header", ["", "sha1", "md5 YQ==", "SHA1 YQ==", "sha1 !!!", "sha1 YQ==", "sha256 YQ=="])
def test_a_malformed_or_unknown_checksum_is_refused(header: str) -> None:
    with pytest.raises(InvalidPayload):
        tus.parse_checksum(header)


def test_no_checksum_is_no_checksum() -> None:
    assert tus.parse_checksum(None) is None
