"""What a file is by its first bytes, of the types that a browser may show where it stands."""

HEAD = 32
"""Bytes that are enough."""


def sniffed_type(head: bytes) -> str | None:
    """Media type of a PNG, JPEG, WebP, GIF, MP4 or WAV; None for everything else.

    Signatures from https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern and the two after it.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:14] == b"WEBPVP":
        return "image/webp"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav"
    return "video/mp4" if _is_mp4(head) else None


def _is_mp4(head: bytes) -> bool:
    """A box of the type `ftyp` that names an MP4 brand among its first ones."""
    size = int.from_bytes(head[:4], "big")
    if head[4:8] != b"ftyp" or size < 12 or size % 4:
        return False
    end = min(size, len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]  # the four bytes between are a version
    return any(brand[:3] in {b"mp4", b"iso", b"avc", b"M4V"} for brand in brands)
