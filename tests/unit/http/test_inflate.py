"""Compressed bodies: bounded in, as asked for out."""

import gzip
import zlib

import pytest

from grid_node.errors import InferenceTooLarge, InvalidPayload, UnsupportedMediaType
from grid_node.http.inflate import SLICE_IN, accepted_coding, deflated, inflated

MIB = 1024 * 1024


def call(function, *args):
    return function(*args)


def inflate(body, coding="gzip", limit=64 * MIB, grew=lambda _size: None):
    return inflated(body, coding, limit, call, grew)


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 8, bytes(3 * MIB), b"ab\n" * MIB])
@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), (" GZIP", gzip.compress)]
)
def test_a_body_comes_back_whole(content, coding, pack):
    sizes = []
    assert inflate(pack(content), coding, grew=sizes.append) == content
    assert sum(sizes) == len(content)


def test_identity_is_no_coding():
    assert inflate(b"abc", "identity") == b"abc"


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd", "x"])
def test_another_coding_is_not_supported(coding):
    with pytest.raises(UnsupportedMediaType):
        inflate(b"abc", coding)


def test_a_bomb_is_given_up_at_the_limit():
    sizes = []
    bomb = gzip.compress(bytes(64 * MIB))
    with pytest.raises(InferenceTooLarge) as raised:
        inflate(bomb, limit=5 * MIB, grew=sizes.append)
    assert raised.value.data["limit"] == 5 * MIB
    assert sum(sizes) <= 5 * MIB
    assert inflate(gzip.compress(bytes(MIB)), limit=MIB) == bytes(MIB)
    with pytest.raises(InferenceTooLarge):
        inflate(gzip.compress(bytes(MIB)), limit=MIB - 1)


@pytest.mark.parametrize("content", [b"abc" * 100, bytes(2 * MIB)])
def test_a_body_that_is_cut_broken_or_goes_on_is_refused(content):
    whole = gzip.compress(content)
    for body in (whole[:-1], whole[:20], b"", b"plain text", whole + b"x", whole + whole, zlib.compress(content)):
        with pytest.raises(InvalidPayload):
            inflate(body)


def test_bytes_far_behind_the_end_are_refused_too():
    with pytest.raises(InvalidPayload):
        inflate(gzip.compress(b"abc") + bytes(2 * SLICE_IN))


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None), ("gzip", "gzip"), ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"), ("br;q=1, GZIP;q=0.2", "gzip"),
        ("gzip;q=0", None), ("gzip;q=0, deflate", "deflate"), ("gzip;q=0.5,deflate;q=0.8", "deflate"), ("*", None),
        ("gzip;q=x", None), ("identity", None), (";;,,", None),
    ],
)  # fmt: skip
def test_the_answer_has_the_coding_that_is_asked_for(header, coding):
    assert accepted_coding(header) == coding


@pytest.mark.parametrize("content", [b"abc", bytes(MIB)])
def test_an_answer_is_compressed(content):
    assert gzip.decompress(deflated(content, "gzip", call)) == content
    assert zlib.decompress(deflated(content, "deflate", call)) == content
