"""Files inside of texts."""

import base64
import os
from urllib.parse import quote

import pytest

from grid_node.runners.data_urls import decoded


def whole(url):
    content_type, pieces = decoded(url)
    return content_type, b"".join(pieces)


@pytest.mark.parametrize(
    ("url", "content_type", "content"),
    [
        ("data:image/png;base64,aGVsbG8=", "image/png", b"hello"),
        ("data:image/png;base64,aGVsbG8", "image/png", b"hello"),
        ("DATA:image/png;BASE64,aGVs\nbG8=", "image/png", b"hello"),
        ("data:text/plain;charset=utf-8;base64,aGVsbG8%3D", "text/plain;charset=utf-8", b"hello"),
        ("data:,a%20b%ff", "text/plain", b"a b\xff"),
        ("data:text/plain,100%", "text/plain", b"100%"),
        ("data:;base64,", "text/plain", b""),
    ],
)
def test_bytes_come_out_as_they_were_put_in(url, content_type, content) -> None:
    assert whole(url) == (content_type, content)


def test_long_ones_are_decoded_in_pieces_that_fit() -> None:
    content = os.urandom(1_000_001)
    assert whole("data:;base64," + base64.b64encode(content).decode())[1] == content
    assert whole("data:," + quote(content))[1] == content
    assert max(map(len, decoded("data:," + quote(content))[1])) <= 256 * 1024


@pytest.mark.parametrize(
    "url", ["https://a/b", "data:image/png;base64", "data:;base64,a", "data:;base64,a-_b", "data:;base64,aa=a", "data"]
)
def test_what_is_none_is_an_error_of_value(url) -> None:
    with pytest.raises(ValueError):
        whole(url)
