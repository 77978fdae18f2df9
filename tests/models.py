"""The core of hosted models without transport, processes or waiting: formats are believed, nothing runs."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grid_node.blobs.holds import Holds
from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.references import referred
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import InvalidModel
from grid_node.hosting.reading import Deleting, Reading
from grid_node.hosting.replays import Replays
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import load_serve
from grid_node.hosting.serving import Served, Serving
from grid_node.settings import Settings
from models_store.tensors import Signature, TensorSpec

ANYBODY = ModelCaller()
ANN = ModelCaller("keyann00", frozenset({"client"}))
BEN = ModelCaller("keyben00", frozenset({"client"}))
ADMIN = ModelCaller("keyadmin", frozenset({"client", "models:admin"}))
DOUBLER = Signature((TensorSpec("INPUT__0", "FP32", (-1, 3)),), (TensorSpec("OUTPUT__0", "FP32", (-1, 3)),))


def call(function: Any, *args: Any) -> Any:
    return function(*args)


class BelievingChecks:
    """What is declared is so, unless it begins with `broken`."""

    def check(self, path: Path, size: int, declared: str | None) -> Any:
        if path.read_bytes().startswith(b"broken"):
            raise InvalidModel(reason="broken")
        return SimpleNamespace(format=declared or "opaque", derived=None)


@dataclass
class IdleCompute:
    """Says that everything takes and gives three floats, and notes what was forgotten."""

    forgotten: list[str] = field(default_factory=list)

    def describe(self, *_args: Any) -> Signature:
        return DOUBLER

    def forget(self, key: str) -> None:
        self.forgotten.append(key)


class NoShares:
    """A node that was asked to hold no share."""

    def check(self, *_args: Any) -> None: ...

    def take_back_later(self, *_args: Any) -> None: ...


class Shelf:
    """One process's hosting over a store; several may share it and the folder."""

    def __init__(self, store: Store, folder: Path, clock: ManualClock | None = None, **overrides: Any) -> None:
        self.store = store
        self.clock = clock or ManualClock()
        self.settings = Settings.load({}, **overrides)
        self.blobs = LocalBlobs(folder / "blobs", call)
        self.holds = Holds(store, self.blobs, self.clock)
        self.compute = IdleCompute()
        shared: Any = NoShares()
        checks: Any = BelievingChecks()
        compute: Any = self.compute
        self.serving = Serving(
            store, self.clock, self.settings, self.blobs, self.holds, checks, compute, shared, Replays(b"secret")
        )
        self.reading = Reading(store, self.blobs)
        self.deleting = Deleting(store, compute, shared)

    def references(self, digests: list[str]) -> set[str]:
        return referred(self.store, digests)

    def serve(
        self, caller: ModelCaller = ANYBODY, model_id: str = "m1", model: Any = b"bytes", **fields: Any
    ) -> Served:
        return self.serving.serve(caller, load_serve({"model_id": model_id, "model": model, **fields}))
