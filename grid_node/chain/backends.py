"""What the chain's process is made of: the connections of the chosen backend, and those who use them."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from grid_node.chain.bodies import Bodies
from grid_node.chain.certificates import CertificateWriter
from grid_node.chain.commitments import CommitmentWriter
from grid_node.chain.desk import Backend, Desk
from grid_node.chain.measured import Measured
from grid_node.chain.ports import Landed, Signer, WriteRefused
from grid_node.chain.pylon import LOCAL, PylonSettings, choose_backend, network_url
from grid_node.chain.samples import Samples
from grid_node.chain.wallets import Wallets
from grid_node.chain.weights_runner import WeightsRunner
from grid_node.clock import Clock, SystemClock
from grid_node.database import DirectStore, Store, make_engine
from grid_node.errors import GridError
from grid_node.settings import BadSetting, Settings

log = logging.getLogger(__name__)

POOL = 4
"""Connections to PostgreSQL: one for each thread that has units of work, and one to spare."""


class Parts(NamedTuple):
    desk: Desk
    backend: str
    why: str
    close: Callable[[], None]


class Writers:
    """The desk's Writing: commitments, certificates and weights over one port."""

    def __init__(
        self, commitments: CommitmentWriter, certificates: CertificateWriter, weights: WeightsRunner | None
    ) -> None:
        self._commitments = commitments
        self._certificates = certificates
        self._weights = weights
        self._has_recovered = False

    def commit(self, signer: Signer, data: bytes) -> Landed:
        return self._commitments.write(signer, data)

    def generate(self, signer: Signer, algorithm: int) -> tuple[Landed, bytes]:
        issued = self._certificates.generate(signer, algorithm)
        return issued.landed, issued.body

    def close(self) -> None:
        """Let another process send weights at once."""
        if self._weights is not None:
            try:
                self._weights.close()
            except GridError as error:
                log.warning("the lease of weights ends by itself: %s", error)

    def turn(self) -> float | None:
        """Do what weights have to do now. Returns the seconds after which to be called again, None if woken only."""
        if self._weights is None:
            return None
        if not self._has_recovered:
            self._weights.recover()
            self._has_recovered = True
        return self._weights.step()


class Interlude:
    """The pause of a write that is tried again: weights that are due do not wait for its end."""

    def __init__(self, clock: Clock, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self.turn: Callable[[], float | None] = lambda: None

    def __call__(self, seconds: float) -> None:
        until = self._clock.steady() + seconds
        while (left := until - self._clock.steady()) > 0:
            wait = self._turn()
            self._sleep(left if wait is None else min(left, wait))

    def _turn(self) -> float | None:
        try:
            return self.turn()
        except Exception:
            log.exception("weights failed between two tries of another write")
            return None


def assemble(settings: Settings, pylon: PylonSettings) -> Parts:
    """Everything joined; asks no chain yet. An empty ledger gets the identities' subnets.

    Raises BadSetting, StoreUnavailable.
    """
    clock = SystemClock()
    store = DirectStore(make_engine(settings.database, pool=POOL, lock_timeout=settings.lock_timeout))
    wallets = Wallets.of(settings, pylon)
    backend, why = choose_backend(settings, pylon)
    samples = Samples(clock.steady)
    if backend == LOCAL:
        ports = _ledger(store, clock, settings, pylon, wallets, samples)
    else:
        ports = _subtensor(settings, pylon, wallets, samples)
    runner = WeightsRunner(store, clock, settings, pylon, ports.writer, samples) if pylon.identities else None
    pause = Interlude(clock)
    commitments = CommitmentWriter(clock, settings, pylon, ports.writer, pause)
    writers = Writers(commitments, CertificateWriter(clock, settings, ports.writer, pause), runner)
    pause.turn = writers.turn
    desk = Desk(ports, Bodies(), clock, settings, pylon, samples, writers)

    def close() -> None:
        try:
            writers.close()
        finally:
            store.close()

    return Parts(desk, backend, why, close)


def _ledger(
    store: Store, clock: Clock, settings: Settings, pylon: PylonSettings, wallets: Wallets, samples: Samples
) -> Backend:
    from grid_node.chain.ledger import operating  # noqa: PLC0415 - a process has one backend
    from grid_node.chain.ledger.chain import URI, LedgerChain  # noqa: PLC0415

    try:
        operating.bootstrap(store, clock, settings, pylon, wallets)
    except WriteRefused as error:
        log.error("the ledger stays as it is: %s", error)
    reader, writer = (Measured(LedgerChain(store, clock, settings, wallets), URI, samples) for _ in range(2))
    return Backend(reader, None, writer, None)


def _subtensor(settings: Settings, pylon: PylonSettings, wallets: Wallets, samples: Samples) -> Backend:
    from grid_node.chain.subtensor.chain import SubtensorChain  # noqa: PLC0415 - a process has one backend

    main, old = network_url(pylon.bittensor_network), network_url(pylon.bittensor_archive_network)
    if main is None:
        raise BadSetting("PYLON_BITTENSOR_NETWORK names no network")
    reader = SubtensorChain(main, settings, wallets, samples)
    archive = None if old is None else SubtensorChain(old, settings, wallets, samples)
    searched = None if old is None else SubtensorChain(old, settings, wallets, samples)
    writer = SubtensorChain(main, settings, wallets, samples, searched)
    return Backend(reader, archive, writer, pylon.bittensor_archive_blocks_cutoff)
