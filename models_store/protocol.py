"""Frames between the node and a process that runs models, over one Unix stream socket in both directions.

A frame is a head (`HEAD`: kind, bytes of the meta part, bytes of the data part, id), the meta part (JSON) and the data
part (the bytes of tensors, one after the other). Many requests are in flight; an answer carries the id of its request.
A file goes along with a frame as an open descriptor (SCM_RIGHTS). Either side caps what it takes before it allocates.
No torch here: both sides import this module.
"""

import enum
import socket
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from models_store.tensors import Tensor, byte_size

HEAD = struct.Struct("<IIQQ")
META_MAX = 16 * 1024 * 1024
"""Bytes of a meta part; an architecture is the longest."""
BUFFER = 256 * 1024
ALIGNMENT = 16
"""The data part begins at such an address of the receiver's memory, so that tensors can be read in place."""
PARTS_MAX = 512
"""Buffers given to one sendmsg; Linux takes 1,024."""


NOT_READY = "model_not_ready"
GONE = "gone"
"""Code for a request whose model was unloaded meanwhile: the node loads it again. Other codes are those of the node's
error table."""


class Kind(enum.IntEnum):
    """Requests of the node, then what the process says. The meta part is what the comment shows."""

    LOAD = 1
    """`{"slot", "format", "architecture", "signature", "size"}`, with the file. No answer but LOADED or GONE, whose id
    is that of the load."""
    INFER = 2
    """`[load id, deadline, [[datatype, shape], ...]]`; the deadline in seconds of CLOCK_MONOTONIC."""
    UNLOAD = 3
    """Of the load with this id; what waits for it is dropped without an answer."""
    DESCRIBE = 4
    """`{"format", "architecture", "inputs", "outputs", "batchable"}`, with the file."""
    PING = 5
    """Answered by PONG, whatever the models do."""

    READY = 16
    """`{"device", "confinement", "formats"}`, once; requests may come from now on."""
    RESULT = 17
    """For INFER `[[datatype, shape], ...]`, for DESCRIBE a signature."""
    FAILED = 18
    """`{"code", "text", "error"}`; `error` is the class of what was raised, for the log."""
    LOADED = 19
    """The load with this id is ready."""
    GONE = 20
    """The load with this id is no more; null, or why it failed as in FAILED."""
    BROKEN = 21
    """The process ends because of a fault of its own: the class of the error."""
    PONG = 22


class Frame(NamedTuple):
    kind: int
    id: int
    meta: bytes
    data: memoryview

    def json(self) -> Any:
        """The meta part; None when it is empty. Raises ProtocolError."""
        if not self.meta.strip():
            return None
        try:
            return orjson.loads(self.meta)
        except orjson.JSONDecodeError as error:
            raise ProtocolError("a meta part is no JSON") from error


class ProtocolError(Exception):
    """The other side does not speak the protocol, or sent more than it may."""


Buffer = bytes | bytearray | memoryview


def frame(kind: int, number: int, meta: Any = None, data: Sequence[Buffer] = ()) -> list[Buffer]:
    """The buffers of one frame; big ones are not copied."""
    head = orjson.dumps(meta) if meta is not None else b""
    head += b" " * (-(HEAD.size + len(head)) % ALIGNMENT)
    length = sum(map(memoryview_size, data))
    first = HEAD.pack(kind, len(head), length, number) + head
    return [first, *data] if length else [first]


def memoryview_size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def shapes(tensors: Iterable[Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(tensor.datatype, tensor.shape) for tensor in tensors]


def tensors_of(names: Iterable[str], shaped: Iterable[Sequence[Any]], data: memoryview) -> list[Tensor]:
    """The tensors whose bytes lie one after the other in `data`. Raises ProtocolError when they do not fill it."""
    found, start = [], 0
    try:
        for name, (datatype, dimensions) in zip(names, shaped, strict=True):
            end = start + byte_size(datatype, tuple(dimensions))
            if dimensions and min(dimensions) < 0:
                raise ProtocolError("a dimension is negative")
            found.append(Tensor(name, datatype, tuple(dimensions), data[start:end]))
            start = end
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError("the tensors are not described") from error
    if start != len(data):
        raise ProtocolError("the tensors do not fill the frame")
    return found


class FrameReader:
    """Cuts frames out of a stream. `receive` fills a buffer and returns how many bytes came, 0 at the end."""

    def __init__(self, receive: Callable[[memoryview], int], data_max: int) -> None:
        self._receive = receive
        self._data_max = data_max
        self._buffer = memoryview(bytearray(BUFFER))
        self._start = self._end = 0

    def read(self) -> list[Frame]:
        """At least one frame, and every other that came with it; an empty list at the end of the stream.

        Raises ProtocolError.
        """
        while True:
            frames = list(self._whole())
            if frames:
                return frames
            if self._start:
                rest = bytes(self._buffer[self._start : self._end])
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            received = self._receive(self._buffer[self._end :])
            if received == 0:
                return []
            self._end += received

    def _whole(self) -> Iterator[Frame]:
        while self._end - self._start >= HEAD.size:
            kind, meta_size, data_size, number = HEAD.unpack_from(self._buffer, self._start)
            if meta_size > META_MAX or data_size > self._data_max:
                raise ProtocolError("a frame is too large")
            size = HEAD.size + meta_size + data_size
            if size > len(self._buffer):
                body = self._large(size)
            elif size <= self._end - self._start:
                body = memoryview(bytearray(self._buffer[self._start : self._start + size]))
                self._start += size
            else:
                return
            if not body:
                return
            data = HEAD.size + meta_size
            yield Frame(kind, number, bytes(body[HEAD.size : data]), body[data:])

    def _large(self, size: int) -> memoryview:
        """A frame of its own buffer, without a further copy; empty at the end of the stream."""
        body = memoryview(bytearray(size))
        have = self._end - self._start
        body[:have] = self._buffer[self._start : self._end]
        self._start = self._end = 0
        while have < size:
            received = self._receive(body[have:])
            if received == 0:
                return body[:0]
            have += received
        return body


Wait = Callable[[], None]


def send(
    peer: socket.socket, buffers: Sequence[Buffer], descriptor: int | None = None, wait: Wait | None = None
) -> None:
    """All of `buffers`, and `descriptor` with the first byte. `wait` is called when the socket would block.

    Raises OSError when the other side is gone.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers if memoryview_size(buffer)]
    ancillary: list[Any] = []
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
    while views:
        try:
            sent = peer.sendmsg(views[:PARTS_MAX], ancillary)
        except BlockingIOError:
            if wait is None:
                raise
            wait()
            continue
        ancillary = []
        _drop(views, sent)


def _drop(views: list[memoryview], sent: int) -> None:
    """Take the first `sent` bytes off."""
    whole = 0
    while whole < len(views) and sent >= views[whole].nbytes:
        sent -= views[whole].nbytes
        whole += 1
    del views[:whole]
    if sent:
        views[0] = views[0][sent:]
