"""Bytes of a model as text, and back."""

import base64
import binascii
import time

from grid_node.errors import InvalidPayload

SLICE = 1024 * 1024
"""Characters decoded at a time, a multiple of 4: others run between two slices."""


def decoded(model: bytes | str, encoding: str, field: str = "model") -> bytes:
    """Bytes as they are, text by its encoding (`iso-8859-1` or `base64`, strict). Raises InvalidPayload."""
    if isinstance(model, bytes):
        return model
    try:
        if encoding == "base64":
            return b"".join(_base64_slices(model))
        return model.encode("iso-8859-1")
    except UnicodeEncodeError:
        raise _invalid(field, f"has characters that {encoding} does not have") from None
    except (binascii.Error, ValueError):
        raise _invalid(field, "is not base64 with padding") from None


def encoded(content: bytes, encoding: str) -> str:
    return base64.b64encode(content).decode("ascii") if encoding == "base64" else content.decode("iso-8859-1")


def _base64_slices(text: str) -> list[bytes]:
    raw = text.encode("ascii")
    slices = []
    for start in range(0, len(raw), SLICE):
        piece = raw[start : start + SLICE]
        if b"=" in piece and start + SLICE < len(raw):
            raise ValueError("padding before the end")
        slices.append(base64.b64decode(piece, validate=True))
        if len(raw) > SLICE:
            time.sleep(0)
    return slices


def _invalid(field: str, problem: str) -> InvalidPayload:
    return InvalidPayload(fields={field: [problem]})
