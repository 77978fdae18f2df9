"""The chain's process: `python -m grid_node.chain.worker <descriptor of the link's socket>`.

It holds the connections to the chain and the hotkeys, and has no eventlet: its threads are real. When the other end
of the link's socket is gone, however it went, this process ends. Without a descriptor it runs by itself until it is
told to stop: it then only works off weights.
"""

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from grid_node.chain.backends import Parts, assemble
from grid_node.chain.desk import Desk
from grid_node.chain.follow import LOOK_EVERY, LOOK_EVERY_LOCAL, Pulse
from grid_node.chain.frames import Answer, Frame, FrameError, Kind, packed, receive
from grid_node.chain.outcomes import Outcome
from grid_node.chain.pylon import LOCAL, PylonSettings
from grid_node.errors import ChainError, ChainFault, GridError
from grid_node.logs import configure_logging
from grid_node.settings import BadSetting, Settings

log = logging.getLogger(__name__)

END_GRACE = 1.0
"""Seconds that a job in hand may take at the end. Nothing is lost with it: whatever counts is in the database."""
SIGNAL_EVERY = 0.5
"""Seconds until a signal is acted on at the latest: one that the system gave to another thread ends no wait here."""
SAMPLES_A_BEAT = 500
MEMORY_MAX = 2 * 1024**3
"""Bytes of address space. Metadata come from nodes that are not ours, and what decodes them believes every size."""


class Wire:
    """This side of the link's socket. Any thread may send."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._sending = threading.Lock()

    def send(self, kind: Kind, number: int, meta: Mapping[str, Any], body: bytes = b"") -> None:
        """Raises FrameError when it is too large. When the other side is gone, that is noticed where it is heard."""
        buffers = packed(kind, number, meta, body)
        with self._sending, contextlib.suppress(OSError):
            for buffer in buffers:
                self._peer.sendall(buffer)

    def answer(self, number: int, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            try:
                self.send(Kind.ANSWER, number, outcome.meta, outcome.body)
                return
            except FrameError:
                log.error("an answer of %d bytes is too large for the link", len(outcome.body))
                outcome = ChainFault()
        try:
            self.send(Kind.REFUSED, number, _refusal(outcome))
        except FrameError:
            log.error("a refusal with code %s is nothing that the link can carry", outcome.code)
            self.send(Kind.REFUSED, number, _refusal(ChainFault()))

    def wait(self) -> bool:
        """Until something comes; False: the other side is gone."""
        try:
            return bool(self._peer.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self) -> Frame | None:
        return receive(self._peer)


def _refusal(error: ChainError) -> dict[str, Any]:
    return {"code": error.code, "text": error.message, "data": error.data}


class Process:
    """The desk at work, with a link or without."""

    def __init__(self, settings: Settings, pylon: PylonSettings, wire: Wire | None) -> None:
        self._settings = settings
        self._pylon = pylon
        self._wire = wire
        self._stopping = threading.Event()
        self._desk: Desk | None = None
        self._is_serving = threading.Event()
        if wire is not None:
            threading.Thread(target=self._listen, args=(wire,), name="grid-chain-link", daemon=True).start()

    def run(self, assemble: Callable[[Settings, PylonSettings], Parts] = assemble) -> None:
        """Until the link ends or somebody says so."""
        parts = assemble(self._settings, self._pylon)
        self._desk = desk = parts.desk
        every = LOOK_EVERY_LOCAL if parts.backend == LOCAL else LOOK_EVERY
        pulse = Pulse(desk.look, self._beat, desk.is_stuck, every)
        desk.on_change = pulse.changed
        self._catch_signals()
        gc.collect()
        gc.freeze()  # what was imported stays, and need not be looked through again and again
        self._is_serving.set()
        self._beat()
        pulse.start()
        desk.wake()
        log.info("the chain's process is ready: backend %s (%s)", parts.backend, parts.why)
        while not self._stopping.wait(SIGNAL_EVERY):
            pass
        pulse.stop()
        desk.close(END_GRACE)
        parts.close()

    def stop(self, *_signal: Any) -> None:
        self._stopping.set()

    def _catch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        signal.signal(signal.SIGTERM, self.stop)
        # a terminal's Ctrl-C goes to every process; the node tells this one when it is time
        signal.signal(signal.SIGINT, self.stop if self._wire is None else signal.SIG_IGN)

    def _beat(self) -> None:
        desk = self._desk
        if desk is None:
            return
        samples = desk.samples.drain(SAMPLES_A_BEAT)
        if self._wire is not None:
            beat = desk.follower.beat()
            told = None if beat.block is None and beat.error is None else beat.body()
            self._wire.send(Kind.BEAT, 0, {"beat": told, "samples": samples})

    def _listen(self, wire: Wire) -> None:
        if wire.wait():
            self._is_serving.wait()
            try:
                while (frame := wire.receive()) is not None:
                    self._heard(wire, frame)
            except OSError:
                pass  # the other side is gone
            except FrameError as error:
                log.error("the link does not speak the protocol: %s", error)
            except Exception:
                log.exception("listening to the link failed")
        self._end()

    def _heard(self, wire: Wire, frame: Frame) -> None:
        if frame.kind != Kind.ASK or self._desk is None:
            raise FrameError("a frame that is no call")
        number, meta = frame.id, frame.meta
        try:
            op, args, timeout = str(meta["op"]), dict(meta["args"]), float(meta["timeout"])
        except (KeyError, TypeError, ValueError) as error:
            raise FrameError("a call is none") from error
        self._desk.ask(op, args, timeout, lambda outcome: wire.answer(number, outcome))

    def _end(self) -> None:
        """Nobody is there any more: end in order if that can be had quickly, and else at once."""
        self._stopping.set()
        if self._is_serving.is_set():
            threading.Event().wait(2 * END_GRACE)
        os._exit(0)


def serve(settings: Settings, pylon: PylonSettings, descriptor: int | None = None) -> int:
    """Run the process until it is to end; `descriptor` is the link's socket."""
    wire = None
    if descriptor is not None:
        peer = socket.socket(fileno=descriptor)
        peer.setblocking(True)  # under eventlet the other side's sockets are made without
        wire = Wire(peer)
    Process(settings, pylon, wire).run()
    return 0


def bound_memory() -> None:
    """Have whatever wants more than MEMORY_MAX fail. Lower limits stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > MEMORY_MAX:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, hard))


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    try:
        settings, pylon = Settings.load(), PylonSettings.load()
    except BadSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level)
    bound_memory()
    try:
        return serve(settings, pylon, int(words[0]) if words else None)
    except (BadSetting, GridError) as error:
        log.error("the chain's process cannot start: %s", error)
        return 2 if isinstance(error, BadSetting) else 1


if __name__ == "__main__":
    sys.exit(main())
