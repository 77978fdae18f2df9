"""Runs models in processes of their own: which process, what it has loaded, and what its answers mean.

Fulfils `grid_node.compute.port.Compute`. A request costs two frames; bytes of tensors are not copied here.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from grid_node.compute.loads import Load, NoSlot
from grid_node.compute.pool import Pool
from grid_node.compute.port import Runnable
from grid_node.compute.processes import Late, Process, ProcessDied
from grid_node.errors import (
    ComputeUnavailable,
    FormatNotRunnable,
    GridError,
    InferenceFailed,
    InferenceTimeout,
    InferenceTooLarge,
    InvalidModel,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
)
from grid_node.settings import Settings
from models_store.config import Config
from models_store.protocol import GONE, Kind, ProtocolError, memoryview_size, shapes, tensors_of
from models_store.tensors import Signature, Tensor

log = logging.getLogger(__name__)

ARCHITECTURES = "grid_node.architectures"
"""Entry-point group of the operator's own architectures; see models_store/layers.py."""
EXPANSION = 4
"""A JSON number of two bytes may become eight."""
UNLOADS_MAX = 3
"""How often a request finds that its model was unloaded before it gives up."""
TEXT_MAX = 300


def registered() -> dict[str, str]:
    """Architectures of the installed packages, by name, as `module:function`."""
    return {point.name: point.value for point in entry_points(group=ARCHITECTURES)}


def config(settings: Settings, architectures: Mapping[str, str], paths: Sequence[Path]) -> Config:
    cores = os.cpu_count() or 1
    return Config(
        socket=-1,
        board=-1,
        memory=settings.compute_memory,
        threads=settings.compute_threads or max(1, cores // max(1, settings.compute_processes)),
        request_max=EXPANSION * settings.infer_max_bytes,
        answer_max=EXPANSION * settings.infer_max_bytes,
        rows_max=settings.batch_max_rows,
        delay=settings.batch_max_delay,
        idle=settings.compute_idle_unload,
        formats=sorted(settings.formats_with_code),
        factories=dict(architectures),
        paths=[str(path) for path in paths],
    )


class _Unloaded(Exception):
    """The process has let go of the model meanwhile."""


class _Queue:
    """Requests in hand for one model."""

    __slots__ = ("count", "is_forgotten")

    def __init__(self) -> None:
        self.count = 0
        self.is_forgotten = False


class ComputeProcesses:
    """See the port. `killed` hears the key of a model that was at work when its process died; it may hear several at
    a time, and a key more than once. `architectures` maps names to `module:function`, by default those of the installed
    packages; `paths` are further folders to import them from.

    The processes are started by the first request, or by `start`.
    """

    def __init__(
        self,
        settings: Settings,
        killed: Callable[[str], None],
        architectures: Mapping[str, str] | None = None,
        paths: Sequence[Path] = (),
    ) -> None:
        self._queue_max = settings.infer_queue_max
        self._infer_max = settings.infer_max_bytes
        self._check_max = settings.models_check_timeout
        self._count = settings.compute_processes
        self._formats = {"safetensors", *settings.formats_with_code}
        setup = config(settings, registered() if architectures is None else architectures, paths)
        self._request_max = setup.request_max
        self._pool = Pool(setup, self._count, settings.infer_timeout, settings.models_check_timeout, killed)
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the processes now, so that the first request need not wait for them. Returns at once."""
        self._pool.start()

    def stop(self, grace: float) -> None:
        """End them; what is in hand has `grace` seconds."""
        self._pool.stop(grace)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._pool.processes]

    @property
    def restarts(self) -> int:
        return self._pool.restarts

    @property
    def executions(self) -> int:
        """Batches run so far."""
        return self._pool.executions

    @property
    def in_hand(self) -> int:
        """Inferences that wait or run."""
        return sum(queue.count for queue in list(self._queues.values()))

    # --- the port -------------------------------------------------------------------------------------------------

    def describe(
        self,
        file: Path,
        format: str,
        architecture: dict[str, Any] | None,
        inputs: Sequence[dict[str, Any]] | None,
        outputs: Sequence[dict[str, Any]] | None,
        batchable: bool,
    ) -> Signature:
        if self._count == 0 or format not in self._formats:
            raise FormatNotRunnable
        meta = {
            "format": format,
            "architecture": architecture,
            "inputs": None if inputs is None else list(inputs),
            "outputs": None if outputs is None else list(outputs),
            "batchable": batchable,
        }
        deadline = time.monotonic() + self._check_max
        died_of_it = False
        for _ in range(2):
            try:
                process = min(self._pool.wait_ready(deadline), key=lambda one: one.in_hand)
            except InferenceTimeout:  # nobody asked for an inference
                raise ComputeUnavailable(retry_after=self._pool.retry_after()) from None
            try:
                return self._described(process, meta, file, deadline)
            except ProcessDied:
                died_of_it = any(key is None for key, _ in process.running(time.monotonic()))
        if died_of_it:
            raise InvalidModel(reason="the process that checked the model died of it")
        raise ComputeUnavailable(retry_after=self._pool.retry_after())

    def infer(self, model: Runnable, inputs: Sequence[Tensor], timeout: float) -> list[Tensor]:
        if self._count == 0:
            raise ComputeUnavailable(retry_after=60)
        size = sum(memoryview_size(tensor.data) for tensor in inputs)
        if size > self._request_max:
            raise InferenceTooLarge(limit=self._infer_max)
        deadline = time.monotonic() + timeout
        with self._in_line(model.key) as queue:
            try:
                return self._infer(model, inputs, deadline, queue)
            except Late:
                raise InferenceTimeout from None

    def state(self, key: str) -> str:
        loads = [process.loads.get(key) for process in self._pool.ready]
        states = {load.state for load in loads if load is not None}
        return next((state for state in ("ready", "loading", "failed") if state in states), "unloaded")

    def forget(self, key: str) -> None:
        queue = self._queues.get(key)
        if queue is not None:
            queue.is_forgotten = True
        for process in self._pool.processes:
            load = process.loads.drop(key)
            process.fail(key, ModelNotFound())
            if load is not None:
                with contextlib.suppress(ProcessDied):
                    process.unload(load)

    # --- one inference --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_line(self, key: str) -> Iterator[_Queue]:
        with self._lock:
            queue = self._queues.setdefault(key, _Queue())
            if queue.count >= self._queue_max:
                raise QueueFull(retry_after=1)
            queue.count += 1
        try:
            yield queue
        finally:
            with self._lock:
                queue.count -= 1
                if queue.count == 0 and self._queues.get(key) is queue:
                    del self._queues[key]

    def _infer(self, model: Runnable, inputs: Sequence[Tensor], deadline: float, queue: _Queue) -> list[Tensor]:
        """Ask, and once more after the process died; a model that was unloaded meanwhile is loaded again."""
        deaths = unloads = 0
        while not queue.is_forgotten:
            try:
                return self._ask(self._process_for(model.key, deadline), model, inputs, deadline)
            except ProcessDied:
                deaths += 1
                if deaths > 1:
                    raise ComputeUnavailable(retry_after=self._pool.retry_after()) from None
            except _Unloaded:
                unloads += 1
                if unloads > UNLOADS_MAX:
                    raise ModelNotReady(retry_after=1) from None
        raise ModelNotFound

    def _process_for(self, key: str, deadline: float) -> Process:
        """The one that has the model, else the least loaded."""
        ready = self._pool.wait_ready(deadline)
        if len(ready) == 1:
            return ready[0]
        having = [process for process in ready if process.loads.get(key) is not None]
        return min(having or ready, key=lambda one: (one.in_hand, len(one.loads)))

    def _ask(self, process: Process, model: Runnable, inputs: Sequence[Tensor], deadline: float) -> list[Tensor]:
        load = process.loads.get(model.key)
        if load is None or not load.is_sent or load.state == "failed":
            load = self._load(process, model, deadline)
        meta = (load.number, deadline, shapes(inputs))
        answer = process.ask(Kind.INFER, meta, [tensor.data for tensor in inputs], deadline, model.key)
        if answer.kind == Kind.FAILED:
            raise _problem(answer.json(), model.key)
        try:
            return tensors_of([spec.name for spec in model.signature.outputs], answer.json(), answer.data)
        except ProtocolError:
            log.error("compute process %d gave a damaged answer for %s", process.pid, model.key)
            process.kill([model.key])
            raise InferenceFailed from None

    def _load(self, process: Process, model: Runnable, deadline: float) -> Load:
        """The model's load in this process, sent by this caller or by another one.

        Raises ModelNotReady, Late, ProcessDied, and what opening the file raises.
        """
        try:
            load, is_new = process.loads.begin(model.key, time.monotonic())
        except NoSlot:
            raise ModelNotReady(retry_after=1) from None
        if is_new:
            self._send_load(process, model, load)
        elif not load.is_sent and not load.sent.wait(max(deadline - time.monotonic(), 0.0)):
            raise Late
        if load.state == "failed":
            raise _problem(load.problem, model.key, load.again_at - time.monotonic())
        if not load.is_sent:
            raise _Unloaded
        return load

    def _send_load(self, process: Process, model: Runnable, load: Load) -> None:
        meta = {
            "format": model.format,
            "architecture": model.architecture,
            "signature": model.signature.body(),
            "size": model.size,
        }
        try:
            process.load(meta, load, os.open(model.file(), os.O_RDONLY | os.O_CLOEXEC))
            load.is_sent = True
        finally:
            if not load.is_sent:
                process.loads.gone(load.number, None, time.monotonic())
            load.sent.set()

    def _described(self, process: Process, meta: dict[str, Any], file: Path, deadline: float) -> Signature:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = process.ask(Kind.DESCRIBE, meta, (), deadline, descriptor=descriptor)
        except Late:
            raise ComputeUnavailable("Checking the model took too long", retry_after=self._pool.retry_after()) from None
        if answer.kind == Kind.FAILED:
            raise _problem(answer.json(), "a new model")
        try:
            return Signature.of(answer.json())
        except (KeyError, TypeError, ProtocolError) as error:
            raise InvalidModel(reason="the check of the model failed") from error


def _problem(said: Any, key: str, pause: float = 1.0) -> Exception:
    """The error that a FAILED or GONE frame stands for. The process may be in the hands of a model: check its words."""
    said = said if isinstance(said, dict) else {}
    code, text, cause = (str(said.get(name, ""))[:TEXT_MAX] for name in ("code", "text", "error"))
    if code == GONE:
        return _Unloaded()
    level = logging.INFO if code == "inference_failed" else logging.WARNING
    log.log(level, "%s: %s (%s)", key, code if code.isidentifier() else "?", cause if cause.isidentifier() else "?")
    reason = text if text.isprintable() else ""
    errors: dict[str, GridError] = {
        "inference_failed": InferenceFailed(reason=reason),
        "invalid_model": InvalidModel(reason=reason),
        "format_not_runnable": FormatNotRunnable(reason=reason),
    }
    return errors.get(code) or ModelNotReady(reason=reason, retry_after=max(1, math.ceil(pause)))
