"""A shelf that knows encrypted models, and peers of which a test decides how they behave. Nothing is sent anywhere."""

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from grid_client import sharing
from grid_client.errors import ConnectionLost, GridError
from grid_client.holders import Part
from grid_client.tensor_files import DescriptorSource, MemorySource, NotTensors, TensorFile

from grid_node.clock import ManualClock
from grid_node.compute.splitting import SplitShare, Splitting
from grid_node.database import Store
from grid_node.errors import InvalidModel, ValueOutOfRange
from grid_node.hosting.encrypted import Encrypted
from grid_node.hosting.placement import Placing, peers_of
from grid_node.hosting.reading import Deleting
from grid_node.hosting.replays import Replays
from grid_node.hosting.serving import Serving
from grid_node.settings import Settings
from tests.models import Shelf, call

HOLDERS = [f"http://holder{number}.example" for number in range(3)]
KEYS = [f"key-of-holder-{number}" for number in range(3)]


@dataclass
class Kept:
    content: bytes
    token_sha256: str | None


@dataclass
class Peers:
    """Holder nodes by address. What a test puts into `moods` happens instead of keeping or removing a share."""

    kept: dict[str, dict[str, Kept]] = field(default_factory=lambda: {address: {} for address in HOLDERS})
    moods: dict[str, Callable[[Callable[[], bool]], None]] = field(default_factory=dict)
    """Called with `stop` before a share is placed; may raise, or wait until it should stop."""
    away: set[str] = field(default_factory=set)
    """Addresses that cannot be reached for removing."""
    loses_answer: set[str] = field(default_factory=set)
    """Addresses that keep the share, but whose answer is lost."""
    keys: set[tuple[str, str]] = field(default_factory=set)
    """Address and key of every visit."""

    def peer(self, address: str, key: str) -> "PeerHolder":
        self.keys.add((address, key))
        return PeerHolder(self, address)

    @property
    def shares(self) -> list[str]:
        return sorted(name for shares in self.kept.values() for name in shares)

    def contents(self) -> list[bytes]:
        found = {name: kept.content for shares in self.kept.values() for name, kept in shares.items()}
        return [found[name] for name in sorted(found)]


class PeerHolder:
    def __init__(self, peers: Peers, address: str) -> None:
        self._peers = peers
        self._address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def place(self, part: Part, timeout: float, stop: Callable[[], bool]) -> None:
        assert timeout > 0
        self._peers.moods.get(self._address, lambda stop: None)(stop)
        content = part.read(0, part.size)
        assert hashlib.sha256(content).hexdigest() == part.sha256
        self._peers.kept[self._address][part.share_id] = Kept(content, part.token_sha256)
        if self._address in self._peers.loses_answer:
            raise ConnectionLost()

    def remove(self, share_id: str) -> bool:
        if self._address in self._peers.away:
            raise ConnectionLost()
        return self._peers.kept[self._address].pop(share_id, None) is not None


def refuses(_stop: Callable[[], bool]) -> None:
    raise GridError("quota_exceeded", status=403)


def hangs(stop: Callable[[], bool]) -> None:
    """Until it is told to stop."""
    pause = threading.Event()
    while not stop():
        pause.wait(0.01)
    raise GridError("abandoned")


class SplittingHere(Splitting):
    """Splits in this process, so that a test need not wait for one to start."""

    @contextlib.contextmanager
    def split(
        self, model: Path, holders: int, precision: int, set_id: str, deadline: float
    ) -> Iterator[list[SplitShare]]:
        with contextlib.ExitStack() as stack:
            source = TensorFile(DescriptorSource(stack.enter_context(model.open("rb")).fileno()))
            files: list[Any] = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(holders)]
            try:
                sharing.split_into(sharing.StoredTensors(source), files, precision, set_id)
            except sharing.ValueOutOfRange as error:
                raise ValueOutOfRange(tensor=error.tensor) from None
            yield [_closed(file) for file in files]


def _closed(file: Any) -> SplitShare:
    file.seek(0)
    content = file.read()
    return SplitShare(file.fileno(), hashlib.sha256(content).hexdigest(), len(content))


class TensorChecks:
    """Files that begin with a header are safetensors, and shares if they say so; others are not."""

    def check(self, path: Path, size: int, declared: str | None) -> Any:
        try:
            TensorFile(MemorySource(path.read_bytes()))
        except NotTensors as error:
            if declared != "opaque":
                raise InvalidModel(reason=str(error)) from None
        return SimpleNamespace(format=declared or "safetensors", derived=None)


class EncryptedShelf(Shelf):
    """Hosting with encrypted models; the operator named three peers."""

    def __init__(self, store: Store, folder: Path, clock: ManualClock | None = None, **overrides: Any) -> None:
        super().__init__(store, folder, clock, **overrides)
        self.peers = Peers()
        self.placing = Placing(store, self.clock, dict(zip(HOLDERS, KEYS, strict=True)), self.peers.peer)
        self.folder = folder
        self.encrypted = self.with_settings(self.settings)
        compute: Any = self.compute
        checks: Any = TensorChecks()
        self.serving = Serving(
            store,
            self.clock,
            self.settings,
            self.blobs,
            self.holds,
            checks,
            compute,
            self.encrypted,
            Replays(b"secret"),
        )
        self.deleting = Deleting(store, compute, self.encrypted)

    def with_settings(self, settings: Settings) -> Encrypted:
        splitting = SplittingHere(settings, self.folder)
        checks: Any = TensorChecks()
        return Encrypted(self.store, self.clock, settings, self.blobs, call, checks, splitting, self.placing)

    def shares_file(self) -> dict[str, torch.Tensor]:
        return sharing.reconstruct(self.peers.contents())


def places(count: int = 3) -> list[dict[str, str]]:
    return [{"worker": f"w{number}", "address": HOLDERS[number]} for number in range(count)]


__all__ = ["HOLDERS", "KEYS", "EncryptedShelf", "Peers", "hangs", "peers_of", "places", "refuses"]
