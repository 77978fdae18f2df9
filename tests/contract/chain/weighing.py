"""A subnet, an identity and the two sides of its weights: what clients put, and what the chain's process sends."""

from collections.abc import Callable, Mapping
from typing import Any

from grid_node.chain.frames import Answer
from grid_node.chain.lease import Lease
from grid_node.chain.ports import Block, Landed, Prepared
from grid_node.chain.pylon import Identity, PylonSettings
from grid_node.chain.samples import Samples
from grid_node.chain.weights import Weights
from grid_node.chain.weights_runner import WeightsRunner
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import ChainUnreachable
from grid_node.settings import Settings
from tests.chain_stub import LOST, StubChain, neuron_of

BLOCK_SECONDS = 12
NEURONS = 8
HOTKEYS = [neuron_of(uid).hotkey for uid in range(NEURONS)]
A, B, C = HOTKEYS[:3]
LATE = "late"
"""`submit` raises WriteUncertain; it lands when the chain is told so, if its era is not over then."""


def identity(name: str = "sn1", netuid: int = 1) -> Identity:
    return Identity(name, netuid, "wallet", "hotkey", "token")


class Chain(StubChain):
    """Like the stub, and an extrinsic may land late."""

    def __init__(self) -> None:
        super().__init__(head=1000)
        self.born = 1_800_000_000 - BLOCK_SECONDS * 1002
        self.under_way: list[Prepared] = []

    def submit(self, prepared: Prepared, timeout: float) -> Landed:
        if self.outcomes and self.outcomes[0] == LATE:
            self.outcomes[0] = LOST
            self.under_way.append(prepared)
        return super().submit(prepared, timeout)

    def land_late(self) -> None:
        waiting, self.under_way = self.under_way, []
        for prepared in waiting:
            if self.head_number + 1 < prepared.era_end:
                self._land(prepared)


class StubReads:
    """`known` None: nobody knows the metagraph."""

    def __init__(self, chain: StubChain) -> None:
        self.chain = chain
        self.known: frozenset[str] | None = frozenset(HOTKEYS)
        self.knows_head = True
        self.written: list[int] = []

    @property
    def head(self) -> Block | None:
        return self.chain.at(self.chain.head_number) if self.knows_head else None

    @property
    def genesis(self) -> str | None:
        return self.chain.at(0).hash if self.knows_head else None

    def hotkeys(self, netuid: int, timeout: float) -> frozenset[str]:
        assert 0 < timeout <= 2.0
        if self.known is None:
            raise ChainUnreachable("Chain node is unreachable: away")
        return self.known

    def wrote(self, number: int) -> None:
        self.written.append(number)


class StubLink:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answers: dict[str, Callable[[Mapping[str, Any]], Answer]] = {}

    def ask(self, op: str, args: Mapping[str, Any], timeout: float) -> Answer:
        self.asked.append((op, args))
        answer = self.answers.get(op)
        return Answer({}, b"") if answer is None else answer(args)


def at_once(action: Callable[[], None]) -> None:
    action()


class World:
    """Everything on one store and one clock. Time passes only through `wait`, and makes blocks."""

    def __init__(self, store: Store, names: tuple[str, ...] = ("sn1",), **pylon: Any) -> None:
        self.store = store
        self.clock = ManualClock(1_800_000_000.0)
        self.chain = Chain()
        self.settings = Settings(chain_local_block_seconds=float(BLOCK_SECONDS))
        self.pylon = PylonSettings(identities=tuple(identity(name) for name in names), **pylon)
        self.chain.seed(1, NEURONS)
        self.samples = Samples(self.clock.steady)
        self.reads, self.link = StubReads(self.chain), StubLink()
        self.weights = self.new_weights(store)
        self.runner = self.new_runner()
        self._rest = 0.0

    def new_weights(self, store: Store) -> Weights:
        return Weights(store, self.clock, self.settings, self.pylon, self.reads, self.link, spawn=at_once)

    def new_runner(self, store: Store | None = None, chain: Any = None, process: str | None = None) -> WeightsRunner:
        """As a process that starts."""
        lease = Lease(self.clock, process)
        port = chain or self.chain
        return WeightsRunner(store or self.store, self.clock, self.settings, self.pylon, port, self.samples, lease)

    def put(self, weights: Mapping[str, float], name: str = "sn1") -> dict[str, Any]:
        return self.weights.put(identity(name), weights, 10.0)

    def status(self, name: str = "sn1") -> dict[str, Any]:
        return self.weights.status(identity(name))

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        blocks, self._rest = divmod(self._rest + seconds, BLOCK_SECONDS)
        if blocks:
            self.chain.advance(int(blocks))

    def run(self, seconds: float = 0.0, name: str = "sn1") -> dict[str, Any]:
        """Let the runner work for this long, or until the newest job is over; its status."""
        end = self.clock.now() + seconds
        while True:
            pause = self.runner.step()
            if self.status(name)["status"] not in ("scheduled", "running") and pause:
                break
            if self.clock.now() + (pause or 0.0) > end:
                break
            if pause:
                self.wait(pause)
        return self.status(name)


def sent(*values: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Weights as the chain has them, of (uid, value)."""
    return tuple(uid for uid, _ in values), tuple(value for _, value in values)
