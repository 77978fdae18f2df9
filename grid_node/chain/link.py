"""The web process's link to the chain's process: started when first needed, kept alive, asked with a deadline."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from grid_node.chain.child import Child
from grid_node.chain.frames import Answer, Beat, FrameError
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import Clock, SystemClock
from grid_node.errors import ChainQueueFull, ChainUnreachable
from grid_node.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
SILENCE_MAX = 30.0
"""Seconds without a word, and the process is taken for hung."""
PAUSE_MIN, PAUSE_MAX = 1.0, 30.0
"""Seconds before a process that died is started again; doubled while it keeps dying."""
STEADY = 60.0
"""Seconds after which a process that dies has not just kept dying."""
DOWN = "Chain node is unreachable: the chain's process is being restarted"


def _ignore(_told: Any) -> None:
    """Hears what nobody wants to know."""


class ChainLink:
    """Any number of threads may ask. Counts calls that wait, so that their number has an end."""

    def __init__(
        self,
        settings: Settings,
        pylon: PylonSettings,
        clock: Clock | None = None,
        start_child: Callable[..., Child] = Child,
    ) -> None:
        self.restarts = 0
        self.beat: Beat | None = None
        """The last one; it stays when the process dies."""
        self.on_beat: Callable[[Beat], None] = _ignore
        self.on_samples: Callable[[list[Any]], None] = _ignore
        self._settings = settings
        self._pylon = pylon
        self._clock = clock or SystemClock()
        self._start_child = start_child
        self._child: Child | None = None
        self._waiting = 0
        self._counting = threading.Lock()
        self._starting = threading.Lock()
        self._has_started = False
        self._stopping = threading.Event()
        self._born = 0.0
        self._not_before = 0.0
        self._pause = 0.0

    @property
    def is_up(self) -> bool:
        """A process is there and takes calls."""
        child = self._child
        return child is not None and child.is_ready

    @property
    def queue(self) -> int:
        """Calls that wait."""
        return self._waiting

    @property
    def pid(self) -> int | None:
        child = self._child
        return None if child is None else child.pid

    def start(self) -> None:
        """Start the process and keep it alive from now on; does nothing the second time. Does not wait for it."""
        if self._has_started:
            return
        with self._starting:
            if self._has_started or self._stopping.is_set():
                return
            self._try_to_start()
            self._has_started = True
            threading.Thread(target=self._watch, name="grid-chain-watch", daemon=True).start()

    def stop(self, grace: float) -> None:
        """End the process; after `grace` seconds it is killed."""
        self._stopping.set()
        with self._starting:
            child = self._child
        if child is None:
            return
        child.stop()
        if not child.gone.wait(grace):
            child.kill()
            child.gone.wait(LOOK_EVERY)

    def ask(self, op: str, args: Mapping[str, Any], timeout: float) -> Answer:
        """What the chain's process answers within `timeout` seconds; the first call starts it.

        Raises ChainQueueFull, ChainTimeout, ChainUnreachable (at once when the process is down or dies), and every
        other ChainError that the process refuses with.
        """
        until = time.monotonic() + timeout
        with self._counting:
            if self._waiting >= self._settings.chain_queue_max:
                raise ChainQueueFull
            self._waiting += 1
        try:
            self.start()
            child = self._child
            if child is None:
                raise ChainUnreachable(DOWN)
            return child.ask(op, args, until)
        finally:
            with self._counting:
                self._waiting -= 1

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            try:
                self._look_after(self._child)
            except Exception:
                log.exception("looking after the chain's process failed")

    def _look_after(self, child: Child | None) -> None:
        if child is None:
            if self._clock.steady() >= self._not_before:
                self._restart()
            return
        # counted, not timed: a web process that stood still has heard nothing either
        child.quiet += 1
        if child.quiet == round(SILENCE_MAX / LOOK_EVERY):
            log.error("the chain's process %d was silent for %.0f s and is killed", child.pid, SILENCE_MAX)
            child.kill()

    def _restart(self) -> None:
        with self._starting:
            if not self._stopping.is_set() and self._child is None:
                self._try_to_start()
                self.restarts += 1

    def _try_to_start(self) -> None:
        environ = {**self._settings.environ(), **self._pylon.environ()}
        self._born = self._clock.steady()
        try:
            self._child = self._start_child(environ, self._heard, self._buried)
        except OSError as error:
            log.error("the chain's process cannot be started: %s", error)
            self._back_off(0.0)

    def _heard(self, meta: dict[str, Any]) -> None:
        beat, samples = meta.get("beat"), meta.get("samples")
        if beat is not None:
            if not isinstance(beat, dict):
                raise FrameError("a beat is none")
            self.beat = Beat.of(beat)
            _told(self.on_beat, self.beat)
        if isinstance(samples, list) and samples:
            _told(self.on_samples, samples)

    def _buried(self, child: Child) -> None:
        lived = self._clock.steady() - self._born
        if not (child.is_stopping or self._stopping.is_set()):
            log.error("the chain's process %d ended with status %s after %.0f s", child.pid, child.status, lived)
        with self._starting:  # it may have ended before it was taken down as started
            self._back_off(lived)
            self._child = None

    def _back_off(self, lived: float) -> None:
        self._pause = PAUSE_MIN if lived > STEADY else min(max(self._pause * 2, PAUSE_MIN), PAUSE_MAX)
        self._not_before = self._clock.steady() + self._pause


def _told(hear: Callable[[Any], None], what: Any) -> None:
    """Whoever hears may fail; the link goes on."""
    try:
        hear(what)
    except Exception:
        log.exception("what follows a word of the chain's process failed")
