"""What an upload is for: the port between the tus server and the part of the node that wanted the bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from grid_node.blobs.store import Blob
from grid_node.uploads.tables import STORED


@dataclass(frozen=True)
class FinishedUpload:
    """An upload whose bytes are all there. `metadata` is decoded."""

    id: str
    owner: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Completion:
    """`fields` appear in the status of the upload, `headers` on the PATCH that completed it."""

    fields: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class UploadTarget(Protocol):
    """One kind of upload, with its limits."""

    @property
    def kind(self) -> str:
        """Name of the kind in the rows; uploads of one kind do not exist for another."""

    @property
    def max_bytes(self) -> int: ...

    @property
    def open_max(self) -> int:
        """Uploads of one owner that are unfinished, or finished and not taken."""

    @property
    def ttl(self) -> float:
        """Seconds that an unfinished upload lives after its creation."""

    @property
    def kept(self) -> float:
        """Seconds that a finished upload waits to be taken."""

    @property
    def done(self) -> str:
        """State after success: `stored` or `published`."""

    @property
    def told(self) -> tuple[str, ...]:
        """Members of the status that are null until `completed` names them."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Members of the metadata that are forgotten once the upload has its outcome."""

    @property
    def patience(self) -> float | None:
        """Seconds for which a request waits for `completed`, which then goes on in the background; None: to the end."""

    def room(self, owner: str) -> int | None:
        """Bytes that the owner's open uploads may have together, None for no such limit."""

    def check(self, owner: str, metadata: Mapping[str, str], length: int) -> None:
        """Called before anything is made; whatever GridError it raises is the answer."""

    def completed(self, upload: FinishedUpload, blob: Blob) -> Completion:
        """All bytes are there and durable. Called at least once for an upload, so it is idempotent by its id.

        A GridError below 500 rejects the upload for good and is the answer; one from 500 on leaves it to be
        tried again.
        """


def _anything(_owner: str, _metadata: Mapping[str, str], _length: int) -> None:
    """Every upload within the limits is welcome."""


@dataclass(frozen=True)
class StoredTarget:
    """Uploads that are only stored, to be taken by a later request that names them."""

    kind: str
    max_bytes: int
    open_max: int
    ttl: float
    kept: float = 3600.0
    check: Callable[[str, Mapping[str, str], int], None] = _anything
    done: str = STORED
    told: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    patience: float | None = None

    def room(self, owner: str) -> int | None:
        return None

    def completed(self, upload: FinishedUpload, blob: Blob) -> Completion:
        return Completion(fields={"size": blob.size})
