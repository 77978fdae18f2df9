"""The chain's process in front of a subtensor and its archive, which may prune, hang, go away and come back."""

import json
import os
import shutil
import signal
import threading

import pytest

from grid_node.chain.backends import assemble  # noqa: F401 - its tables belong into the template
from grid_node.chain.link import ChainLink
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.wallets import Wallets
from grid_node.chain.weights import Weights
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import ChainNotFound, ChainUnreachable
from grid_node.settings import Settings
from tests.nodes import until
from tests.stores import sqlite_template
from tests.subtensor import FakeSubtensor
from tests.subtensor.__main__ import populate

__all__ = ["sqlite_template"]

CUTOFF = 20
WAIT = 30
"""Seconds that a call may take on a busy machine."""


def at(number):
    return {"netuid": 1, "number": number}


class Site:
    """A subtensor at block 40 and its archive, and a link to a process in front of them."""

    def __init__(self, folder, template):
        shutil.copy(template, folder / "grid.db")
        self.main = FakeSubtensor(instant=True)
        populate(self.main.chain, 1, 8)
        self.main.start()
        self.archive = self.main.archive().start()
        self.settings = Settings.load({}, data_dir=folder, chain_call_timeout_seconds=5.0)
        self.pylon = PylonSettings.load(
            {
                "PYLON_BITTENSOR_NETWORK": self.main.uri,
                "PYLON_BITTENSOR_ARCHIVE_NETWORK": self.archive.uri,
                "PYLON_BITTENSOR_ARCHIVE_BLOCKS_CUTOFF": str(CUTOFF),
                "PYLON_BITTENSOR_WALLET_PATH": str(folder / "wallets"),
                "PYLON_IDENTITIES": '["sn1"]',
                "PYLON_ID_SN1_WALLET_NAME": "w",
                "PYLON_ID_SN1_HOTKEY_NAME": "h",
                "PYLON_ID_SN1_NETUID": "1",
                "PYLON_ID_SN1_TOKEN": "token-of-sn1",
            }
        )
        wallets = Wallets(folder / "wallets", create_missing=True)
        self.hotkey = wallets.hotkey(self.pylon.identities[0].signer())
        self.main.chain.add_neuron(1, self.hotkey, validator_permit=True, total_stake=10**15, alpha_stake=10**15)
        self.main.chain.advance(40)
        self.link = ChainLink(self.settings, self.pylon)
        self.samples = []
        self.link.on_samples = self.samples.extend

    genesis = None
    head = None
    """As reads have it that have heard nothing yet."""

    def ask(self, op, **args):
        return self.link.ask(op, args, WAIT)

    def reasons(self):
        return [sample[1] for sample in self.samples if sample[0] == "fallback"]

    def weights(self):
        store = DirectStore(make_engine(self.settings.database))
        return Weights(store, SystemClock(), self.settings, self.pylon, self, self.link), store

    def hotkeys(self, netuid, timeout):
        return frozenset(json.loads(self.link.ask("neurons", {"netuid": netuid, "number": None}, WAIT).body)["neurons"])

    def close(self):
        self.link.stop(5)
        self.main.stop()
        self.archive.stop()


@pytest.fixture
def site(tmp_path, sqlite_template):
    made = Site(tmp_path, sqlite_template)
    yield made
    made.close()


def test_old_blocks_are_the_archives_and_so_is_what_was_pruned(site):
    head = site.ask("block", number=None).meta["block"]["number"]
    site.main.faults.prune(head - 10)

    assert site.ask("neurons", **at(head - 5)).meta["block"]["number"] == head - 5
    assert site.archive.connections == 0
    bodies = [site.ask("neurons", **at(number)).body for number in (head - 15, head - CUTOFF - 1)]

    assert all(len(json.loads(body)["neurons"]) == 9 for body in bodies)
    until(lambda: site.reasons() == ["unknown_block", "stale_block"])
    site.archive.faults.prune(head - 10)
    with pytest.raises(ChainNotFound, match=rf"^Block {head - 14} not found\.$"):
        site.ask("neurons", **at(head - 14))


def test_an_outage_is_told_and_the_way_back_is_found(site):
    site.ask("neurons", **at(None))
    until(lambda: site.link.beat is not None and site.link.beat.error is None)
    site.main.stop()
    until(lambda: site.link.beat.error is not None)
    with pytest.raises(ChainUnreachable, match=r"^Chain node is unreachable: "):
        site.ask("neurons", **at(None))
    assert site.link.beat.block is not None
    assert site.ask("block", number=site.link.beat.block.number - CUTOFF - 1).meta["block"]["number"] > 0

    site.main.start()

    until(lambda: site.link.beat.error is None)
    assert site.ask("neurons", **at(None)).body
    assert site.link.restarts == 0


def test_a_submission_that_nobody_hears_of_delays_no_read(site):
    site.ask("neurons", **at(None))
    site.main.faults.hush()
    done = threading.Event()

    def write():
        site.ask("set_commitment", identity="sn1", data="00ff")
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: site.main.chain.commitment(1, site.hotkey) == b"\x00\xff")
    assert site.ask("neurons", **at(None)).body
    assert site.ask("commitment", identity="sn1").meta["block"]["number"] > 40
    assert not done.is_set()
    site.main.stop()  # the connection breaks; what was sent is looked for, and found
    site.main.start()
    thread.join(WAIT)

    assert done.is_set()
    assert len(site.main.chain.landed("set_commitment")) == 1


def test_weights_are_set_once_though_the_process_is_killed(site):
    weights, store = site.weights()
    identity = site.pylon.identities[0]
    site.main.faults.hush()

    job = weights.put(identity, {site.hotkey: 1.0}, WAIT)
    until(lambda: len(site.main.chain.landed("set_weights")) == 1)
    assert weights.status(identity)["status"] != "completed"
    os.kill(site.link.pid, signal.SIGKILL)
    until(lambda: site.link.restarts == 1 and site.link.is_up)
    until(lambda: weights.status(identity)["status"] == "completed", 60)

    told = weights.status(identity)
    assert told["job_id"] == job["job_id"]
    assert told["weights_submitted"]
    assert told["attempts"] == 1
    assert len(site.main.chain.landed("set_weights")) == 1
    store.close()


def test_garbage_from_the_node_is_an_error_and_then_over(site):
    site.ask("neurons", **at(None))
    site.main.faults.garbage(times=3)
    failed = 0
    for _ in range(5):
        try:
            site.main.chain.advance()
            site.ask("neurons", **at(None))
        except ChainUnreachable:
            failed += 1

    assert failed <= 3
    assert site.ask("neurons", **at(None)).body
    assert site.link.restarts == 0
