"""What became of an extrinsic that was sent, when nobody said.

A mortal extrinsic is in a block of its era or nowhere. So before anything is sent again, the era's blocks are searched
for its hash, and until the last of them is final nothing is known for good.
"""

from collections.abc import Callable
from typing import NamedTuple

from grid_node.chain.ports import (
    BlockUnknown,
    ChainPort,
    ChainProblem,
    Landed,
    Prepared,
    WriteRefused,
    WriteUncertain,
)
from grid_node.clock import Clock

Sleep = Callable[[float], None]


class Sent(NamedTuple):
    """An extrinsic on record. It may be in the blocks `era_start` to `era_end - 1`."""

    extrinsic_hash: str
    era_start: int
    era_end: int

    @classmethod
    def of(cls, prepared: Prepared) -> "Sent":
        return cls(prepared.extrinsic_hash, prepared.era_start, prepared.era_end)


class Fate(NamedTuple):
    """What is known of it. Neither `landed` nor `is_over`: it may still land."""

    landed: Landed | None = None
    is_over: bool = False
    """No block can include it any more."""
    problem: str | None = None
    """Why the blocks that could say could not be read."""


def fate(port: ChainPort, sent: Sent) -> Fate:
    """Look for it in the finalized blocks of its era. Raises NodeUnreachable."""
    finalized = port.finalized()
    last = sent.era_end - 1
    is_over = finalized >= last
    if finalized < sent.era_start:
        return Fate()
    try:
        landed = port.find(sent.extrinsic_hash, max(0, sent.era_start), min(finalized, last))
    except BlockUnknown as error:
        return Fate(None, is_over, str(error) or "a block can no longer be read")
    return Fate(landed, is_over)


class Sender:
    """Sends one extrinsic and does not come back before its fate is known, or `timeout` seconds are over.

    For writes that somebody waits for. `sleep` takes seconds.
    """

    def __init__(self, port: ChainPort, clock: Clock, timeout: float, look_seconds: float, sleep: Sleep) -> None:
        self._port = port
        self._clock = clock
        self._timeout = timeout
        self._look_seconds = look_seconds
        self._sleep = sleep

    def send(self, prepared: Prepared) -> Landed:
        """Raises WriteRefused (it did not land, or in vain) and WriteUncertain (it may still land)."""
        deadline = self._clock.steady() + self._timeout
        try:
            landed = self._port.submit(prepared, self._timeout)
        except WriteRefused:
            raise
        except ChainProblem as error:
            found = self.settle(Sent.of(prepared), deadline)
            if found is None:
                raise WriteRefused(str(error)) from error
            landed = found
        if landed.error is not None:
            raise WriteRefused(landed.error)
        return landed

    def settle(self, sent: Sent, deadline: float | None = None) -> Landed | None:
        """Wait until it is found, or until it cannot land any more (None). Raises WriteUncertain at the deadline.

        Blocks that nobody can read any more are as good as blocks without it, once its era is over.
        """
        end = self._clock.steady() + self._timeout if deadline is None else deadline
        while True:
            problem = "it may still land"
            try:
                found = fate(self._port, sent)
                if found.landed is not None or found.is_over:
                    return found.landed
            except ChainProblem as error:
                problem = str(error)
            if self._clock.steady() >= end:
                raise WriteUncertain(f"Nothing is known of extrinsic {sent.extrinsic_hash}: {problem}")
            self._sleep(self._look_seconds)
