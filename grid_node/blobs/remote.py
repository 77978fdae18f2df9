"""Blobs in an object store through fsspec (`s3://bucket/prefix`), with whole copies in a local cache.

Bytes are first written and hashed in the cache, then put under their final key, and acknowledged only after
the store names the right size. A put of an object store is atomic, so there is no half blob under a key.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import fsspec

from grid_node.blobs import disk
from grid_node.blobs.checked import Checked
from grid_node.blobs.local import SWEEP_BATCH, LocalBlobs, LocalBlobWriter
from grid_node.blobs.store import CHUNK, Blob, Offload, Referenced, address
from grid_node.errors import AssetTooLarge, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from hashlib import _Hash


class RemoteBlobs:
    """`cache` is a local folder; `sweep` empties it of copies older than its bound, referenced or not."""

    def __init__(self, url: str, cache: Path, offload: Offload) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._cache = LocalBlobs(cache, offload)
        self._offload = offload

    def writer(self, max_bytes: int) -> "RemoteBlobWriter":
        return RemoteBlobWriter(self._cache.writer(max_bytes), self)

    def put(self, content: bytes) -> Blob:
        return self.publish(self._cache.put(content))

    def adopt(self, file: Path, blob: Blob) -> Blob:
        return self.publish(self._cache.adopt(file, blob))

    def publish(self, blob: Blob) -> Blob:
        """Put a cached blob under its key."""
        key = self._key(blob.sha256)
        try:
            with self._store_errors():
                self._offload(self._put, self._cache.path(blob.sha256), key)
                stored = self._offload(self._fs.size, key)
        except NotFound as error:  # somebody buries the same bytes
            raise StoreUnavailable(retry_after=1) from error
        if stored != blob.size:
            raise StoreUnavailable(retry_after=5)
        return blob

    def open(self, sha256: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with contextlib.suppress(NotFound):
            return self._cache.open(sha256, offset, length)
        size = self.size(sha256)
        end = size if length is None else min(size, offset + length)
        return self._pieces(self._key(sha256), offset, end)

    def open_checked(self, sha256: str, piece: int = CHUNK) -> Iterator[bytes]:
        with contextlib.suppress(NotFound):
            return self._cache.open_checked(sha256, piece)
        size, digest = self.size(sha256), disk.new_sha256()
        return Checked(self._pieces(self._key(sha256), 0, size, digest), digest, size, sha256)

    def read_checked(self, sha256: str, max_bytes: int) -> bytes:
        with contextlib.suppress(NotFound):
            return self._cache.read_checked(sha256, max_bytes)
        if self.size(sha256) > max_bytes:
            raise AssetTooLarge(limit=max_bytes)
        return b"".join(self.open_checked(sha256))

    def size(self, sha256: str) -> int:
        key = self._key(sha256)
        with self._store_errors():
            size = self._offload(self._fs.size, key)
        return int(size)

    def path(self, sha256: str) -> Path:
        """Fetched whole and compared with its digest; raises StoreUnavailable when it differs."""
        with contextlib.suppress(NotFound):
            return self._cache.path(sha256)
        size = self.size(sha256)
        with self._cache.writer(size) as writer:
            for piece in self._pieces(self._key(sha256), 0, size):
                writer.write(piece)
            if writer.commit().sha256 != sha256:
                raise StoreUnavailable(retry_after=5)
        return self._cache.path(sha256)

    def delete(self, sha256: str) -> None:
        self._cache.delete(sha256)
        with contextlib.suppress(NotFound), self._store_errors():
            self._offload(self._fs.rm_file, self._key(sha256))

    def bury(self, sha256: str, wanted: Callable[[], bool]) -> bool:
        """An object store cannot move: the copy that was stored from here is what could be put back. Where it is gone,
        the blob is left to the sweep."""
        try:
            copy = self._cache.path(sha256)
        except NotFound:
            return False
        key = self._key(sha256)
        with contextlib.suppress(NotFound), self._store_errors():
            self._offload(self._fs.rm_file, key)
        if wanted():
            with self._store_errors():
                self._offload(self._put, copy, key)
            return False
        return self._cache.bury(sha256, wanted)

    def confirm(self, sha256: str) -> bool:
        with contextlib.suppress(NotFound):
            return self.size(sha256) >= 0
        if not self._cache.confirm(sha256):
            return False
        self.publish(Blob(sha256, self._cache.size(sha256)))
        return True

    def sweep(self, referenced: Referenced, older_than: float) -> int:
        with self._store_errors():
            files = self._offload(partial(self._fs.find, self._root, detail=True))
        old = [name.rsplit("/", 1)[-1] for name, info in files.items() if _stored_at(info) < older_than]
        deleted = 0
        for start in range(0, len(old), SWEEP_BATCH):
            batch = old[start : start + SWEEP_BATCH]
            doomed = set(batch) - referenced(batch)
            for sha256 in doomed:
                self.delete(sha256)
            deleted += len(doomed)
        self._cache.sweep(lambda _: set(), older_than)
        return deleted

    def _pieces(self, key: str, start: int, end: int, *digests: "_Hash") -> Generator[bytes]:
        while start < end:
            with self._store_errors():
                piece = self._offload(self._part, key, start, min(end, start + CHUNK), digests)
            if not piece:
                raise StoreUnavailable(retry_after=5)
            start += len(piece)
            yield piece

    def _part(self, key: str, start: int, end: int, digests: "tuple[_Hash, ...]") -> bytes:
        piece: bytes = self._fs.cat_file(key, start=start, end=end)
        for digest in digests:
            digest.update(piece)
        return piece

    def _put(self, file: Path, key: str) -> None:
        self._fs.makedirs(key.rsplit("/", 1)[0], exist_ok=True)
        self._fs.put_file(str(file), key)

    def _key(self, sha256: str) -> str:
        return f"{self._root}/{address(sha256)}"

    @staticmethod
    @contextlib.contextmanager
    def _store_errors() -> Iterator[None]:
        try:
            with disk.disk_errors():
                yield
        except FileNotFoundError as error:
            raise NotFound from error


class RemoteBlobWriter:
    """Writes into the cache; `commit` returns when the object store has the bytes too."""

    def __init__(self, cached: LocalBlobWriter, blobs: RemoteBlobs) -> None:
        self._cached = cached
        self._blobs = blobs

    @property
    def size(self) -> int:
        return self._cached.size

    def write(self, chunk: bytes) -> None:
        self._cached.write(chunk)

    def commit(self) -> Blob:
        return self._blobs.publish(self._cached.commit())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cached.__exit__(kind, error, trace)


def _stored_at(info: dict[str, Any]) -> float:
    """Epoch seconds of an entry of fsspec; S3, memory and local folders name it differently."""
    stamp = info.get("LastModified") or info.get("mtime") or info.get("created") or 0.0
    return stamp.timestamp() if isinstance(stamp, datetime) else float(stamp)
