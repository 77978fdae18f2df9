"""Running hosted models: who may, with what, and for how long. The tensor work is the compute processes'.

One prepared read a request decides whether the version is there and may be run. What is kept in memory between
requests are things of a version that never change, under a key that is never given again.
"""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select

from grid_node.blobs.store import Blobs
from grid_node.compute.port import Compute, Runnable
from grid_node.database import Store, Transaction
from grid_node.errors import (
    FormatNotRunnable,
    InferenceTimeout,
    InferenceTooLarge,
    ModelCorrupt,
    ModelNotReady,
    NotFound,
)
from grid_node.hosting import rows
from grid_node.hosting.inference_data import arranged, given_tensors
from grid_node.hosting.refusal import refused
from grid_node.hosting.rights import ModelCaller, require_inference
from grid_node.hosting.rows import VersionRow
from grid_node.hosting.schemas import known_id
from grid_node.hosting.tensors_json import nested
from grid_node.settings import Settings
from grid_node.statements import prepared
from models_store.tensors import DATATYPES, Signature, Tensor

KILLS_MAX = 3
"""Compute processes that may die over a version before it waits for the operator."""
REMEMBERED = 1000
"""Versions whose signature is kept parsed."""
PLATFORMS = {"torchscript": "pytorch_torchscript", "torch_export": "pytorch_export"}
STATE_DICT_PLATFORM = "pytorch_safetensors"

Loaded = tuple[VersionRow, Runnable]
CheckOutput = Callable[[str, str], None]
"""Called with name and datatype of each output that is to come; raises to refuse the request before it runs."""

_RUNNABLE = prepared(
    select(rows.models.c.id, rows.versions.c.version, rows.models.c.number, rows.versions.c.kills)
    .join(rows.versions, rows.versions.c.model == rows.models.c.number)
    .where(
        rows.models.c.place.is_not(None),
        rows.models.c.hidden.is_(False),
        rows.versions.c.allow_remote_inference.is_(True),
    )
    .order_by(rows.models.c.place, rows.versions.c.version)
)
_VERSIONS = prepared(
    select(rows.versions.c.version)
    .where(rows.versions.c.model == bindparam("of"), rows.versions.c.allow_remote_inference.is_(True))
    .order_by(rows.versions.c.version)
)


@dataclass(frozen=True)
class Described:
    """A version that the caller may run. `versions` are all of its model that may be run."""

    row: VersionRow
    signature: Signature
    versions: tuple[int, ...]

    @property
    def platform(self) -> str:
        return PLATFORMS.get(self.row.format, STATE_DICT_PLATFORM)


@dataclass(frozen=True)
class Standing:
    """Whether a version would answer now; `reason` says why not."""

    model_id: str
    version: int
    reason: str


class Inference:
    """`/run_inference` and the Open Inference Protocol."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        compute: Compute,
        settings: Settings,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._compute = compute
        self._settings = settings
        self._timer = timer
        self._runnables: OrderedDict[str, Runnable] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self,
        caller: ModelCaller,
        model_id: str,
        version: int | None,
        inputs: Sequence[Tensor],
        wanted: Sequence[str] = (),
        timeout: float | None = None,
        arrived: float | None = None,
        check_output: CheckOutput | None = None,
    ) -> tuple[VersionRow, list[Tensor]]:
        """The outputs asked for, in that order; without `wanted` all of them, in the order of the signature.

        `timeout` in seconds can only shorten the node's own, which counts from `arrived` (on the service's timer).
        Raises ModelNotFound, InferenceNotAllowed, ModelNotReady, InvalidPayload, InferenceTimeout and what the compute
        processes raise.
        """
        deadline = self._deadline(arrived, timeout)
        row, runnable = self._loaded(caller, model_id, version)
        names = _wanted_names(runnable.signature, wanted)
        if check_output is not None:
            _check_outputs(runnable.signature, names, check_output)
        ordered = arranged(runnable.signature, inputs)
        outputs = self._infer(runnable, ordered, deadline)
        if wanted:
            found = {tensor.name: tensor for tensor in outputs}
            outputs = [found[name] for name in names]
        return row, outputs

    def predict(self, caller: ModelCaller, fields: dict[str, Any], most: int | None = None) -> dict[str, Any]:
        """`/run_inference` with the members of InferenceSchema; raises what `run` raises, NonFiniteOutput, and
        InferenceTooLarge for more than `most` elements."""
        outputs = self.predicted(caller, fields)
        if most is not None and sum(len(one.data) // DATATYPES[one.datatype] for one in outputs) > most:
            raise InferenceTooLarge("The outputs are too large for an event; HTTP gives them", limit=most)
        lists = {tensor.name: nested(tensor) for tensor in outputs}
        answer = {"success": True, "prediction": lists[outputs[0].name]}
        return answer if len(outputs) == 1 else {**answer, "outputs": lists}

    def predicted(self, caller: ModelCaller, fields: dict[str, Any]) -> list[Tensor]:
        """The same as tensors."""
        deadline = self._deadline(None, None)
        _, runnable = self._loaded(caller, fields["model_id"], fields.get("version"))
        inputs = given_tensors(runnable.signature, fields["data"], fields.get("encoding"))
        return self._infer(runnable, arranged(runnable.signature, inputs), deadline)

    def now(self) -> float:
        """Seconds on the service's timer."""
        return self._timer()

    # --- what may be known of a model

    def describe(self, caller: ModelCaller, model_id: str, version: int | None = None) -> Described:
        """Raises ModelNotFound, InferenceNotAllowed, FormatNotRunnable."""
        name = known_id(model_id)

        def read(tx: Transaction) -> tuple[VersionRow, tuple[int, ...]]:
            row = rows.find(tx, name, version)
            require_inference(caller, row)
            return row, tuple(one[0] for one in tx.execute(_VERSIONS, {"of": row.number}))

        row, versions = self._store.read(read)
        return Described(row, _signature(row), versions)

    def check_ready(self, caller: ModelCaller, model_id: str, version: int | None = None) -> str:
        """The id. Raises ModelNotFound, InferenceNotAllowed, ModelNotReady.

        A version that is not loaded is ready: the first request loads it.
        """
        row = self._find(caller, model_id, version)
        reason = self._why_not(row.key, row.kills)
        if reason:
            raise ModelNotReady(f"The model is not ready: {reason}", retry_after=1)
        return row.id

    def standings(self) -> list[Standing]:
        """Every version that may be run, oldest model first."""
        found = self._store.read(lambda tx: tx.execute(_RUNNABLE).all())
        return [Standing(row.id, row.version, self._why_not(f"{row.number}/{row.version}", row.kills)) for row in found]

    # --- steps

    def _deadline(self, arrived: float | None, timeout: float | None) -> float:
        limit = self._settings.infer_timeout
        start = self._timer() if arrived is None else arrived
        return start + (limit if timeout is None else min(limit, timeout))

    def _loaded(self, caller: ModelCaller, model_id: str, version: int | None) -> Loaded:
        row = self._find(caller, model_id, version)
        if row.kills >= KILLS_MAX:
            raise ModelNotReady(_KILLED, retry_after=60)
        return row, self._runnables.get(row.key) or self._remember(row)

    def _find(self, caller: ModelCaller, model_id: str, version: int | None) -> VersionRow:
        name = known_id(model_id)
        row = self._store.read(lambda tx: rows.find(tx, name, version))
        require_inference(caller, row)
        return row

    def _remember(self, row: VersionRow) -> Runnable:
        """Nothing of a version changes, and its key is never given again."""
        runnable = self._runnable(row)
        with self._lock:
            self._runnables[row.key] = runnable
            while len(self._runnables) > REMEMBERED:
                self._runnables.popitem(last=False)
        return runnable

    def _runnable(self, row: VersionRow) -> Runnable:
        digest = row.derived_sha256 or row.sha256
        if digest is None:
            raise FormatNotRunnable()
        return Runnable(
            key=row.key,
            format=row.format if row.format in PLATFORMS else "safetensors",
            size=self._size(row),
            architecture=None if row.architecture is None else json.loads(row.architecture),
            signature=_signature(row),
            file=partial(self._file, digest),
        )

    def _size(self, row: VersionRow) -> int:
        if row.derived_sha256 is None:
            return row.size
        try:
            return self._blobs.size(row.derived_sha256)
        except NotFound:
            raise ModelCorrupt(retry_after=60) from None

    def _file(self, sha256: str) -> Path:
        try:
            return self._blobs.path(sha256)
        except NotFound:
            raise ModelCorrupt(retry_after=60) from None

    def _infer(self, runnable: Runnable, inputs: list[Tensor], deadline: float) -> list[Tensor]:
        left = deadline - self._timer()
        if left <= 0:
            raise InferenceTimeout()
        return self._compute.infer(runnable, inputs, left)

    def _why_not(self, key: str, kills: int) -> str:
        if kills >= KILLS_MAX:
            return _KILLED
        return "it could not be loaded" if self._compute.state(key) == "failed" else ""


_KILLED = "it ended the process that runs models too often, and waits for the operator"


def _signature(row: VersionRow) -> Signature:
    signature = row.takes
    if signature is None:
        raise FormatNotRunnable()
    return signature


def _wanted_names(signature: Signature, wanted: Sequence[str]) -> list[str]:
    names = [spec.name for spec in signature.outputs]
    for name in wanted:
        if name not in names:
            raise refused(f"output {name}: the model has no such output", name)
    return list(wanted) or names


def _check_outputs(signature: Signature, names: list[str], check: CheckOutput) -> None:
    for spec in signature.outputs:
        if spec.name in names:
            check(spec.name, spec.datatype)
