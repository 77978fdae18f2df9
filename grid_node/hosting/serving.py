"""Serving a model: what may be refused before its bytes, what only they can tell, and the transaction that publishes.

Order that makes a crash harmless: bytes durable under their digest and held, format checked, then one transaction
with the row and its references; nothing is answered before the commit.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from grid_node.blobs.holds import Hold, Holds
from grid_node.blobs.store import CHUNK, Blob, Blobs
from grid_node.clock import Clock
from grid_node.compute.port import Compute
from grid_node.database import Store, Transaction
from grid_node.errors import (
    FormatNotRunnable,
    GridError,
    InvalidPayload,
    ModelFormatNotAvailable,
    Sha256Mismatch,
)
from grid_node.hosting import rows
from grid_node.hosting.encoding import decoded
from grid_node.hosting.replays import Replays, Served
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.rows import Quota, VersionRow
from grid_node.hosting.schemas import ServeRequest
from grid_node.settings import Settings
from models_store.tensors import Signature

WITH_CODE = ("torchscript", "torch_export")
STATE_DICTS = ("safetensors", "syft-0.9.5")
"""Formats whose values run through an architecture of ours."""


class Checked(Protocol):
    """What the check of a format found."""

    @property
    def format(self) -> str:
        """The declared format, or the one that was found."""

    @property
    def derived(self) -> Path | None:
        """A safetensors file made of the bytes, for the caller to move away."""


class Checks(Protocol):
    """Looks at bytes without running anything of them."""

    def check(self, path: Path, size: int, declared: str | None) -> Checked:
        """Raises InvalidModel, ModelFormatNotAvailable."""


class SharedModels(Protocol):
    """The part of serving that knows shares."""

    def check(self, caller: ModelCaller, request: ServeRequest, has_bytes: bool) -> None:
        """Raises InvalidPayload, MissingKey, SharePeerNotAllowed."""

    def place(self, caller: ModelCaller, request: ServeRequest, blob: Blob) -> ServeRequest:
        """Split the model and place its shares; the request as if the client had done so."""

    def take_back(self, request: ServeRequest) -> None:
        """Remove the shares that `place` placed: the request came to nothing."""

    def columns(self, request: ServeRequest) -> dict[str, Any]:
        """What the row of the version says of the set."""

    def declare(self, tx: Transaction, row: VersionRow, request: ServeRequest) -> None:
        """Note where the shares are."""

    def check_share(self, caller: ModelCaller, request: ServeRequest, path: Path) -> dict[str, Any]:
        """The columns of a share that this node is to hold. Raises InvalidModel, InvalidPayload."""


class Serving:
    """`/serve_model`, whichever way its bytes come."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        blobs: Blobs,
        holds: Holds,
        checks: Checks,
        compute: Compute,
        shared: SharedModels,
        replays: Replays,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._blobs = blobs
        self._holds = holds
        self._checks = checks
        self._compute = compute
        self._shared = shared
        self._replays = replays

    def serve(self, caller: ModelCaller, request: ServeRequest, content: Blob | None = None) -> Served:
        """Publish; `content` is given where the bytes were streamed into the store, else they are in the request.

        Raises InvalidPayload, ModelExists, ModelNotFound, VersionConflict, Forbidden, QuotaExceeded, InvalidModel,
        Sha256Mismatch, ModelFormatNotAvailable, FormatNotRunnable, IdempotencyConflict and those of the ports.
        """
        size = content.size if content else len(request.model or b"")
        self.check(caller, request, size)
        if size == 0:
            return self._publish_shared(caller, request, None)
        blob = content or self._blobs.put(decoded(request.model or b"", request.encoding))
        return self.publish(caller, request, blob)

    def check(self, caller: ModelCaller, request: ServeRequest, size: int) -> None:
        """Everything that can be refused before the bytes are there; `size` of them are to come."""
        self._check_fields(caller, request, size)
        self._store.read(lambda tx: self._check_rows(tx, caller, request, size))

    def publish(self, caller: ModelCaller, request: ServeRequest, blob: Blob, request_id: str | None = None) -> Served:
        """The bytes are in the store. With a `request_id` it may be called again and answers the same."""
        if request_id is not None:
            request = replace(request, idempotency_key=request.idempotency_key or request_id)
        with self._holds.hold(blob) as held:
            if request.sha256 is not None and request.sha256 != blob.sha256:
                raise Sha256Mismatch()
            first = self._store.read(lambda tx: self._replays.find(tx, caller, request, self._clock.now()))
            if first is not None:
                return self._replays.answer(first, request, blob)
            if request.mpc:
                return self._publish_shared(caller, request, blob)
            return self._publish(caller, request, held)

    def purge(self, tx: Transaction, now: float) -> None:
        """Forget the answers that nobody may ask for again."""
        self._replays.purge(tx, now)

    # --- before the bytes

    def _check_fields(self, caller: ModelCaller, request: ServeRequest, size: int) -> None:
        self._shared.check(caller, request, size > 0)
        if size == 0 and not request.mpc:
            raise InvalidPayload(fields={"model": ["Missing data for required field."]})
        if request.format in WITH_CODE and not (
            caller.may_bring_code and request.format in self._settings.formats_with_code
        ):
            raise ModelFormatNotAvailable()
        if request.format == "syft-0.9.5" and not self._settings.syft_python:
            raise ModelFormatNotAvailable()
        if request.architecture is not None and request.format not in (None, *STATE_DICTS):
            raise InvalidPayload(fields={"architecture": [f"is not for format {request.format}"]})
        if request.allow_remote_inference and request.format in ("opaque", "share"):
            raise FormatNotRunnable()

    def _check_rows(self, tx: Transaction, caller: ModelCaller, request: ServeRequest, size: int) -> None:
        """A request that was answered before is judged when its bytes are known.

        Whether it was is asked after what its model stands in the way of: the two became visible together.
        """
        try:
            rows.check_next(tx, caller, request.model_id, request.version)
            rows.check_quota(tx, caller.key_id, size, self._quota(caller))
        except GridError:
            if self._replays.find(tx, caller, request, self._clock.now()) is None:
                raise

    def _quota(self, caller: ModelCaller) -> Quota:
        settings = self._settings
        if caller.is_anonymous:
            return Quota(settings.models_anonymous_quota_bytes, settings.models_anonymous_quota_count)
        return Quota(settings.models_quota_bytes, settings.models_quota_count)

    # --- with the bytes

    def _publish(self, caller: ModelCaller, request: ServeRequest, held: Hold) -> Served:
        blob = held.blob
        path = self._blobs.path(blob.sha256)
        checked = self._checks.check(path, blob.size, request.format)
        columns = {} if checked.format != "share" else self._shared.check_share(caller, request, path)
        with self._derived(checked) as derived:
            runs = path if derived is None else self._blobs.path(derived.blob.sha256)
            signature = self._signature(request, checked.format, runs)
            values = self._values(request, checked.format, blob, signature) | columns
            values["derived_sha256"] = derived and derived.blob.sha256

            def unit(tx: Transaction) -> Served:
                for one in (held, derived):
                    if one is not None:
                        one.release(tx)
                return self._insert(tx, caller, request, blob, values)

            return self._store.write(unit)

    def _publish_shared(self, caller: ModelCaller, request: ServeRequest, blob: Blob | None) -> Served:
        """An encrypted model: this node keeps the table of shares, and the plaintext in no case."""
        placed = request if blob is None else self._shared.place(caller, request, blob)
        values = self._values(placed, request.format or "safetensors", None, None) | self._shared.columns(placed)
        try:
            return self._store.write(lambda tx: self._insert(tx, caller, request, blob, values, placed))
        except BaseException:
            if blob is not None:
                self._shared.take_back(placed)
            raise

    @contextmanager
    def _derived(self, checked: Checked) -> Iterator[Hold | None]:
        """What the check made of the bytes, in the store and held; its file is gone when this is entered or raises."""
        if checked.derived is None:
            yield None
            return
        try:
            blob = self._adopt(checked.derived)
        finally:
            checked.derived.unlink(missing_ok=True)
        with self._holds.hold(blob) as held:
            yield held

    def _adopt(self, file: Path) -> Blob:
        """The derived file is ours and small enough to have been written by a bounded process."""
        with self._blobs.writer(self._settings.syft_expanded_max * 2) as writer, file.open("rb") as opened:
            while piece := opened.read(CHUNK):
                writer.write(piece)
            return writer.commit()

    def _signature(self, request: ServeRequest, form: str, runs: Path) -> Signature | None:
        """What the model takes and gives, if it can run. Raises FormatNotRunnable, InvalidModel, InvalidPayload."""
        if request.architecture is not None and form not in STATE_DICTS:
            raise InvalidPayload(fields={"architecture": [f"is not for format {form}"]})
        runnable = form in WITH_CODE or (form in STATE_DICTS and request.architecture is not None)
        if not runnable:
            if request.allow_remote_inference:
                wants = "A state dict runs with an architecture" if form in STATE_DICTS else None
                raise FormatNotRunnable(wants)
            return None
        form = "safetensors" if form in STATE_DICTS else form
        inputs, outputs = _plain(request.inputs), _plain(request.outputs)
        return self._compute.describe(runs, form, request.architecture, inputs, outputs, request.batchable)

    def _values(
        self, request: ServeRequest, form: str, blob: Blob | None, signature: Signature | None
    ) -> dict[str, Any]:
        return {
            "sha256": blob and blob.sha256,
            "size": blob.size if blob else 0,
            "format": form,
            "allow_download": request.allow_download,
            "allow_remote_inference": request.allow_remote_inference,
            "mpc": request.mpc,
            "tags": json.dumps(list(dict.fromkeys(request.tags)), ensure_ascii=False),
            "description": request.description,
            "signature": signature and json.dumps(signature.body()),
            "architecture": request.architecture and json.dumps(request.architecture),
            "created_at": self._clock.now(),
        }

    def _insert(
        self,
        tx: Transaction,
        caller: ModelCaller,
        request: ServeRequest,
        blob: Blob | None,
        values: dict[str, Any],
        placed: ServeRequest | None = None,
    ) -> Served:
        """`placed` is the request with the shares of an encrypted model, as they were placed."""
        now = self._clock.now()
        rows.one_at_a_time(tx, caller.key_id)
        first = self._replays.find(tx, caller, request, now)
        if first is not None:
            return self._replays.answer(first, request, blob)
        rows.check_quota(tx, caller.key_id, values["size"], self._quota(caller))
        hidden = values["format"] == "share"
        values = {**values, "owner": caller.key_id}
        row = rows.add(tx, caller, request.model_id, request.version, hidden, values)
        if placed is not None:
            self._shared.declare(tx, row, placed)
        served = Served(row.id, row.version, row.sha256)
        self._replays.remember(tx, caller, request, blob, served, now)
        return served


def _plain(specs: tuple[dict[str, Any], ...] | None) -> list[dict[str, Any]] | None:
    return None if specs is None else [dict(one) for one in specs]
