"""Reads over a desk in this process and a chain that does as it is told."""

import time
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from grid_node.chain.bodies import Bodies
from grid_node.chain.desk import Backend, Desk
from grid_node.chain.lanes import InlineLane
from grid_node.chain.metrics import ChainMetrics
from grid_node.chain.ports import ChainPort, Landed, Signer
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.reads import ChainReads
from grid_node.chain.samples import Samples
from grid_node.clock import ManualClock
from grid_node.settings import Settings
from tests.chain_stub import StubChain
from tests.inline_link import InlineLink


class NoWriting:
    """For a desk that only reads."""

    def commit(self, signer: Signer, data: bytes) -> Landed:
        raise AssertionError("nothing is written here")

    def generate(self, signer: Signer, algorithm: int) -> tuple[Landed, bytes]:
        raise AssertionError("nothing is written here")

    def turn(self) -> float | None:
        return None


@dataclass
class Reading:
    """`heads` are told by `tick`; what is kept ready is refreshed by `refresh`, in the caller's thread."""

    chain: Any = field(default_factory=StubChain)
    environ: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    archive: ChainPort | None = None
    lane: Any = InlineLane
    clock: ManualClock = field(default_factory=ManualClock)
    refreshes: bool = False
    """Whether the thread that keeps answers ready runs by itself."""

    def __post_init__(self) -> None:
        self.settings = Settings.load({}, **self.overrides)
        self.pylon = PylonSettings.load(self.environ)
        self.metrics = ChainMetrics(CollectorRegistry())
        backend = Backend(self.chain, self.archive, self.chain, self.pylon.bittensor_archive_blocks_cutoff)
        self.desk = Desk(
            backend, Bodies(), self.clock, self.settings, self.pylon, Samples(), NoWriting(), lane=self.lane
        )
        self.link = InlineLink(self.desk)
        self.reads = ChainReads(self.link, self.clock, self.settings, self.pylon, self.metrics)
        self.link.on_beat = self.reads.on_beat
        if not self.refreshes:
            self.reads._refresher.wake = lambda: None

    def tick(self, seconds: float = 1.0) -> None:
        """A beat, after `seconds`."""
        self.clock.advance(seconds)
        self.link.tick()

    def refresh(self) -> None:
        self.reads._refresher.round()

    @property
    def hits(self) -> float:
        return float(self.metrics.cache_hits._value.get())

    @property
    def misses(self) -> float:
        return float(self.metrics.cache_misses._value.get())

    def close(self) -> None:
        self.reads.stop()
        self.link.stop(1.0)


def until(holds: Any, seconds: float = 10.0) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
