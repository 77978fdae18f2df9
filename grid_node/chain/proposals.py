"""Scores of workers as weights: the mean score of each hotkey, as its share of all means."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from grid_node.chain.epochs import Epoch, epoch_of
from grid_node.chain.identities import Identity
from grid_node.chain.ports import Block
from grid_node.chain.pylon import PylonSettings, block_seconds
from grid_node.chain.weights import Link, Reads
from grid_node.clock import Clock
from grid_node.errors import ChainError, ChainUnreachable
from grid_node.settings import Settings

SLOWEST = 100
"""So many times the usual pace a chain may have been slow, on the whole."""
UNREGISTERED = "not registered on subnet {netuid}"
BLACKLISTED = "blacklisted"
TOO_FEW = "fewer than {least} results"
MEAN_ZERO = "mean score is 0"
NOT_FINITE = "mean score is not a finite number"


class Scores(Protocol):
    """What workers earned, of whichever kind of work."""

    def earned(self, since: float, until: float) -> Mapping[str, tuple[int, float]]:
        """Number and sum of the finite scores of [since, until), in seconds since 1970, by hotkey."""

    def blacklisted(self, hotkey: str) -> bool: ...


class Excluded(NamedTuple):
    hotkey: str
    reason: str
    results: int
    mean: float


class Proposal(NamedTuple):
    """Weights that sum to 1, or none; and who is left out of them."""

    identity: str
    netuid: int
    epoch: Epoch
    since: float
    until: float
    weights: dict[str, float]
    excluded: list[Excluded]

    def body(self) -> dict[str, Any]:
        return {
            "identity_name": self.identity,
            "netuid": self.netuid,
            "epoch": self.epoch.body(),
            "since": self.since,
            "until": self.until,
            "weights": self.weights,
            "excluded": [one._asdict() for one in self.excluded],
        }


class Proposals:
    def __init__(
        self, scores: Scores, reads: Reads, link: Link, clock: Clock, settings: Settings, pylon: PylonSettings
    ) -> None:
        self._scores = scores
        self._reads = reads
        self._link = link
        self._clock = clock
        self._settings = settings
        self._block_seconds = block_seconds(settings, pylon)

    def propose(self, identity: Identity, timeout: float) -> Proposal:
        """Weights of the scores of as many blocks, up to now, as the score window's epochs have.

        `timeout` is in seconds, for each question to the chain. Raises ChainError when the metagraph is not known.
        """
        epoch, head = self.epoch(identity.netuid, timeout)
        registered = self._reads.hotkeys(identity.netuid, timeout)
        since, until = self._since(epoch, head, timeout), self._clock.now()
        means: dict[str, float] = {}
        excluded = []
        for hotkey, (count, total) in sorted(self._scores.earned(since, until).items()):
            mean = total / count if count else 0.0
            reason = self._reason(identity.netuid, hotkey, count, mean, registered)
            if reason is None:
                means[hotkey] = mean
            else:
                excluded.append(Excluded(hotkey, reason, count, mean if math.isfinite(mean) else 0.0))
        return Proposal(identity.name, identity.netuid, epoch, since, until, shares(means), excluded)

    def epoch(self, netuid: int, timeout: float) -> tuple[Epoch, Block]:
        """The epoch of the newest block by the subnet's own tempo, and that block. Raises ChainError."""
        meta = self._link.ask("hyperparams", {"netuid": netuid, "number": None}, timeout).meta
        head = Block(**meta["block"])
        return epoch_of(head.number, netuid, meta["tempo"]), head

    def _since(self, epoch: Epoch, head: Block, timeout: float) -> float:
        """When the window's first block was made: as the chain says or, where it forgot, by the usual pace. The first
        block of a subtensor has no time, and a node may say anything."""
        blocks = self._settings.chain_score_window_epochs * (epoch.end - epoch.start)
        number = max(0, head.number - blocks)
        told = 0.0
        try:
            told = float(self._link.ask("block", {"number": number}, timeout).meta["block"]["timestamp"])
        except ChainUnreachable:
            raise
        except ChainError:
            pass
        usual = (head.number - number) * self._block_seconds
        return told if told >= head.timestamp - SLOWEST * usual else head.timestamp - usual

    def _reason(self, netuid: int, hotkey: str, count: int, mean: float, registered: frozenset[str]) -> str | None:
        """Why a hotkey gets no weight; None: it gets one."""
        if hotkey not in registered:
            return UNREGISTERED.format(netuid=netuid)
        if self._scores.blacklisted(hotkey):
            return BLACKLISTED
        if count < self._settings.chain_score_min_results:
            return TOO_FEW.format(least=self._settings.chain_score_min_results)
        if not math.isfinite(mean):
            return NOT_FINITE
        return MEAN_ZERO if mean <= 0 else None


def shares(means: Mapping[str, float]) -> dict[str, float]:
    """Each mean, finite and above 0, divided by the sum of all."""
    largest = max(means.values(), default=1.0)
    scaled = {hotkey: mean / largest for hotkey, mean in means.items()}  # the sum of huge ones is not finite
    total = sum(scaled.values())
    return {hotkey: value / total for hotkey, value in scaled.items()}
