"""The thread of one loaded model: takes batches, runs them, answers."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models_store.batching import Batcher, Request
from models_store.board import Board
from models_store.errors import InferenceFailed, InvalidModel, ModelError, NotRunnable
from models_store.protocol import GONE, NOT_READY, Buffer, Kind, frame, memoryview_size, shapes
from models_store.runtime import Abilities, Model, Source
from models_store.tensors import Signature, Tensor

Say = Callable[[Sequence[Buffer]], None]
"""Sends frames to the node; may be called by any thread."""

CODES: dict[type[ModelError], str] = {
    InvalidModel: "invalid_model",
    NotRunnable: "format_not_runnable",
    InferenceFailed: "inference_failed",
}
"""Codes of the node's error table."""


@dataclass(frozen=True)
class Limits:
    rows_max: int
    delay: float
    """Seconds that a batch waits for more requests."""
    idle: float
    """Seconds after which a model that nobody asks is unloaded."""
    answer_max: int
    """Bytes of the outputs of one request."""


def failure(error: Exception) -> dict[str, str]:
    """What the node is told of an error: a code, a text of ours, and the class of its cause for the log."""
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), NOT_READY)
    text = str(error) if isinstance(error, ModelError) else "the model could not be loaded"
    return {"code": code, "text": text, "error": type(error.__cause__ or error).__name__}


class Runner(threading.Thread):
    """One load of a model. `retire` takes it out of the table: if its inbox is empty, or in any case (second argument
    true); it returns whether it did."""

    def __init__(
        self,
        number: int,
        slot: int,
        signature: Signature,
        abilities: Abilities,
        limits: Limits,
        board: Board,
        say: Say,
        retire: Callable[[int, bool], bool],
    ) -> None:
        super().__init__(name=f"model-{number}", daemon=True)
        self.number = number
        self.inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.model = Model(signature, abilities.device)
        self.source: Source | None = None
        self.before: Sequence[threading.Thread] = ()
        self.dropped = False
        self._slot = slot
        self._abilities = abilities
        self._limits = limits
        self._board = board
        self._say = say
        self._retire = retire

    def begin(self, source: Source, before: Sequence[threading.Thread]) -> None:
        """Start. `before`: models that must be gone before this one takes memory; `source` is closed here."""
        self.source, self.before = source, before
        self.start()

    def stop(self, drop: bool = False) -> None:
        """End after what is in the inbox; with `drop`, without answering it."""
        self.dropped = self.dropped or drop
        self.inbox.put(None)

    def run(self) -> None:
        problem = self._setup()
        if problem is None:
            self._say(frame(Kind.LOADED, self.number))
            self._serve()
        else:
            self._retire(self.number, True)
            self._refuse(problem)
        self._say(frame(Kind.GONE, self.number, problem))

    def _setup(self) -> dict[str, str] | None:
        """Why it failed, or None."""
        assert self.source is not None
        for thread in self.before:
            thread.join()
        self.before = ()
        self._board.begin(self._slot, time.monotonic())
        try:
            self.model.setup(self.source, self._abilities)
        except Exception as error:  # noqa: BLE001 - the boundary of this thread; the node logs the class
            return failure(error)
        finally:
            self._board.end(self._slot)
            self.source.close()
        return None

    def _serve(self) -> None:
        limits = self._limits
        joins = self.model.signature.batchable
        batcher = Batcher(self.inbox, limits.rows_max, limits.delay, joins, time.monotonic)
        while True:
            batch = batcher.next(limits.idle)
            if batch is None or (not batch and self._retire(self.number, False)):
                break
            if batch and not self.dropped:
                self._answer(batch)
        self._refuse({"code": GONE, "text": "", "error": ""})

    def _refuse(self, problem: dict[str, str]) -> None:
        """Answer what is left in the inbox."""
        problem = {**problem, "code": problem["code"] if problem["code"] == GONE else NOT_READY}
        while True:
            try:
                request = self.inbox.get(False)
            except queue.Empty:
                return
            if request is not None and not self.dropped:
                self._say(frame(Kind.FAILED, request.id, problem))

    def _answer(self, batch: Sequence[Request]) -> None:
        """Run the batch and answer each member; if it fails, once more one by one."""
        try:
            answers = self._execute(batch)
        except Exception as error:  # noqa: BLE001 - the boundary of this thread; the node logs the class
            if len(batch) > 1:
                for request in batch:
                    self._answer([request])
            else:
                self._say(frame(Kind.FAILED, batch[0].id, failure(error)))
            return
        parts: list[Buffer] = []
        for request, outputs in zip(batch, answers, strict=True):
            parts += self._result(request.id, outputs)
        self._say(parts)

    def _execute(self, batch: Sequence[Request]) -> list[list[Tensor]]:
        model = self.model
        self._board.begin(self._slot, time.monotonic())
        try:
            outputs = model.predict(model.decode([request.inputs for request in batch]))
            return model.encode(outputs, [request.rows for request in batch])
        finally:
            self._board.count(self._slot)
            self._board.end(self._slot)

    def _result(self, number: int, outputs: Sequence[Tensor]) -> list[Buffer]:
        data: list[Any] = [tensor.data for tensor in outputs]
        if sum(map(memoryview_size, data)) > self._limits.answer_max:
            error = InferenceFailed("the outputs are larger than an answer may be")
            return frame(Kind.FAILED, number, failure(error))
        return frame(Kind.RESULT, number, shapes(outputs), data)
