"""RFC 6455 frames without any I/O: bytes in, whole messages out, limits checked before anything is buffered."""

from __future__ import annotations

import struct
from collections.abc import Callable

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_STATUS, ABNORMAL, BAD_DATA, POLICY, TOO_BIG, INTERNAL = 1005, 1006, 1007, 1008, 1009, 1011
CLOSE_REASON_BYTES = 123
"""RFC 6455 5.5: a control frame holds 125 bytes, two of which are the close code."""

Message = str | bytes
ControlFrame = tuple[int, bytes]


class FrameError(Exception):
    """The peer broke the protocol or a limit; `code` is the close code of RFC 6455 7.4.1."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


Buffer = bytes | bytearray | memoryview
Item = Message | ControlFrame | FrameError


def xor_mask(data: Buffer, mask: bytes | bytearray) -> bytes:
    """Unmask with one big-integer XOR: about 100 times faster than a loop over bytes."""
    size = len(data)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


try:
    from websockets.speedups import apply_mask
except ImportError:  # no C extension on this platform
    apply_mask = xor_mask

unmask: Callable[[Buffer, bytes | bytearray], bytes] = apply_mask


def frame_header(opcode: int, size: int, final: bool = True) -> bytes:
    """The header of an unmasked (server to client) frame."""
    first = opcode | 0x80 if final else opcode
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def close_payload(code: int, reason: str) -> bytes:
    """Close code and reason, the reason cut to 123 bytes at a character boundary."""
    text = reason.encode("utf-8", "replace")[:CLOSE_REASON_BYTES].decode("utf-8", "ignore")
    return struct.pack("!H", code) + text.encode()


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a received close frame; raises FrameError for those that RFC 6455 7.4 forbids."""
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    allowed = (1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL)) or 3000 <= code <= 4999
    if not allowed:
        raise FrameError(PROTOCOL_ERROR, "close code not allowed")
    return code, decode_text(payload[2:])


def decode_text(data: bytes) -> str:
    """Strict UTF-8; raises FrameError 1007."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise FrameError(BAD_DATA, "text is not UTF-8") from None


class FrameReader:
    """Turns received bytes into messages and control frames, in the order they came.

    Holds at most `max_bytes` of an unfinished message plus one chunk: a header that announces more raises
    FrameError(1009) before its payload is kept. Compression is never negotiated, so a frame with RSV1 is refused
    unread with 1002 and no deflate bomb is ever inflated.
    """

    __slots__ = ("_fragments", "_kind", "_need", "_rest", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._rest: bytearray | None = None
        self._need = 0
        self._kind = 0
        self._fragments: bytearray | None = None

    def feed(self, chunk: bytes) -> list[Item]:
        """Messages as str or bytes, control frames as (opcode, payload), and last, if so, the FrameError met.

        The error is an item so that what came before it in the same chunk is not lost.
        """
        data: bytes | bytearray = chunk
        if self._rest is not None:
            self._rest += chunk
            if len(self._rest) < self._need:
                return []
            data, self._rest = self._rest, None
        self._need = 0
        out: list[Item] = []
        position, size = 0, len(data)
        try:
            while size - position >= 2 and (end := self._frame(data, position, size, out)):
                position = end
        except FrameError as error:
            out.append(error)
            return out
        if position < size:
            self._rest = bytearray(data[position:])
        return out

    def _frame(self, data: bytes | bytearray, start: int, size: int, out: list[Item]) -> int:
        """Parse the frame at `start` into `out`; returns its end, or 0 where more bytes are needed."""
        first, length = data[start], data[start + 1]
        self._check_bits(first, length)
        length &= 0x7F
        at = start + 2
        if length >= 126:
            wide = 2 if length == 126 else 8
            if size < at + wide:
                return 0
            length = int.from_bytes(data[at : at + wide], "big")
            at += wide
        if first & 0x08 == 0:
            self._check_size(first, length)
        end = at + 4 + length
        if size < end:
            self._need = end - start
            return 0
        payload = unmask(data[at + 4 : end], data[at : at + 4])
        if first == 0x81 and self._kind == 0:  # one whole text message: nearly every frame
            out.append(decode_text(payload))
        else:
            self._collect(first, payload, out)
        return end

    def _check_bits(self, first: int, second: int) -> None:
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "reserved bits set: no extension was negotiated")
        opcode = first & 0x0F
        if opcode > PONG or 0x2 < opcode < 0x8:
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        if not second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "client frame is not masked")
        if opcode >= CLOSE and (second & 0x7F > 125 or not first & 0x80):
            raise FrameError(PROTOCOL_ERROR, "control frame too long or fragmented")

    def _check_size(self, first: int, length: int) -> None:
        continues = first & 0x0F == CONTINUATION
        if continues != (self._kind != 0):
            raise FrameError(PROTOCOL_ERROR, "fragments out of order")
        held = len(self._fragments) if self._fragments is not None else 0
        if length + held > self.max_bytes:
            raise FrameError(TOO_BIG, f"message above {self.max_bytes} bytes")

    def _collect(self, first: int, payload: bytes, out: list[Item]) -> None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            out.append((opcode, payload))
            return
        if opcode == BINARY and first & 0x80:
            out.append(payload)
            return
        if opcode != CONTINUATION:
            self._kind, self._fragments = opcode, bytearray()
        assert self._fragments is not None
        self._fragments += payload
        if first & 0x80:
            whole, kind = bytes(self._fragments), self._kind
            self._kind, self._fragments = 0, None
            out.append(decode_text(whole) if kind == TEXT else whole)
