"""Frames between the web process and the chain's process, over one Unix stream socket in both directions.

A frame is a head (`HEAD`: a mark, the kind, bytes of the meta part, bytes of the body, id), the meta part (a JSON
object) and the body (raw bytes). Many requests are in flight; what answers one carries its id. Either side looks at
the sizes before it makes room, and what is no frame ends the connection.
"""

import enum
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from grid_node.chain.ports import Block

HEAD = struct.Struct("<IIIIQ")
MARK = 0x4E494843
"""The first word of each frame."""
META_MAX = 4 * 1024 * 1024
FRAME_MAX = 64 * 1024 * 1024
"""Bytes of a whole frame."""
PIECE = 1024 * 1024
"""Room is made for so many bytes at a time: a size that is only claimed costs nothing."""


class FrameError(Exception):
    """The other side does not speak the protocol, or says more than it may."""


class Kind(enum.IntEnum):
    """What a frame is, and the members of its meta part."""

    ASK = 1
    """`op`, `args`, `timeout` in seconds."""
    ANSWER = 2
    """What the operation tells, with its body."""
    REFUSED = 3
    """`code` of the error table, `text`, `data`."""
    BEAT = 4
    """`beat` (null as long as nothing is known of the chain), `samples`. Once a second; the first one says that the
    process is ready."""


class Frame(NamedTuple):
    kind: int
    id: int
    meta: dict[str, Any]
    body: bytes


class Answer(NamedTuple):
    """What an operation gave: facts about it, and the bytes of Pylon's answer where it has one."""

    meta: dict[str, Any]
    body: bytes


@dataclass(frozen=True)
class Beat:
    """How the chain is, seen from its process."""

    block: Block | None
    """The newest block that was seen; None: none yet."""
    finalized: int
    age: float
    """Seconds since the chain node last answered; since the start when it never did."""
    error: str | None
    """Why its last answer was none."""
    identities: dict[str, str]
    """SS58 of each identity's hotkey, by the identity's name."""
    genesis: str | None = None
    """Hash of the chain's block 0; None: nobody heard it yet."""

    def body(self) -> dict[str, Any]:
        block = None if self.block is None else self.block.body()
        return {
            "block": block,
            "finalized": self.finalized,
            "age": self.age,
            "error": self.error,
            "identities": self.identities,
            "genesis": self.genesis,
        }

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Beat":
        """Raises FrameError."""
        try:
            block = None if body["block"] is None else Block(**body["block"])
            finalized, age = int(body["finalized"]), float(body["age"])
            return cls(block, finalized, age, body["error"], dict(body["identities"]), body["genesis"])
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError("a beat is none") from error


def packed(kind: Kind, number: int, meta: Mapping[str, Any], body: bytes = b"") -> list[bytes]:
    """The buffers of one frame; the body is not copied. Raises FrameError when it would be too large, or is no JSON."""
    try:
        text = orjson.dumps(meta)
    except TypeError as error:
        raise FrameError("a meta part is no JSON") from error
    if len(text) > META_MAX or HEAD.size + len(text) + len(body) > FRAME_MAX:
        raise FrameError("a frame would be too large")
    head = HEAD.pack(MARK, kind, len(text), len(body), number) + text
    return [head, body] if body else [head]


def receive(peer: socket.socket) -> Frame | None:
    """The next frame; None at the end of the stream, also in the middle of one. Raises FrameError, OSError."""
    head = _exactly(peer, HEAD.size)
    if head is None:
        return None
    mark, kind, meta_size, body_size, number = HEAD.unpack(head)
    if mark != MARK or kind not in Kind.__members__.values():
        raise FrameError("what came is no frame")
    if meta_size > META_MAX or HEAD.size + meta_size + body_size > FRAME_MAX:
        raise FrameError("a frame is too large")
    text, body = _exactly(peer, meta_size), _exactly(peer, body_size)
    if text is None or body is None:
        return None
    try:
        meta = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FrameError("a meta part is no JSON") from error
    if not isinstance(meta, dict):
        raise FrameError("a meta part is no object")
    return Frame(kind, number, meta, body)


def _exactly(peer: socket.socket, size: int) -> bytes | None:
    """So many bytes; None when the stream ends before."""
    pieces, missing = [], size
    while missing:
        piece = peer.recv(min(missing, PIECE))
        if not piece:
            return None
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
