"""What a store of blobs promises. A blob is immutable bytes under their sha256."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from grid_node.errors import NotFound

CHUNK = 256 * 1024
"""Bytes that are read, written and hashed at a time: what one waiting greenlet or thread holds in memory."""

Offload = Callable[..., Any]
"""Calls a function with positional arguments off the hub: eventlet's tpool.execute, or a plain call.

What runs there neither logs nor touches locks, sockets or the database.
"""

Referenced = Callable[[list[str]], set[str]]
"""Those of the given digests that some row still names."""

EMPTY = hashlib.sha256().hexdigest()
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """`sha256` in lower hex, `size` in bytes."""

    sha256: str
    size: int


class BlobWriter(Protocol):
    """Bytes on their way in. As a context manager it leaves nothing behind unless `commit` was called."""

    @property
    def size(self) -> int:
        """Bytes written so far."""

    def write(self, chunk: bytes) -> None:
        """Raises AssetTooLarge, before anything of `chunk` is written, and StoreFull."""

    def commit(self) -> Blob:
        """The bytes are durable under their digest when this returns. Raises StoreFull."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Blobs(Protocol):
    """Content-addressed bytes.

    A blob appears whole or not at all, and storing it again renews its age. Reading an unknown or malformed
    digest raises NotFound. StoreFull when there is no room, StoreUnavailable when the medium fails; then
    nothing is kept.
    """

    def writer(self, max_bytes: int) -> BlobWriter: ...

    def put(self, content: bytes) -> Blob: ...

    def adopt(self, file: Path, blob: Blob) -> Blob:
        """Take over a complete local file whose digest the caller computed; the file is gone afterwards."""

    def open(self, sha256: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset`, at most `length` of them, in pieces of at most CHUNK.

        NotFound is raised by this call, not by the first piece; a reader that began keeps its bytes when the
        blob is deleted meanwhile.
        """

    def open_checked(self, sha256: str, piece: int = CHUNK) -> Iterator[bytes]:
        """All bytes, hashed on the way, in pieces of at most `piece`. When they are not those of the digest,
        ModelCorrupt comes in place of the last piece, so that no reader ever has a whole damaged blob."""

    def read_checked(self, sha256: str, max_bytes: int) -> bytes:
        """All bytes at once, compared with their digest. Raises ModelCorrupt; AssetTooLarge above `max_bytes`."""

    def size(self, sha256: str) -> int: ...

    def path(self, sha256: str) -> Path:
        """A local file with the bytes, to be read only; a remote store fetches a copy first."""

    def delete(self, sha256: str) -> None:
        """Deleting what is not there is no error."""

    def bury(self, sha256: str, wanted: Callable[[], bool]) -> bool:
        """Delete a blob that nobody refers to; False when it is not there or `wanted` says so after all.

        `wanted` is asked after the blob is out of the way; a blob that is wanted is put back.
        """

    def confirm(self, sha256: str) -> bool:
        """Whether the blob is there, after a reference to it was committed; one that is being buried is put back."""

    def sweep(self, referenced: Referenced, older_than: float) -> int:
        """Delete unreferenced blobs and abandoned writes last stored before `older_than` (epoch seconds).

        Returns the number of blobs deleted. A blob that is stored again meanwhile survives.
        """


def checked(sha256: str) -> str:
    """`sha256` if it is a digest; no other text may become part of a path."""
    if not _DIGEST.fullmatch(sha256):
        raise NotFound
    return sha256


def address(sha256: str) -> str:
    """Place of a blob below the root: `ab/cd/<sha256>`."""
    checked(sha256)
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
