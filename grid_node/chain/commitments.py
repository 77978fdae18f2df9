"""Commitments: written while the client waits, tried again, and not written twice for a client that asks twice.

For the writer thread of the chain's process.
"""

import logging
import time
from typing import NamedTuple

from grid_node.chain.epochs import retry_delay
from grid_node.chain.ports import BlockUnknown, ChainPort, ChainProblem, Landed, Signer, WriteUncertain
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.sending import Sender, Sent, Sleep
from grid_node.clock import Clock
from grid_node.errors import ChainWriteFailed
from grid_node.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class _Unsure(NamedTuple):
    """What was sent of an identity, and may still land."""

    data: bytes
    sent: Sent


class CommitmentWriter:
    def __init__(
        self, clock: Clock, settings: Settings, pylon: PylonSettings, port: ChainPort, sleep: Sleep = time.sleep
    ) -> None:
        self._clock = clock
        self._window = settings.chain_repeat_window_seconds
        self._pylon = pylon
        self._port = port
        self._sleep = sleep
        self._sender = Sender(port, clock, settings.chain_submit_timeout_seconds, LOOK_SECONDS, sleep)
        self._unsure: dict[str, _Unsure] = {}

    def write(self, signer: Signer, data: bytes) -> Landed:
        """Set the signer's commitment, 1 to 128 bytes, and wait until it is final.

        One that the chain has for less than the repeat window is not set again: its block is returned, with an empty
        extrinsic hash. Raises ChainWriteFailed after the last attempt.
        """
        attempts, problem = 1 + self._pylon.commitment_retry_attempts, ""
        for attempt in range(1, attempts + 1):
            try:
                return self._attempt(signer, data)
            except ChainProblem as error:
                problem = str(error)
                log.warning("commitment of %s, attempt %d: %s", signer.identity, attempt, problem)
            if attempt < attempts:
                self._sleep(retry_delay(attempt, self._pylon.commitment_retry_delay_seconds))
        raise ChainWriteFailed(f"Failed to set commitment after {attempts} attempts: {problem}")

    def _attempt(self, signer: Signer, data: bytes) -> Landed:
        landed = self._settled(signer, data) or self._standing(signer, data)
        if landed is not None:
            return landed
        prepared = self._port.prepare_commitment(signer, data)
        try:
            return self._sender.send(prepared)
        except WriteUncertain:
            self._unsure[signer.identity] = _Unsure(data, Sent.of(prepared))
            raise

    def _settled(self, signer: Signer, data: bytes) -> Landed | None:
        """Where the same data landed that was sent before; nothing else is sent while that is open."""
        unsure = self._unsure.get(signer.identity)
        if unsure is None:
            return None
        landed = self._sender.settle(unsure.sent)
        del self._unsure[signer.identity]
        return landed if landed is not None and landed.error is None and unsure.data == data else None

    def _standing(self, signer: Signer, data: bytes) -> Landed | None:
        """Where the chain has this commitment from, if it is recent: also one that another process wrote."""
        found = self._port.commitment(signer.netuid, self._port.hotkey(signer), self._port.head())
        if found is None or found.data != data:
            return None
        try:
            block = self._port.block(found.block_number)
        except BlockUnknown:
            return None
        return Landed(block, "") if self._clock.now() - block.timestamp <= self._window else None
