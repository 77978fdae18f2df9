"""What may be shown where it stands is found in the bytes, never in a name or a header."""

import pytest

from grid_node.runners.sniffing import HEAD, sniffed_type


def box(*brands: bytes, size: int | None = None) -> bytes:
    body = b"ftyp" + brands[0] + b"\0\0\2\0" + b"".join(brands[1:])
    return (size or len(body) + 4).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"GIF87a\1\0", "image/gif"),
        (b"GIF89a\1\0", "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\x24\0\0\0WAVEJUNK", "audio/wav"),
        (box(b"mp42", b"isom"), "video/mp4"),
        (box(b"isom", b"iso2", b"avc1", b"mp41"), "video/mp4"),
        (box(b"XXXX", b"mp41"), "video/mp4"),
        (box(b"qt  "), None),
        (box(b"mp42", size=10), None),
        (b"RIFF\x24\0\0\0AVI LIST", None),
        (b"<html><script>", None),
        (b"<svg xmlns=", None),
        (b"\n\x89PNG\r\n\x1a\n", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_a_type_is_found_in_the_first_bytes(head, expected) -> None:
    assert sniffed_type(head[:HEAD]) == expected
