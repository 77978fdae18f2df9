"""One process of the chain, as the web process sees it: started with exec, spoken to over a socket.

Works with threads and, under eventlet, with green ones: what waits here waits on the module's own locks and sockets.
"""

import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from grid_node.chain.frames import Answer, Frame, FrameError, Kind, packed, receive
from grid_node.errors import ChainError, ChainFault, ChainTimeout, ChainUnreachable, error_table

log = logging.getLogger(__name__)

MODULE = "grid_node.chain.worker"
END_GRACE = 2.0
"""Seconds that a process whose socket has ended may take to end."""
ENDED = "Chain node is unreachable: the chain's process ended"


class _Asked:
    """One call that waits for its answer."""

    __slots__ = ("done", "outcome")

    def __init__(self) -> None:
        self.outcome: Answer | ChainError = ChainUnreachable(ENDED)
        self.done = threading.Event()

    def finish(self, outcome: Answer | ChainError) -> None:
        self.outcome = outcome
        self.done.set()


class Child:
    """Started by its constructor. `beat` hears each beat, `ended` that it has died or was stopped, once; both in the
    thread that reads."""

    def __init__(
        self,
        environ: Mapping[str, str],
        beat: Callable[[dict[str, Any]], None],
        ended: Callable[["Child"], None],
        module: str = MODULE,
    ) -> None:
        self.settled = threading.Event()
        """It takes calls, or is dead."""
        self.gone = threading.Event()
        """There is no such process any more."""
        self.is_ready = False
        self.is_dead = False
        self.is_stopping = False
        self.quiet = 0
        """Counted up by whoever watches, back to 0 by every frame."""
        self._beat = beat
        self._ended = ended
        self._asked: dict[int, _Asked] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._process, self._socket = _start(module, environ)
        threading.Thread(target=self._read_all, name=f"grid-chain-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """What it ended with, once it is dead."""
        return self._process.returncode

    def ask(self, op: str, args: Mapping[str, Any], until: float) -> Answer:
        """`until` in seconds of CLOCK_MONOTONIC. Raises ChainError."""
        if not self.settled.wait(_left(until)):
            raise ChainTimeout
        number, asked = next(self._numbers), _Asked()
        self._asked[number] = asked
        try:
            if self.is_dead:
                raise ChainUnreachable(ENDED)
            self._send(packed(Kind.ASK, number, {"op": op, "args": dict(args), "timeout": _left(until)}), until)
            if not asked.done.wait(_left(until)):
                raise ChainTimeout
        finally:
            self._asked.pop(number, None)
        if isinstance(asked.outcome, ChainError):
            raise asked.outcome
        return asked.outcome

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        """Tell it to end, by ending what it listens to."""
        self.is_stopping = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _send(self, buffers: list[bytes], until: float) -> None:
        """Calls are few and small: they fit into the socket, unless the process is about to be given up."""
        if not self._sending.acquire(timeout=_left(until)):
            raise ChainTimeout
        try:
            self._socket.sendall(b"".join(buffers))
        except OSError:
            raise ChainUnreachable(ENDED) from None
        finally:
            self._sending.release()

    def _read_all(self) -> None:
        try:
            while (frame := receive(self._socket)) is not None:
                self.quiet = 0
                self._heard(frame)
        except OSError:
            pass  # the other side is gone
        except FrameError as error:
            log.error("the chain's process %d does not speak the protocol: %s", self.pid, error)
        except Exception:
            log.exception("listening to the chain's process %d failed", self.pid)
        self._bury()

    def _heard(self, frame: Frame) -> None:
        if frame.kind == Kind.BEAT:
            self.is_ready = True
            self.settled.set()
            self._beat(frame.meta)
            return
        asked = self._asked.pop(frame.id, None)  # None: the caller has left
        if asked is not None and frame.kind == Kind.ANSWER:
            asked.finish(Answer(frame.meta, frame.body))
        elif asked is not None:
            asked.finish(_error(frame.meta))

    def _bury(self) -> None:
        self.is_dead, self.is_ready = True, False
        for number in list(self._asked):
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked.finish(ChainUnreachable(ENDED))
        self.settled.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reap()
        self._socket.close()
        self.gone.set()
        try:
            self._ended(self)
        except Exception:
            log.exception("what follows the end of the chain's process %d failed", self.pid)

    def _reap(self) -> None:
        """A process that closed its socket has no use any more."""
        deadline = time.monotonic() + END_GRACE
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            time.sleep(0.005)


def _start(module: str, environ: Mapping[str, str]) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def _error(meta: Mapping[str, Any]) -> ChainError:
    """What the process refused with; a code that this side does not know is a fault of ours."""
    kind = error_table().get(str(meta.get("code")))
    data = meta.get("data")
    if kind is None or not issubclass(kind, ChainError) or not isinstance(data, dict):
        return ChainFault()
    return kind(str(meta.get("text")), **data)


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
