"""Bytes on their way into a partial file, with the running sha256 of what is there."""

import hmac
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from grid_node.blobs.disk import new_sha256
from grid_node.blobs.store import CHUNK
from grid_node.database import Store
from grid_node.errors import ChecksumMismatch, GridError
from grid_node.uploads import rows
from grid_node.uploads.partials import Partial
from grid_node.uploads.rows import UploadRow
from grid_node.uploads.tus import Checksum

if TYPE_CHECKING:
    from hashlib import _Hash


class Intake:
    """Receives pieces. The caller holds the partial file.

    Digests live in memory only: one of a length that the file does not have (another process went on with it, or
    this one is new) is dropped, and the digest is computed from the file at the end.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._digests: dict[str, tuple[int, _Hash]] = {}

    def receive(self, row: UploadRow, file: Partial, chunks: Iterator[bytes], checksum: Checksum | None) -> None:
        """Durable when it returns; when it raises, what came before stays, but none of it with a checksum."""
        if checksum is None:
            self._receive_plain(row, file, gathered(chunks))
        else:
            self._receive_checked(row, file, gathered(chunks), checksum)

    def whole_digest(self, row: UploadRow, file: Partial) -> str:
        """sha256 of all bytes, in lower hex."""
        known, digest = self._digests.pop(row.id, (0, new_sha256()))
        if known != row.length:
            digest = new_sha256()
            file.hash_into(digest)
        return digest.hexdigest()

    def forget(self, upload_id: str) -> None:
        self._digests.pop(upload_id, None)

    def _receive_plain(self, row: UploadRow, file: Partial, chunks: Iterator[bytes]) -> None:
        digest = self._digest_at(row.id, file.length)
        try:
            for chunk in chunks:
                file.append(chunk, *digest)
        finally:
            file.sync()
            self._remember(row.id, file.length, digest)

    def _receive_checked(self, row: UploadRow, file: Partial, chunks: Iterator[bytes], checksum: Checksum) -> None:
        """The row says where the unverified bytes begin, so that a crash on the way discards them too."""
        start, digest, verified = file.length, self._digest_at(row.id, file.length), checksum.new()
        before = [running.copy() for running in digest]
        self._store.write(partial(rows.mark_unverified, upload_id=row.id, offset=start))
        try:
            for chunk in chunks:
                file.append(chunk, *digest, verified)
            if not hmac.compare_digest(verified.digest(), checksum.digest):
                raise ChecksumMismatch(offset=start)
            file.sync()
        except BaseException:
            file.truncate(start)
            digest = before
            raise
        finally:
            self._remember(row.id, file.length, digest)
            self._store.write(partial(rows.mark_unverified, upload_id=row.id, offset=None))

    def _digest_at(self, upload_id: str, length: int) -> "list[_Hash]":
        """The running sha256 of the first `length` bytes, in a list; empty when it is not known here."""
        known, digest = self._digests.pop(upload_id, (0, new_sha256()))
        return [digest] if known == length else []

    def _remember(self, upload_id: str, length: int, digest: "list[_Hash]") -> None:
        for running in digest:
            self._digests[upload_id] = (length, running)


def gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at least CHUNK, all of them also when the source ends in an error."""
    held: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size >= CHUNK:
                yield b"".join(held)
                held, size = [], 0
    except GridError:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)
