"""Models that no node has: split here, one share placed at each holder node, the places registered at another node.

The node that keeps the table of shares never sees the weights, and no holder learns anything but names, shapes and
types of the tensors. Needs torch (`grid-client[models]`).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch

from grid_client.errors import GridError
from grid_client.holders import Holder, Part
from grid_client.shares import share_id, share_token
from grid_client.sharing import StateDict, StoredTensors, Tensors, reconstruct, split_into
from grid_client.tensor_files import DescriptorSource, TensorFile
from grid_client.transfer import Http

TIMEOUT = 600.0

State = Mapping[str, torch.Tensor] | Path
"""A state dict, or a safetensors file that need not fit into memory."""


@dataclass(frozen=True)
class Worker:
    """A holder: the id that searches answer, the address of the node, and this client's key there."""

    id: str
    address: str
    api_key: str


@dataclass(frozen=True)
class Place:
    """Where one share is. `sha256` is None if whoever registered the set did not tell it."""

    worker: str
    address: str
    index: int
    sha256: str | None


@dataclass(frozen=True)
class Found:
    """An encrypted model as its node knows it. `set_id` is None if it was registered without one."""

    workers: list[str]
    crypto_provider: list[str]
    set_id: str | None
    shares: list[Place]


class EncryptedModels:
    """The encrypted models registered at one node. Every refusal, also of a holder, is a GridError."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = api_key
        self._sleep = sleep
        self._clock = clock
        self._http = Http(url, self._sign, sleep=sleep, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # --- serving

    def serve(
        self,
        model_id: str,
        state: State,
        workers: Sequence[Worker],
        *,
        crypto_provider: tuple[str, str] | None = None,
        precision: int = 16,
        share_token: str | None = None,
        timeout: float = TIMEOUT,
        **fields: Any,
    ) -> str:
        """Split, place one share at each worker, register; returns the name of the set.

        `crypto_provider`: its id and address. `share_token`: a secret of 32 characters or more, which lets whoever
        knows it fetch the shares without a key. `fields`: further ones of `/serve_model`, such as `version` or `tags`.
        Whatever fails, no share is left behind at a worker that can be reached. Raises also what `sharing.split` does.
        """
        deadline = self._clock() + timeout
        set_id = secrets.token_hex(16)
        with _split(state, len(workers), precision, set_id, share_token) as parts:
            shares = [
                {"worker": worker.id, "address": worker.address, "sha256": part.sha256}
                for worker, part in zip(workers, parts, strict=True)
            ]
            asked = {"model_id": model_id, "mpc": True, "set": set_id, "shares": shares, "precision": precision}
            if crypto_provider is not None:
                asked["crypto_provider"] = dict(zip(("id", "address"), crypto_provider, strict=True))
            try:
                self._place(parts, workers, deadline)
                self._call("serve_model", {**asked, **fields, "idempotency_key": str(uuid.uuid4())}, deadline)
            except BaseException:
                self._remove(set_id, workers)
                raise
        return set_id

    def delete(self, model_id: str, workers: Sequence[Worker], *, timeout: float = TIMEOUT) -> None:
        """Delete the model at its node, and its shares at the workers that held them. Raises GridError for those that
        could not be reached: calling `remove_shares` again is then enough."""
        found = self.find(model_id)
        self._call("delete_model", {"model_id": model_id}, self._clock() + timeout)
        self.remove_shares(found, workers)

    def remove_shares(self, found: Found, workers: Sequence[Worker]) -> None:
        """Remove the shares of a set from the workers that this client has keys for."""
        keys = {worker.id: worker.api_key for worker in workers}
        for place in found.shares:
            if place.worker in keys and found.set_id is not None:
                with self._holder(place.address, keys[place.worker]) as holder:
                    holder.remove(share_id(found.set_id, place.index))

    # --- finding and fetching

    def find(self, model_id: str) -> Found:
        """Raises GridError `model_not_found`."""
        said = self._call("search-encrypted-models", {"model_id": model_id, "details": True}, self._clock() + TIMEOUT)
        try:
            shares = [Place(one["worker"], one["address"], one["index"], one["sha256"]) for one in said["shares"]]
            return Found(said["workers"], said["crypto_provider"], said["set"], shares)
        except (KeyError, TypeError):
            raise GridError("bad_answer", "the node did not say where the shares are") from None

    def fetch(
        self,
        model_id: str,
        keys: Mapping[str, str] | None = None,
        *,
        share_token: str | None = None,
        timeout: float = TIMEOUT,
    ) -> dict[str, torch.Tensor]:
        """The model, reconstructed here from all its shares.

        `keys`: this client's keys by worker id, or `share_token`: the secret it was served with. Raises HashMismatch
        when a holder has another share than was placed, GridError when one has none for this client.
        """
        found = self.find(model_id)
        if found.set_id is None:
            raise GridError("bad_answer", "the set of shares has no name at the node")
        deadline = self._clock() + timeout
        with tempfile.TemporaryDirectory(prefix="grid-shares-") as folder:
            files = [Path(folder) / str(place.index) for place in found.shares]
            fetch = partial(self._fetch, found.set_id, dict(keys or {}), share_token, deadline)
            with ThreadPoolExecutor(len(files)) as pool:
                list(pool.map(fetch, found.shares, files))
            return reconstruct(files)

    # --- inside

    def _fetch(
        self, set_id: str, keys: Mapping[str, str], secret: str | None, deadline: float, place: Place, file: Path
    ) -> None:
        token = None if secret is None else share_token(secret, set_id, place.index)
        with self._holder(place.address, keys.get(place.worker, ""), token) as holder:
            try:
                holder.fetch(share_id(set_id, place.index), file, place.sha256, deadline - self._clock())
            except GridError as error:
                error.add_note(f"holder {place.worker} at {place.address}")
                raise

    def _place(self, parts: Sequence[Part], workers: Sequence[Worker], deadline: float) -> None:
        """At all workers at once; the first failure ends the others and is raised."""
        failed = threading.Event()

        def place(part: Part, worker: Worker) -> None:
            try:
                with self._holder(worker.address, worker.api_key) as holder:
                    holder.place(part, deadline - self._clock(), failed.is_set)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(len(workers)) as pool:
            tries = [pool.submit(place, part, worker) for part, worker in zip(parts, workers, strict=True)]
        errors = [error for one in tries if (error := one.exception()) is not None]
        first = [error for error in errors if not _is_abandoned(error)] or errors
        if first:
            raise first[0]

    def _remove(self, set_id: str, workers: Sequence[Worker]) -> None:
        for index, worker in enumerate(workers):
            with suppress(GridError), self._holder(worker.address, worker.api_key) as holder:
                holder.remove(share_id(set_id, index))

    def _holder(self, address: str, api_key: str, token: str | None = None) -> Holder:
        return Holder(address, api_key, token, sleep=self._sleep, clock=self._clock)

    def _call(self, path: str, asked: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        body, headers = json.dumps(asked).encode(), {"Content-Type": "application/json"}
        return self._http.retried(lambda: self._http.json("POST", path, body=body, headers=headers), deadline)

    def _sign(self, method: str, target: str, body: bytes | None) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}


@contextmanager
def _split(state: State, holders: int, precision: int, set_id: str, secret: str | None) -> Iterator[list[Part]]:
    """The shares in files without names, for the length of the block."""
    with ExitStack() as stack:
        files = [_HashedFile(stack.enter_context(tempfile.TemporaryFile())) for _ in range(holders)]
        split_into(_tensors(state, stack), files, precision, set_id)
        yield [file.part(set_id, index, secret) for index, file in enumerate(files)]


def _tensors(state: State, stack: ExitStack) -> Tensors:
    if not isinstance(state, Path):
        return StateDict(state)
    return StoredTensors(TensorFile(DescriptorSource(stack.enter_context(state.open("rb")).fileno())))


class _HashedFile:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hashed = hashlib.sha256()
        self._size = 0

    def write(self, content: bytes, /) -> None:
        self._file.write(content)
        self._hashed.update(content)
        self._size += len(content)

    def part(self, set_id: str, index: int, secret: str | None) -> Part:
        self._file.flush()
        token = None if secret is None else share_token(secret, set_id, index)
        return Part(
            share_id=share_id(set_id, index),
            sha256=self._hashed.hexdigest(),
            size=self._size,
            read=partial(_read, self._file.fileno()),
            token_sha256=None if token is None else hashlib.sha256(token.encode()).hexdigest(),
        )


def _read(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)


def _is_abandoned(error: BaseException) -> bool:
    return isinstance(error, GridError) and error.code == "abandoned"
