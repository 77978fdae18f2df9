"""Counted reading from compressed frames: zstd and gzip behind one small port.

Both give at most as many bytes as asked for, whatever the frame claims about itself, and tell a whole frame from a
cut one and from one with something behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import zstandard

from grid_node.scoring.port import InvalidAsset

MAX_WINDOW_BYTES = 8 << 20
"""What a zstd frame may ask the decoder to hold; enough for levels 1 to 19."""
MAX_BLOCKS = 65_536
INPUT_SLICE = 1 << 16
GZIP_WBITS = 31
MAX_ZSTD_HEADER = 18


class ByteSource(Protocol):
    def draw(self, size: int) -> bytes:
        """At most `size` bytes, empty only at the end of the frame; raises InvalidAsset."""
        ...

    def finish(self) -> None:
        """Raise InvalidAsset unless the frame ended where the file ends (checksum included)."""
        ...


class _GzipSource:
    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self._inflate = zlib.decompressobj(wbits=GZIP_WBITS)
        self._pending = b""

    def draw(self, size: int) -> bytes:
        while not self._inflate.eof:
            if not self._pending:
                self._pending = self._file.read(INPUT_SLICE)
            if not self._pending:
                return b""
            try:
                out = self._inflate.decompress(self._pending, size)
            except zlib.error as error:
                raise InvalidAsset("bad_header", "the gzip stream is damaged") from error
            self._pending = self._inflate.unconsumed_tail
            if out:
                return out
        return b""

    def finish(self) -> None:
        if not self._inflate.eof:
            raise InvalidAsset("truncated", "the gzip stream has no end")
        if self._inflate.unused_data or self._file.read(1):
            raise InvalidAsset("trailing_data", "bytes follow the gzip stream")


def open_gzip(file: BinaryIO) -> ByteSource:
    """The first gzip member of a file."""
    return _GzipSource(file)


class _ZstdSource:
    def __init__(self, file: BinaryIO, reader: zstandard.ZstdDecompressionReader) -> None:
        self._file = file
        self._reader = reader

    def draw(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            _check_one_frame(self._file)  # the reader also fails on what follows a whole frame
            raise InvalidAsset("bad_header", "the zstd frame is damaged") from error

    def finish(self) -> None:
        _check_one_frame(self._file)


@contextmanager
def open_zstd(file: BinaryIO) -> Iterator[ByteSource]:
    """The first zstd frame of a file, without a dictionary, within the window limit."""
    file.seek(0)
    _check_zstd_header(file.read(MAX_ZSTD_HEADER))
    file.seek(0)
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    with decompressor.stream_reader(file, read_size=INPUT_SLICE, closefd=False) as reader:
        yield _ZstdSource(file, reader)


def _check_zstd_header(data: bytes) -> None:
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise InvalidAsset("truncated" if len(data) < MAX_ZSTD_HEADER else "bad_header", "zstd header") from error
    if frame.dict_id:
        raise InvalidAsset("bad_header", "the zstd frame needs a dictionary")
    if frame.window_size > MAX_WINDOW_BYTES:
        raise InvalidAsset("too_large", "the zstd frame asks for a window above 8 MiB")


def _check_one_frame(file: BinaryIO) -> None:
    """Walk the block headers of the first frame (RFC 8878, 3.1.1): it must end where the file ends."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    head = file.read(MAX_ZSTD_HEADER)
    end = zstandard.frame_header_size(head)
    for _ in range(MAX_BLOCKS):
        file.seek(end)
        block = int.from_bytes(file.read(3), "little")
        is_last, is_rle, stored = block & 1, (block >> 1) & 3 == 1, block >> 3
        end += 3 + (1 if is_rle else stored)
        if end > size:
            raise InvalidAsset("truncated", "the zstd frame has no end")
        if is_last:
            break
    else:
        raise InvalidAsset("bad_header", "too many blocks in the zstd frame")
    end += 4 if zstandard.get_frame_parameters(head).has_checksum else 0
    if end > size:
        raise InvalidAsset("truncated", "the zstd frame has no checksum")
    if end < size:
        raise InvalidAsset("trailing_data", "bytes follow the zstd frame")
