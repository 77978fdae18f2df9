"""Bytes that prove to be those of their digest before the last of them is given out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from grid_node.blobs.store import EMPTY
from grid_node.errors import ModelCorrupt

if TYPE_CHECKING:
    from hashlib import _Hash


class Pieces(Iterator[bytes], Protocol):
    """Bytes in order, from something that has to be closed."""

    def close(self) -> None: ...


def damaged() -> ModelCorrupt:
    """The bytes under a digest are not its own."""
    return ModelCorrupt(retry_after=3600)


class Checked(Iterator[bytes]):
    """`pieces` of `size` bytes that add themselves to `digest` as they are read.

    Raises ModelCorrupt in place of the last piece when the digest is not `sha256`, and when bytes are missing. An
    empty file has no last piece: one that should not be empty is refused here and now.
    """

    def __init__(self, pieces: Pieces, digest: "_Hash", size: int, sha256: str) -> None:
        self._pieces = pieces
        self._digest = digest
        self._left = size
        self._sha256 = sha256
        if size == 0 and sha256 != EMPTY:
            self.close()
            raise damaged()

    def __next__(self) -> bytes:
        if self._left <= 0:
            self.close()
            raise StopIteration
        piece = next(self._pieces, b"")
        self._left -= len(piece)
        if not piece or (self._left <= 0 and self._digest.hexdigest() != self._sha256):
            self.close()
            raise damaged()
        return piece

    def close(self) -> None:
        self._pieces.close()
