"""The link to the chain's process, over a desk in this process."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from grid_node.chain.child import ENDED
from grid_node.chain.desk import Desk
from grid_node.chain.frames import Answer, Beat
from grid_node.errors import ChainError, ChainQueueFull, ChainTimeout, ChainUnreachable

log = logging.getLogger(__name__)


class InlineLink:
    """The same over a desk in this process; for tests. Beats come from `tick`, and from a look after each write.

    `is_up` may be set: while it is False the process is taken for dead.
    """

    def __init__(self, desk: Desk, queue_max: int = 256) -> None:
        self.desk = desk
        self.is_up = True
        self.restarts = 0
        self.beat: Beat | None = None
        self.on_beat: Callable[[Beat], None] = _ignore
        self.on_samples: Callable[[list[Any]], None] = _ignore
        self.queue = 0
        self._queue_max = queue_max
        self._counting = threading.Lock()
        desk.on_change = self._send

    def start(self) -> None:
        """Take a first look, as the process does."""
        self.tick()

    def stop(self, grace: float) -> None:
        self.is_up = False
        self.desk.close(grace)

    def tick(self) -> None:
        """Look for the head and send a beat, as happens once a second."""
        self.desk.look()
        self._send()

    def ask(self, op: str, args: Mapping[str, Any], timeout: float) -> Answer:
        if not self.is_up:
            raise ChainUnreachable(ENDED)
        with self._counting:
            if self.queue >= self._queue_max:
                raise ChainQueueFull
            self.queue += 1
        try:
            return self._asked(op, args, timeout)
        finally:
            with self._counting:
                self.queue -= 1

    def _asked(self, op: str, args: Mapping[str, Any], timeout: float) -> Answer:
        outcomes: list[Answer | ChainError] = []
        done = threading.Event()

        def finish(outcome: Answer | ChainError) -> None:
            outcomes.append(outcome)
            done.set()

        self.desk.ask(op, args, timeout, finish)
        if not done.wait(timeout):
            raise ChainTimeout
        if isinstance(outcomes[0], ChainError):
            raise outcomes[0]
        return outcomes[0]

    def _send(self) -> None:
        if self.is_up:
            self.beat = self.desk.follower.beat()
            _told(self.on_beat, self.beat)
            samples = self.desk.samples.drain()
            if samples:
                _told(self.on_samples, samples)


def _ignore(_told: Any) -> None:
    """Hears what nobody wants to know."""


def _told(hear: Callable[[Any], None], what: Any) -> None:
    """Whoever hears may fail; the link goes on."""
    try:
        hear(what)
    except Exception:
        log.exception("what follows a word of the chain's process failed")
