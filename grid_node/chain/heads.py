"""What the web process knows of the newest block, and since when."""

import math

from grid_node.chain.frames import Beat
from grid_node.chain.ports import Block
from grid_node.clock import Clock

BEAT_SECONDS = 5.0
"""A beat that is older says nothing about now: they come once a second."""
FLOOR_SECONDS = 600.0
"""A chain that does not reach the block of our write in this time never will: it is another one."""


class Heads:
    """The newest block as the beats of the chain's process tell it, and an estimate while they are missing."""

    def __init__(self, clock: Clock, block_seconds: float) -> None:
        self._clock = clock
        self._block_seconds = block_seconds
        self._error: str | None = None
        self._beat_at = -math.inf
        self._seen_at = -math.inf
        """When the chain told of the newest block: what it told before that does not count."""
        self.newest: Block | None = None
        self.genesis: str | None = None
        """Hash of the chain's block 0, once it was heard."""
        self.finalized = -1
        """Blocks up to this number cannot be undone; -1: nobody said."""
        self.floor = 0
        """The newest block with a write of ours: whoever reads the latest state must see it."""
        self._wrote_at = -math.inf
        self.heard_at = -math.inf
        """When the chain node last answered, on the steady clock."""
        self.chain = 0
        """Counts the chains that were seen: a node that is set back to its genesis begins another."""

    def beat(self, beat: Beat) -> bool:
        """Take a beat; True when the newest block is another one than before."""
        now = self._clock.steady()
        self._beat_at, self._error = now, beat.error
        self.genesis = beat.genesis or self.genesis
        if beat.block is None:
            return False
        told_at = now - max(0.0, beat.age)
        self.heard_at = max(self.heard_at, told_at)
        if self.newest is not None and told_at <= self._seen_at and beat.block.number < self.newest.number:
            return False
        if beat.block.number < self.finalized:
            self.chain += 1
        if beat.block.number < self.floor and now - self._wrote_at > FLOOR_SECONDS:
            self.floor = 0
        self.finalized = beat.finalized
        changed, self.newest, self._seen_at = beat.block != self.newest, beat.block, told_at
        return changed

    def saw(self, block: Block) -> bool:
        """An answer was about this block, so the newest is at least as new. True when that is news."""
        if self.heard_at == -math.inf:
            self.heard_at = self._clock.steady()
        if self.newest is not None and block.number <= self.newest.number:
            return False
        self.newest, self._seen_at = block, self._clock.steady()
        return True

    def wrote(self, number: int) -> None:
        self.floor, self._wrote_at = max(self.floor, number), self._clock.steady()

    def silence(self) -> float:
        """Seconds since the chain node last answered."""
        return self._clock.steady() - self.heard_at

    def trouble(self) -> str | None:
        """Why the chain node does not answer, if its process says so now."""
        return self._error if self._clock.steady() - self._beat_at <= BEAT_SECONDS else None

    def behind(self, block: Block) -> int:
        """Blocks from this one to the newest, with those that must have come since the chain node fell silent."""
        if self.newest is None:
            return 0
        silence = self.silence()
        missed = int(silence / self._block_seconds) if silence < math.inf else 0
        return max(0, self.newest.number + missed - block.number)
