"""One process that runs models, as the node sees it: a child started with exec, a socket, and who waits for what.

Works with threads and, under eventlet, with green ones: what waits here waits on the module's own locks and sockets.
"""

import _thread
import contextlib
import itertools
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from grid_node.compute.loads import Load, Loads
from grid_node.compute.oneshot import module
from models_store.board import DESCRIBING, Board
from models_store.config import Config
from models_store.protocol import Buffer, Frame, FrameReader, Kind, ProtocolError, frame, memoryview_size, send

log = logging.getLogger(__name__)

AT_ONCE = 32 * 1024
"""Bytes that an idle socket takes without a wait."""
END_GRACE = 5.0
"""Seconds that a process whose socket was closed may take to end."""


class ProcessDied(Exception):
    """The process ended before it answered."""


class Late(Exception):
    """No answer until the deadline."""


class _Asked:
    """One request that waits for its answer."""

    __slots__ = ("_done", "key", "outcome")

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.outcome: Frame | Exception | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def finish(self, outcome: Frame | Exception) -> None:
        self.outcome = outcome
        self._done.release()

    def wait(self, seconds: float) -> bool:
        return self._done.acquire(timeout=max(seconds, 0.0))


class Process:
    """Started by its constructor. `ready` hears that it takes requests, `ended` that it has died or was stopped."""

    def __init__(self, config: Config, ready: Callable[["Process"], None], ended: Callable[["Process"], None]) -> None:
        self.started = time.monotonic()
        self.loads = Loads()
        self.is_ready = False
        self.formats: frozenset[str] = frozenset()
        """What it runs; known once it is ready."""
        self.is_dead = False
        self.is_stopping = False
        self.blamed: list[str] | None = None
        """Keys whose batch the node itself ended the process for; None when it died by another hand."""
        self.silent_since = 0.0
        """Since when it has been asked and has said nothing at all; 0.0 when it owes no answer, or spoke since."""
        self._ready = ready
        self._ended = ended
        self._asked: dict[int, _Asked] = {}
        self._numbers = itertools.count(1)
        self._outbox: deque[tuple[Sequence[Buffer], int | None]] = deque()
        self._sending = threading.Lock()
        self._wake = threading.Semaphore(0)
        self._woken = False
        self._child, self._socket, self.board = _start(config)
        self._reader = FrameReader(self._receive, config.answer_max)
        for loop in (self._read_all, self._write_all):
            threading.Thread(target=loop, name=f"grid-compute-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def in_hand(self) -> int:
        return len(self._asked)

    # --- asking ---------------------------------------------------------------------------------------------------

    def ask(
        self,
        kind: Kind,
        meta: Any,
        data: Sequence[Buffer],
        deadline: float,
        key: str | None = None,
        descriptor: int | None = None,
    ) -> Frame:
        """The answer, RESULT or FAILED. `deadline` in seconds of CLOCK_MONOTONIC; `descriptor` is closed once sent.

        Raises ProcessDied, Late, and what `fail` was told.
        """
        number = next(self._numbers)
        self.silent_since = self.silent_since or time.monotonic()
        asked = self._asked[number] = _Asked(key)
        try:
            self.tell(frame(kind, number, meta, data), descriptor)
            if not asked.wait(deadline - time.monotonic()):
                if self._asked.pop(number, None) is not None:
                    raise Late
                asked.wait(END_GRACE)  # somebody took it and is about to finish it
        finally:
            self._asked.pop(number, None)
        if isinstance(asked.outcome, Frame):
            return asked.outcome
        raise asked.outcome or ProcessDied()

    def tell(self, buffers: Sequence[Buffer], descriptor: int | None = None) -> None:
        """Send without waiting for an answer: at once if nobody else waits for one, else together with what others
        are about to send."""
        if self.is_dead:
            _close(descriptor)
            raise ProcessDied
        if descriptor is None and len(self._asked) <= 1 and _size(buffers) <= AT_ONCE and self._sent_at_once(buffers):
            return
        self._outbox.append((buffers, descriptor))
        if not self._woken:
            self._woken = True
            self._wake.release()

    def load(self, meta: dict[str, Any], load: Load, descriptor: int) -> None:
        self.tell(frame(Kind.LOAD, load.number, {**meta, "slot": load.slot}), descriptor)

    def unload(self, load: Load) -> None:
        self.tell(frame(Kind.UNLOAD, load.number))

    def ping(self) -> None:
        """Ask for any word at all: a request that came too late for its deadline gets none."""
        with contextlib.suppress(ProcessDied):
            self.tell(frame(Kind.PING, 0))

    def fail(self, key: str, error: Exception) -> None:
        """End every wait for this model with `error`."""
        for number, asked in list(self._asked.items()):
            if asked.key == key and self._asked.pop(number, None) is not None:
                asked.finish(error)

    # --- what runs, and the end -----------------------------------------------------------------------------------

    def running(self, now: float) -> list[tuple[str | None, float]]:
        """Keys of the models at work in this moment and for how many seconds; None is a check at serve time."""
        slots: list[tuple[int, str | None]] = [(DESCRIBING, None), *self.loads.slots()]
        begun = [(key, self.board.since(slot)) for slot, key in slots]
        return [(key, now - since) for key, since in begun if since > 0]

    def kill(self, blamed: Iterable[str]) -> None:
        """End it now; the models `blamed` are those that made it necessary."""
        self.blamed = list(blamed)
        self._child.kill()

    def stop(self) -> None:
        """End it at once; nobody is to blame, and nothing that it has is worth keeping."""
        self.is_stopping = True
        self._child.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read_all(self) -> None:
        try:
            while frames := self._reader.read():
                for one in frames:
                    self._heard(one)
        except OSError:
            pass  # the other side is gone
        except ProtocolError as error:
            log.error("compute process %d does not speak the protocol: %s", self.pid, error)
        except Exception:
            log.exception("listening to compute process %d failed", self.pid)
        self._bury()

    def _heard(self, one: Frame) -> None:
        self.silent_since = 0.0
        if one.kind in (Kind.RESULT, Kind.FAILED):
            asked = self._asked.pop(one.id, None)
            if asked is not None:
                asked.finish(one)
        elif one.kind == Kind.LOADED:
            self.loads.loaded(one.id)
        elif one.kind == Kind.GONE:
            self.loads.gone(one.id, one.json(), time.monotonic())
        elif one.kind == Kind.READY:
            said = one.json()
            self.formats, self.is_ready = frozenset(said["formats"]), True
            log.info("compute process %d is ready: %s", self.pid, said)
            self._ready(self)
        elif one.kind == Kind.BROKEN:
            log.error("compute process %d ends because of %.60r", self.pid, one.json())
        elif one.kind != Kind.PONG:
            raise ProtocolError("a frame of no known kind")

    def _bury(self) -> None:
        self.is_dead = True
        self._end_child()
        self._wake.release()
        if not self.is_stopping:
            lived = time.monotonic() - self.started
            log.error("compute process %d ended with status %s after %.0f s", self.pid, self._child.returncode, lived)
        for number in list(self._asked):
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked.finish(ProcessDied())
        try:
            self._ended(self)
        except Exception:
            log.exception("what follows the end of compute process %d failed", self.pid)

    def _end_child(self) -> None:
        """A process that closed its socket has no use any more."""
        _close_pipe(self._child)
        deadline = time.monotonic() + END_GRACE
        while self._child.poll() is None:
            if time.monotonic() > deadline:
                self._child.kill()
            time.sleep(0.005)
        self._socket.close()

    # --- the socket -----------------------------------------------------------------------------------------------

    def _receive(self, buffer: memoryview) -> int:
        return self._socket.recv_into(buffer)

    def _write_all(self) -> None:
        while not self.is_dead:
            self._wake.acquire()
            self._woken = False
            try:
                with self._sending:
                    while self._outbox:
                        self._write()
            except OSError:
                break  # the reader notices, too
        while self._outbox:
            _close(self._outbox.popleft()[1])

    def _sent_at_once(self, buffers: Sequence[Buffer]) -> bool:
        """False when something is being sent, or waits for it."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            if self._outbox:
                return False
            send(self._socket, buffers, wait=self._wait_writable)
            return True
        except OSError:
            raise ProcessDied from None
        finally:
            self._sending.release()

    def _write(self) -> None:
        """Everything up to the next frame that carries a descriptor."""
        buffers, descriptor = self._outbox.popleft()
        if descriptor is None:
            together = list(buffers)
            while self._outbox and self._outbox[0][1] is None:
                together += self._outbox.popleft()[0]
            send(self._socket, together, wait=self._wait_writable)
            return
        try:
            send(self._socket, buffers, descriptor, self._wait_writable)
        finally:
            os.close(descriptor)

    def _wait_writable(self) -> None:
        select.select([], [self._socket], [], 1.0)


def _start(config: Config) -> tuple["subprocess.Popen[bytes]", socket.socket, Board]:
    ours, theirs = socket.socketpair()
    page = Board.create()
    try:
        board = Board(page)
        config = replace(config, socket=theirs.fileno(), board=page)
        threads = str(config.threads)
        child = subprocess.Popen(
            module("process", config.as_text()),
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), page),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(page)
    return child, ours, board


def _size(buffers: Sequence[Buffer]) -> int:
    return sum(map(memoryview_size, buffers))


def _close_pipe(child: "subprocess.Popen[bytes]") -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
