"""Content codings of request and answer: gzip and deflate (which is zlib, RFC 9110, section 8.4.1.2), bounded.

A body may grow a thousandfold. It is inflated slice by slice, off the hub as soon as it is not small, and given up at
the first byte above the limit.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

from grid_node.errors import InferenceTooLarge, InvalidPayload, UnsupportedMediaType

Offload = Callable[..., Any]
WINDOWS = {"gzip": 31, "deflate": 15}
"""zlib's wbits."""
SMALL = 16 * 1024
"""Bytes that are worth no way to another thread."""
SLICE_IN = 256 * 1024
SLICE_OUT = 1024 * 1024
LEVEL = 1
"""Answers are numbers, which hardly shrink further with more work."""


def inflated(body: bytes, coding: str, max_bytes: int, offload: Offload, grew: Callable[[int], None]) -> bytes:
    """The body without its coding; `grew` hears of each slice's bytes before the next one.

    Raises UnsupportedMediaType, InvalidPayload for what is cut or not of this coding, InferenceTooLarge.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in WINDOWS:
        raise UnsupportedMediaType("Content-Encoding must be gzip, deflate or identity")
    pieces, size = [], 0
    for piece in _slices(body, zlib.decompressobj(WINDOWS[coding]), offload, max_bytes):
        size += len(piece)
        if size > max_bytes:
            raise InferenceTooLarge(limit=max_bytes)
        grew(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _slices(body: bytes, engine: Any, offload: Offload, max_bytes: int) -> Iterator[bytes]:
    step = min(SLICE_OUT, max_bytes + 1)
    small = len(body) <= SMALL
    for start in range(0, len(body), SLICE_IN):
        data = body[start : start + SLICE_IN]
        while data and not engine.eof:
            piece = _step(engine, data, SLICE_IN if small else step, None if small else offload)
            data, small = engine.unconsumed_tail, False
            yield piece
        if engine.eof:
            if engine.unused_data or start + SLICE_IN < len(body):
                raise _broken("has bytes behind its end")
            return
    while piece := _step(engine, b"", step, offload):
        yield piece
    if not engine.eof:
        raise _broken("ends before its end")


def _step(engine: Any, data: bytes, max_length: int, offload: Offload | None) -> bytes:
    try:
        piece: bytes = (
            engine.decompress(data, max_length) if offload is None else offload(_call, engine, data, max_length)
        )
    except zlib.error:
        raise _broken("is not what Content-Encoding says") from None
    return piece


def _call(engine: Any, data: bytes, max_length: int) -> bytes:
    piece: bytes = engine.decompress(data, max_length)
    return piece


def _broken(problem: str) -> InvalidPayload:
    return InvalidPayload(f"the compressed body {problem}", fields={"_schema": [f"the compressed body {problem}"]})


def accepted_coding(header: str) -> str | None:
    """The coding for an answer, out of `Accept-Encoding`; None for none (RFC 9110, section 12.5.3)."""
    best, weight = None, 0.0
    for part in header.lower().split(","):
        name, *parameters = part.replace(" ", "").split(";")
        quality = _quality(parameters)
        if name in WINDOWS and quality > weight:
            best, weight = name, quality
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def deflated(body: bytes, coding: str, offload: Offload) -> bytes:
    if len(body) <= SMALL:
        return _deflate(body, coding)
    packed: bytes = offload(_deflate, body, coding)
    return packed


def _deflate(body: bytes, coding: str) -> bytes:
    engine = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOWS[coding])
    return engine.compress(body) + engine.flush()
