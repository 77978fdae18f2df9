"""Following the head: who looks for new blocks, and what the web process is told of them, once a second at least."""

import logging
import threading
from collections.abc import Callable, Iterable

from grid_node.chain.frames import Beat
from grid_node.chain.ports import Block, ChainPort, ChainProblem, Signer
from grid_node.clock import Clock

log = logging.getLogger(__name__)

BEAT_EVERY = 1.0
LOOK_EVERY = 1.0
LOOK_EVERY_LOCAL = 0.25
"""Seconds between two looks. A ledger's block may come at any time, from a command: it is to be seen within 1 s."""
HOTKEYS_EVERY = 30.0
"""Seconds until wallets that could not be read are tried again."""


class Follower:
    """What is known of the chain. `look` asks, in the thread that owns the port; the rest may be read anywhere."""

    def __init__(self, port: ChainPort, clock: Clock, signers: Iterable[Signer] = ()) -> None:
        self.genesis: str | None = None
        self.head: Block | None = None
        self.finalized = 0
        self.error: str | None = None
        self.identities: dict[str, str] = {}
        self._port = port
        self._clock = clock
        self._answered = clock.steady()
        self._unread = list(signers)
        self._read_due = clock.steady()
        self._told: set[str] = set()
        self._has_news = False

    def look(self) -> bool:
        """Ask for the head; whether anything is other than at the last look. Raises nothing of the port's."""
        before = self.head, self.finalized, self.error
        had_news, self._has_news = self._has_news, False
        self._read_hotkeys()
        try:
            self.genesis = self.genesis or self._port.genesis()
            self.head = self._port.head()
            final = self._port.finalized()
            # a node that is somewhat behind takes nothing back, and a chain that was set back is another one
            self.finalized = final if self.head.number < self.finalized else max(self.finalized, final)
            self.error, self._answered = None, self._clock.steady()
        except ChainProblem as problem:
            self.error = str(problem) or "no answer"
        except Exception:
            log.exception("looking for the chain's head failed")
            self.error = "a fault of ours"
        if self.error != before[2]:
            self._log_turn()
        return had_news or before != (self.head, self.finalized, self.error)

    def heard(self, head: Block) -> None:
        """A read was told of the head, in the same thread: the next beat is not behind it."""
        self._has_news = self._has_news or head != self.head
        self.head, self._answered = head, self._clock.steady()

    def beat(self) -> Beat:
        age = self._clock.steady() - self._answered
        return Beat(self.head, self.finalized, age, self.error, dict(self.identities), self.genesis)

    def _log_turn(self) -> None:
        if self.error is None:
            log.info("the chain node answers again")
        else:
            log.warning("the chain node does not answer: %s", self.error)

    def _read_hotkeys(self) -> None:
        if not self._unread or self._clock.steady() < self._read_due:
            return
        self._read_due = self._clock.steady() + HOTKEYS_EVERY
        for signer in list(self._unread):
            try:
                self.identities = {**self.identities, signer.identity: self._port.hotkey(signer)}
                self._unread.remove(signer)
            except Exception as error:  # noqa: BLE001  whatever is wrong with one wallet, the head is followed
                if signer.identity not in self._told:
                    self._told.add(signer.identity)
                    why = error if isinstance(error, ChainProblem) else "a fault of ours"
                    log.error("identity %s cannot sign, this is tried again: %s", signer.identity, why)


class Pulse:
    """A thread that has looks taken and beats sent.

    `look` queues a look; whoever takes it says `changed` when there is news, which is then told at once. While `stuck`
    says so there is no beat: the process is given up and started anew.
    """

    def __init__(
        self, look: Callable[[], None], send: Callable[[], None], stuck: Callable[[], bool], every: float
    ) -> None:
        self._look = look
        self._send = send
        self._stuck = stuck
        self._every = every
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="grid-chain-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def changed(self) -> None:
        self._news.set()

    def stop(self) -> None:
        self._stopping = True
        self._news.set()

    def _loop(self) -> None:
        looks = 0
        looks_a_beat = max(1, round(BEAT_EVERY / self._every))
        while not self._stopping:
            self._look()
            has_news = self._news.wait(self._every)
            self._news.clear()
            looks = 0 if has_news else looks + 1
            if self._stopping or self._stuck():
                continue
            if has_news or looks >= looks_a_beat:
                looks = 0
                self._beat()

    def _beat(self) -> None:
        try:
            self._send()
        except Exception:
            log.exception("a beat was not sent")
