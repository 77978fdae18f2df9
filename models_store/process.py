"""The process that runs models: `python -I -m models_store.process CONFIG`, started by the node and by nobody else.

It has one connected socket, a page shared with the node and the end of a pipe; no database, no network, an empty
environment. It reads requests in its main thread; each loaded model has a thread of its own, and so have the checks
at serve time. When the node is gone, however it went, the kernel ends it (SIGIO of the pipe), whatever it is doing.
"""

import contextlib
import fcntl
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from models_store import sandbox, signatures
from models_store.batching import Request
from models_store.board import DESCRIBING, Board
from models_store.cache import Loaded, TooLarge
from models_store.config import Config
from models_store.errors import InferenceFailed, InvalidModel, ModelError
from models_store.formats import SAFETENSORS
from models_store.layers import Factory
from models_store.protocol import GONE, NOT_READY, Buffer, Frame, FrameReader, Kind, frame, send, tensors_of
from models_store.runner import Limits, Runner, failure
from models_store.runtime import Abilities, Source
from models_store.tensors import Signature
from models_store.warmth import warm

NICE = 5
MEMORY_SLACK = 4 * 1024**3
"""Bytes that threads, their stacks and the intermediate tensors of all models may take beside the weights."""
THREADS_SLACK = 64
"""Threads of the process itself, and of models that are about to leave."""
DESCRIPTORS_MAX = 64
_ANCILLARY = socket.CMSG_SPACE(4 * DESCRIPTORS_MAX)


class Server:
    """Takes frames of the node and gives them to the threads that do the work."""

    def __init__(self, config: Config, peer: socket.socket, board: Board, abilities: Abilities) -> None:
        self._limits = Limits(config.rows_max, config.delay, config.idle, config.answer_max)
        self._peer = peer
        self._board = board
        self._abilities = abilities
        self._reader = FrameReader(self._receive, config.request_max)
        self._descriptors: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._loaded: Loaded[Runner] = Loaded(config.memory, models_max(config.threads))
        self._checks: queue.SimpleQueue[tuple[Frame, int]] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._takes: dict[int, Callable[[Frame], None]] = {
            Kind.LOAD: self._load,
            Kind.INFER: self._infer,
            Kind.UNLOAD: self._unload,
            Kind.DESCRIBE: self._describe,
            Kind.PING: lambda one: self.say(frame(Kind.PONG, one.id)),
        }

    def serve(self) -> None:
        """Returns when the node closes the socket, or when something failed here that must not fail."""
        threading.Thread(target=self._check_all, name="checks", daemon=True).start()
        try:
            while frames := self._reader.read():
                for one in frames:
                    self._takes[one.kind](one)
        except Exception as error:  # noqa: BLE001 - the boundary of the process; the node logs the class
            self.say(frame(Kind.BROKEN, 0, type(error).__name__))

    def say(self, buffers: Sequence[Buffer]) -> None:
        with self._sending, contextlib.suppress(OSError):
            send(self._peer, buffers)

    def _receive(self, buffer: memoryview) -> int:
        count, ancillary, _, _ = self._peer.recvmsg_into([buffer], _ANCILLARY)
        for _level, _kind, data in ancillary:
            for start in range(0, len(data) - len(data) % 4, 4):
                self._descriptors.put(int.from_bytes(data[start : start + 4], sys.byteorder))
        return count

    # --- loads and inferences -------------------------------------------------------------------------------------

    def _load(self, one: Frame) -> None:
        meta = one.json()
        source = Source(self._descriptors.get(timeout=1), meta["format"], meta["architecture"])
        signature = Signature.of(meta["signature"])
        runner = Runner(
            one.id, meta["slot"], signature, self._abilities, self._limits, self._board, self.say, self._retire
        )
        try:
            with self._lock:
                leaving = self._loaded.admit(one.id, meta["size"], runner)
            for other in leaving:
                other.stop()
            runner.begin(source, leaving)
        except TooLarge:
            self._not_loaded(one.id, source, "the model is larger than compute_memory")
        except RuntimeError:  # no thread to be had
            self._not_loaded(one.id, source, "too many models are loaded")

    def _not_loaded(self, number: int, source: Source, text: str) -> None:
        source.close()
        self._retire(number, force=True)
        self.say(frame(Kind.GONE, number, {"code": NOT_READY, "text": text, "error": ""}))

    def _infer(self, one: Frame) -> None:
        number, deadline, shaped = one.json()
        with self._lock:
            runner = self._loaded.use(number)
            if runner is not None:
                names = [spec.name for spec in runner.model.signature.inputs]
                inputs = tensors_of(names, shaped, one.data)
                runner.inbox.put(Request(one.id, inputs, deadline, time.monotonic()))
                return
        self.say(frame(Kind.FAILED, one.id, {"code": GONE, "text": "", "error": ""}))

    def _unload(self, one: Frame) -> None:
        with self._lock:
            runner = self._loaded.remove(one.id)
        if runner is not None:
            runner.stop(drop=True)

    def _retire(self, number: int, force: bool = False) -> bool:
        """Take a model out of the table, without `force` only if no request came meanwhile."""
        with self._lock:
            runner = self._loaded.peek(number)
            if runner is not None and not force and not runner.inbox.empty():
                return False
            self._loaded.remove(number)
            return True

    # --- checks at serve time -------------------------------------------------------------------------------------

    def _describe(self, one: Frame) -> None:
        self._checks.put((one, self._descriptors.get(timeout=1)))

    def _check_all(self) -> None:
        while True:
            one, descriptor = self._checks.get()
            self._board.begin(DESCRIBING, time.monotonic())
            try:
                answer = frame(Kind.RESULT, one.id, self._checked(one, descriptor))
            except Exception as error:  # noqa: BLE001 - the boundary of this thread; the node logs the class
                problem = error if isinstance(error, ModelError) else _damaged(error)
                answer = frame(Kind.FAILED, one.id, failure(problem))
            finally:
                self._board.end(DESCRIBING)
                os.close(descriptor)
            self.say(answer)

    def _checked(self, one: Frame, descriptor: int) -> dict[str, Any]:
        meta = one.json()
        source = Source(descriptor, meta["format"], meta["architecture"])
        wish = signatures.Wish(meta["inputs"], meta["outputs"], meta["batchable"])
        try:
            return signatures.describe(source, wish, self._abilities).body()
        except InferenceFailed as error:
            raise InvalidModel(str(error)) from error


def models_max(threads: int) -> int:
    """How many models may be loaded: each has a thread of its own, which starts `threads - 1` more in torch."""
    return max(1, (sandbox.THREADS_MAX - THREADS_SLACK) // max(1, threads))


def _damaged(error: Exception) -> ModelError:
    problem = InvalidModel("the model could not be built")
    problem.__cause__ = error
    return problem


def die_with_the_node() -> None:
    """Let the kernel end this process as soon as nobody holds the other end of stdin, also inside a C call."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    os.set_blocking(0, False)
    with contextlib.suppress(BlockingIOError):
        if os.read(0, 1) == b"":  # it went before we could ask
            raise SystemExit(0)


def factory(place: str) -> Factory:
    """`module:function`."""
    module, _, name = place.partition(":")
    found: Factory = getattr(importlib.import_module(module), name)
    return found


def main(config: Config) -> None:
    die_with_the_node()
    os.nice(NICE)
    sys.path[:0] = config.paths
    factories = {name: factory(place) for name, place in config.factories.items()}
    warm(config.formats)
    null = os.open(os.devnull, os.O_WRONLY)
    board = Board(config.board)
    os.close(config.board)
    peer = socket.socket(fileno=config.socket)
    peer.setblocking(True)  # the node's green sockets come in non-blocking pairs
    confinement = sandbox.confine(
        read=sandbox.python_files(), memory=config.memory + MEMORY_SLACK, cpu_seconds=None, file_size=0
    )
    torch.set_num_threads(config.threads)  # not before: it starts threads
    formats = {SAFETENSORS, *(config.formats if confinement.is_tight else ())}
    server = Server(config, peer, board, Abilities(frozenset(formats), factories, config.device))
    ready = {"device": config.device, "confinement": asdict(confinement), "formats": sorted(formats)}
    server.say(frame(Kind.READY, 0, ready))
    os.dup2(null, 1)  # what a model prints reaches nobody
    os.dup2(null, 2)
    server.serve()
    os._exit(0)  # the threads of models need not agree


if __name__ == "__main__":
    main(Config.of(sys.argv[1]))
