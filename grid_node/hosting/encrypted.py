"""Encrypted models: where their shares are, `/search-encrypted-models`, and the shares that this node holds."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
from grid_client.holders import Part, checked_address
from grid_client.shares import HOLDERS_MIN, share_id, share_token
from marshmallow import validate
from sqlalchemy import bindparam, insert, select

from grid_node.blobs.store import CHUNK, Blob, Blobs, Offload
from grid_node.clock import Clock
from grid_node.compute.splitting import SplitShare
from grid_node.database import Store, Transaction
from grid_node.errors import MissingKey, ModelIdNotFound, ModelNotFound
from grid_node.fields import StrictText, load
from grid_node.hosting import rows
from grid_node.hosting.placement import Placing, token_digest
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.rows import VersionRow
from grid_node.hosting.schemas import Flag, ServeRequest, Strict, checked_id
from grid_node.hosting.share_fields import check_fields, invalid, places_of
from grid_node.hosting.tables import Model, ModelShare
from grid_node.settings import Settings
from grid_node.statements import prepared

models: Any = Model.__table__
shares: Any = ModelShare.__table__
_SHARES = prepared(
    select(shares)
    .where(shares.c.model == bindparam("model"), shares.c.version == bindparam("number"))
    .order_by(shares.c.index)
)


class Splitting(Protocol):
    """What encrypted models ask of the compute processes."""

    def split(
        self, model: Path, holders: int, precision: int, set_id: str, deadline: float
    ) -> AbstractContextManager[list[SplitShare]]:
        """Raises InvalidModel, ValueOutOfRange, SharePlacementFailed."""

    def describe(self, share: Path) -> dict[str, Any]:
        """`share_id`, `set`, `precision`. Raises InvalidModel."""


class Checks(Protocol):
    def check(self, path: Path, size: int, declared: str | None) -> object:
        """Raises InvalidModel."""


class EncryptedSearchSchema(Strict):
    """`/search-encrypted-models`."""

    model_id = StrictText(required=True, validate=validate.Length(1))
    details = Flag(load_default=False)


SEARCH = EncryptedSearchSchema()


class Encrypted:
    """The part of hosting that knows shares."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        blobs: Blobs,
        offload: Offload,
        checks: Checks,
        splitting: Splitting,
        placing: Placing,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._blobs = blobs
        self._offload = offload
        self._checks = checks
        self._splitting = splitting
        self._placing = placing
        self._random = random
        self._in_hand: set[str] = set()
        """Sets that this process has placed or is placing, and that are not published yet."""

    # --- search

    def search(self, _caller: ModelCaller, payload: Any) -> dict[str, Any]:
        """Workers and crypto provider of the newest version. Raises InvalidPayload, ModelIdNotFound."""
        wanted = load(SEARCH, payload)
        name = checked_id(wanted["model_id"])
        if name is None:
            raise ModelIdNotFound()
        row, found = self._store.read(lambda tx: self._found(tx, name))
        provider = orjson.loads(row.share_provider)["id"] if row.share_provider else None
        answer = {"workers": [one.worker for one in found], "crypto_provider": [provider] if provider else []}
        return answer | _details(row, found) if wanted["details"] else answer

    def _found(self, tx: Transaction, model_id: str) -> tuple[VersionRow, list[Any]]:
        try:
            row = rows.find(tx, model_id)
        except ModelNotFound:
            raise ModelIdNotFound() from None
        found = tx.execute(_SHARES, {"model": row.number, "number": row.version}).all() if row.mpc else []
        if len(found) < HOLDERS_MIN or [one.index for one in found] != list(range(len(found))):
            raise ModelIdNotFound()
        return row, list(found)

    # --- serving

    def check(self, caller: ModelCaller, request: ServeRequest, has_bytes: bool) -> None:
        """Every rule about shares that needs no bytes. Raises InvalidPayload, MissingKey, SharePeerNotAllowed."""
        check_fields(caller, request, has_bytes)
        if request.mpc and has_bytes:
            if caller.is_anonymous:
                raise MissingKey()
            self._placing.check([place.address for place in places_of(request)])

    def place(self, caller: ModelCaller, request: ServeRequest, blob: Blob) -> ServeRequest:
        """Split a model and place its shares at peers: the request as if the client had done both.

        Raises InvalidModel, ValueOutOfRange, SharePlacementFailed, and then nothing is left at the peers, or what is
        left is removed later.
        """
        path = self._blobs.path(blob.sha256)
        self._checks.check(path, blob.size, "safetensors")
        set_id, places, began = self._random(16).hex(), places_of(request), self._clock.now()
        timeout = self._settings.share_place_timeout
        with self._splitting.split(path, len(places), request.precision, set_id, timeout) as split:
            left = timeout - (self._clock.now() - began)
            self._placing.note(set_id, places, left)
            self._in_hand.add(set_id)
            try:
                self._placing.place(self._parts(request, set_id, split), places, left)
            except BaseException:
                self._withdraw(set_id, len(places))
                raise
        digests = [one.sha256 for one in split]
        placed = [share | {"sha256": digest} for share, digest in zip(request.shares or (), digests, strict=True)]
        return replace(request, set=set_id, shares=tuple(placed))

    def take_back(self, request: ServeRequest) -> None:
        """Remove the shares that `place` placed: the request came to nothing."""
        if request.set in self._in_hand and request.shares is not None:
            self._withdraw(request.set, len(request.shares))

    def columns(self, request: ServeRequest) -> dict[str, Any]:
        """What the row of the version says of the set."""
        provider = request.crypto_provider
        return {
            "share_set": request.set,
            "share_precision": request.precision,
            "share_provider": None if provider is None else orjson.dumps(provider).decode(),
        }

    def declare(self, tx: Transaction, row: VersionRow, request: ServeRequest) -> None:
        """Note where the shares are, in the transaction that publishes. Raises SharePlacementFailed."""
        given, set_id = request.shares or (), request.set or ""
        ours = set_id in self._in_hand
        values = [
            {
                "model": row.number,
                "version": row.version,
                "index": index,
                "worker": share["worker"],
                "address": checked_address(share["address"]),
                "sha256": share["sha256"],
                "placed": ours,
            }
            for index, share in enumerate(given)
        ]
        tx.execute(insert(shares), values)
        if ours:
            self._placing.settled(tx, set_id, len(given))
            tx.on_commit(lambda: self._in_hand.discard(set_id))

    def check_share(self, _caller: ModelCaller, request: ServeRequest, path: Path) -> dict[str, Any]:
        """The columns of a share that this node is to hold. Raises InvalidModel, InvalidPayload."""
        found = self._splitting.describe(path)
        if request.model_id != found["share_id"]:
            raise invalid("model_id", f"must be {found['share_id']} for this share")
        return {
            "share_set": found["set"],
            "share_precision": found["precision"],
            "share_token_sha256": request.share_token_sha256,
        }

    # --- deleting

    def take_back_later(self, tx: Transaction, model_id: str, version: int | None) -> None:
        """The shares that this node placed for the model, or for one version, are removed after this transaction."""
        found = (
            select(models.c.id, shares)
            .select_from(models.join(shares, shares.c.model == models.c.number))
            .where(models.c.id == model_id, shares.c.placed.is_(True))
        )
        if version is not None:
            found = found.where(shares.c.version == version)
        gone = tx.execute(found).all()
        sets = {number: rows.find(tx, model_id, number).share_set or "" for number in {one.version for one in gone}}
        self._placing.take_back_later(tx, [(share_id(sets[one.version], one.index), one.address) for one in gone])

    def tend(self) -> None:
        """Remove from the peers what is due; to be called every few seconds on a loop of its own."""
        self._placing.tend()

    # --- inside

    def _parts(self, request: ServeRequest, set_id: str, split: list[SplitShare]) -> list[Part]:
        return [
            Part(
                share_id=share_id(set_id, index),
                sha256=one.sha256,
                size=one.size,
                read=partial(self._read, one.descriptor),
                token_sha256=request.share_token and token_digest(share_token(request.share_token, set_id, index)),
            )
            for index, one in enumerate(split)
        ]

    def _read(self, descriptor: int, offset: int, length: int) -> bytes:
        """In pieces, because each native thread keeps memory for the largest that it ever read."""
        starts = range(offset, offset + length, CHUNK)
        return b"".join(self._offload(os.pread, descriptor, min(CHUNK, offset + length - at), at) for at in starts)

    def _withdraw(self, set_id: str, count: int) -> None:
        try:
            self._placing.take_back(set_id, count)
        finally:
            self._in_hand.discard(set_id)


def _details(row: VersionRow, found: list[Any]) -> dict[str, Any]:
    listed = [{"worker": one.worker, "address": one.address, "index": one.index, "sha256": one.sha256} for one in found]
    return {"set": row.share_set, "shares": listed}
