"""The chain's process is killed while it sends weights to the ledger: none is lost, and none lands twice."""

import random
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from grid_node.chain.ledger.tables import ChainExtrinsic
from grid_node.chain.weights import Weights
from grid_node.chain.weights_tables import UNFINISHED, jobs, leases
from grid_node.clock import SystemClock
from grid_node.errors import ChainUnreachable
from tests.chain_stub import hotkey_of
from tests.integration.test_chain_process import Home
from tests.nodes import until
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]

ROUNDS = 6
BLOCK_SECONDS = 0.1
"""An era is over in less than a second."""
WINDOW = 0.12
"""Seconds after the beginning of an attempt in which the process is killed."""
WAIT = 60.0

pytestmark = pytest.mark.timeout(180)


class Nobody:
    """A chain that the web's side knows nothing of: the process finds its work by itself."""

    head = None
    genesis = None

    def hotkeys(self, netuid: int, timeout: float) -> frozenset[str]:
        raise ChainUnreachable("away")

    def ask(self, op: str, args: Mapping[str, Any], timeout: float) -> Any:
        raise ChainUnreachable("away")


class Site:
    """A node's folder, whose weights are put here, and sent by processes that come and go."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.identity = home.pylon.identities[0]
        clock = SystemClock()
        self.weights = Weights(home.store, clock, home.settings, home.pylon, Nobody(), Nobody(), lambda tell: tell())
        self.hotkey = ""

    def put(self, value: float) -> str:
        """By the identity's own hotkey, which the first process makes; the other one is not registered."""
        weights = {self.hotkey: 1.0, hotkey_of("nobody"): value}
        return str(self.weights.put(self.identity, weights, 1.0)["job_id"])

    def status(self) -> dict[str, Any]:
        return self.weights.status(self.identity)

    def process(self) -> Any:
        return self.home.python("-m", "grid_node.chain.worker")

    def wait_for_attempt(self) -> None:
        """To the millisecond: what follows is over soon."""
        end = time.monotonic() + WAIT
        while self.status()["attempts"] == 0:
            assert time.monotonic() < end
            time.sleep(0.001)

    def landed(self) -> list[str]:
        """Hashes of the weights that the chain has, oldest first."""
        query = select(ChainExtrinsic.hash).where(ChainExtrinsic.function == "set_weights")
        return self._all(query.order_by(ChainExtrinsic.block, ChainExtrinsic.index))

    def told(self) -> list[str]:
        """Hashes of those that the jobs say have landed, by the jobs' age."""
        return self._all(select(jobs.c.extrinsic_hash).where(jobs.c.landed.is_(True)).order_by(jobs.c.number))

    def _all(self, query: Any) -> list[str]:
        return self.home.store.read(lambda tx: list(tx.execute(query).scalars()))


@pytest.fixture
def site(tmp_path: Path, sqlite_template: Path) -> Iterator[Site]:
    home = Home(tmp_path, sqlite_template)
    home.settings = replace(home.settings, chain_local_block_seconds=BLOCK_SECONDS)
    link = home.link()
    link.start()
    until(lambda: link.beat is not None and link.beat.identities)
    made = Site(home)
    made.hotkey = link.beat.identities["sn1"]
    link.stop(5)
    yield made
    home.close()


def test_a_process_that_ends_in_order_lets_go_of_the_lease(site: Site) -> None:
    def held() -> list[str]:
        return site._all(select(leases.c.holder))

    assert held() == []
    with site.process() as process:
        until(held, seconds=WAIT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
    assert held() == []


def test_weights_land_once_however_often_the_process_is_killed(site: Site) -> None:
    chance = random.Random(20261122)
    for number in range(ROUNDS):
        job = site.put(1.0 + number)
        with site.process() as process:
            site.wait_for_attempt()
            time.sleep(chance.random() * WINDOW)
            process.kill()
            process.wait(WAIT)
        assert site.status()["job_id"] == job

    with site.process():
        until(lambda: site.status()["status"] not in UNFINISHED, seconds=WAIT)

    assert (site.status()["status"], site.status()["job_id"]) == ("completed", job)
    assert site.landed() == site.told()
    assert site.landed()[-1] == site.status()["extrinsic_hash"]
