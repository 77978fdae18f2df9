"""Automatic weights: once in each epoch, scores become the weights of the identities that are listed for it.

What was sent is in the rows of the jobs, so neither a restart nor a second process sends again. Memory only saves
asking.
"""

import logging
import math

from grid_node.chain.epochs import Epoch, automatic_window, epoch_of
from grid_node.chain.identities import Identity
from grid_node.chain.proposals import Proposals
from grid_node.chain.pylon import PylonSettings, auto_identities
from grid_node.chain.weights import EpochTaken, Reads, Weights
from grid_node.chain.weights_tables import AUTO
from grid_node.clock import Clock
from grid_node.errors import ChainInvalid, GridError
from grid_node.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds for one question to the chain."""
TEMPO_SECONDS = 600.0
"""How long a subnet's tempo is taken for known outside of the window; before weights are sent it is asked anew."""
AGAIN_SECONDS = 30.0
"""Pause after a question that failed."""


class AutoWeights:
    def __init__(
        self,
        clock: Clock,
        settings: Settings,
        pylon: PylonSettings,
        reads: Reads,
        weights: Weights,
        proposals: Proposals,
    ) -> None:
        self._clock = clock
        self._pylon = pylon
        self._reads = reads
        self._weights = weights
        self._proposals = proposals
        self._identities = auto_identities(settings, pylon)
        self._done: dict[str, Epoch] = {}
        self._tempos: dict[int, tuple[float, int]] = {}
        self._quiet_until: dict[str, float] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether any identity is listed."""
        return bool(self._identities)

    def tick(self) -> None:
        """Send what is due. To be called every few seconds. A chain or a database that is away is not raised."""
        head = self._reads.head
        if head is None:
            return
        for identity in self._identities:
            if self._clock.steady() < self._quiet_until.get(identity.name, -math.inf):
                continue
            try:
                self._look(identity, head.number)
            except GridError as error:
                self._quiet_until[identity.name] = self._clock.steady() + AGAIN_SECONDS
                log.warning("automatic weights of %s wait: %s", identity.name, error)

    def _look(self, identity: Identity, block: int) -> None:
        epoch = epoch_of(block, identity.netuid, self._tempo(identity.netuid))
        if self._done.get(identity.name) == epoch or not self._is_time(block, epoch):
            return
        epoch, head = self._proposals.epoch(identity.netuid, TIMEOUT)
        if not self._is_time(head.number, epoch):
            return
        if not self._weights.is_taken(identity, epoch):
            self._send(identity, epoch)
        self._done[identity.name] = epoch

    def _is_time(self, block: int, epoch: Epoch) -> bool:
        offset, buffer = self._pylon.commit_window_start_offset, self._pylon.commit_window_end_buffer
        return block in automatic_window(epoch, offset, buffer)

    def _tempo(self, netuid: int) -> int:
        known = self._tempos.get(netuid)
        if known is None or self._clock.steady() - known[0] > TEMPO_SECONDS:
            epoch, _head = self._proposals.epoch(netuid, TIMEOUT)
            known = self._tempos[netuid] = self._clock.steady(), epoch.end - epoch.start - 1
        return known[1]

    def _send(self, identity: Identity, epoch: Epoch) -> None:
        proposal = self._proposals.propose(identity, TIMEOUT)
        if not proposal.weights:
            log.warning("automatic weights of %s: nobody is eligible, nothing is sent", identity.name)
            return
        try:
            answer = self._weights.put(identity, proposal.weights, TIMEOUT, source=AUTO, epoch=epoch)
        except EpochTaken:
            return
        except ChainInvalid:
            log.warning("automatic weights of %s: nobody is registered any more", identity.name)
            return
        log.info("automatic weights of %s: job %s, %d hotkeys", identity.name, answer["job_id"], answer["count"])
