"""Weights from the PUT to a chain that keeps them: the ledger, and a small subtensor behind its adapter."""

import itertools

import pytest

from grid_node.chain.lease import Lease
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.samples import Samples
from grid_node.chain.weights import Weights
from grid_node.chain.weights_runner import WeightsRunner
from grid_node.clock import ManualClock
from grid_node.settings import Settings
from tests.contract.chain.subtensor_yard import SubtensorYard
from tests.contract.chain.test_weights_kills import PLACES_MIN, Fragile, Fuse, Killed, clear
from tests.contract.chain.weighing import StubLink, at_once, identity
from tests.ledgers import LedgerYard, hotkey_of, memory_store
from tests.subtensor import FakeSubtensor

ALICE = identity("alice")
SENT = ("set_weights", "commit_timelocked_weights")


class Field:
    """A yard with an identity that sets weights in it."""

    def __init__(self, yard, store, clock, **settings):
        self.yard, self.store, self.clock = yard, store, clock
        self.settings = Settings(**settings)
        self.pylon = PylonSettings(identities=(ALICE,))
        self.weights = Weights(store, clock, self.settings, self.pylon, self, StubLink(), spawn=at_once)
        self.miners = [hotkey_of(f"miner {number}") for number in range(3)]
        self.runner = self.new_runner()
        self.seen = 0

    def people(self, **subnet):
        self.yard.add_subnet(1, **subnet)
        self.yard.add_neuron(1, self.yard.hotkey("alice"), stake_alpha=10.0, validator_permit=True)
        for miner in self.miners:
            self.yard.add_neuron(1, miner)

    @property
    def head(self):
        return self.yard.port.head()

    @property
    def genesis(self):
        return self.yard.port.genesis()

    def hotkeys(self, netuid, timeout):
        return frozenset(neuron.hotkey for neuron in self.yard.port.neurons(netuid, self.yard.port.head()))

    def new_runner(self, store=None, port=None):
        return WeightsRunner(
            store or self.store,
            self.clock,
            self.settings,
            self.pylon,
            port or self.yard.port,
            Samples(),
            Lease(self.clock),
        )

    def put(self, *weights):
        return self.weights.put(ALICE, dict(zip(self.miners, weights, strict=True)), 5.0)

    def run(self, turns=40):
        """A block with each pause."""
        for _ in range(turns):
            pause = self.runner.step()
            if self.status()["status"] not in ("scheduled", "running"):
                break
            if pause:
                self.clock.advance(pause)
                self.yard.advance(1)
        return self.status()

    def status(self):
        return self.weights.status(ALICE)

    def landed(self):
        """Weights extrinsics in the blocks since the last look: number of the block, name of the call."""
        port, found = self.yard.port, []
        head = port.head().number
        for number in range(self.seen, head + 1):
            block = port.block(number)
            for index in itertools.count():
                extrinsic = port.extrinsic(block, index)
                if extrinsic is None:
                    break
                if extrinsic["call"]["call_function"] in SENT:
                    found.append((number, extrinsic["call"]["call_function"], extrinsic["extrinsic_hash"]))
        self.seen = head + 1
        return found

    def kept(self):
        return self.yard.weights(1, self.yard.hotkey("alice"))


@pytest.fixture
def subtensor():
    with FakeSubtensor(instant=True) as fake:
        yard = SubtensorYard(fake)
        yield Field(yard, memory_store(), ManualClock())
        yard.port.close()


@pytest.fixture
def ledger():
    store = memory_store()
    yard = LedgerYard(store)
    yield Field(yard, store, yard.clock)
    store.close()


@pytest.fixture(params=["ledger", "subtensor"])
def field(request):
    field = request.getfixturevalue(request.param)
    field.people()
    return field


def test_weights_are_on_the_chain_when_the_job_is_completed(field):
    field.put(0.5, 0.25, 0.0)

    job = field.run()

    assert job["status"] == "completed"
    assert field.landed() == [(job["block_number"], "set_weights", job["extrinsic_hash"])]
    kept = field.kept()
    assert (kept[1], kept[2], kept.get(3, 0)) == (65535, 32768, 0)


def test_uids_are_mapped_anew_at_the_attempt(field):
    field.put(0.5, 0.25, 1.0)
    field.yard.remove_last_neuron(1, field.miners[2])

    job = field.run()

    assert (job["status"], job["dropped"]) == ("completed", [field.miners[2]])
    kept = field.kept()
    assert (kept[1], kept[2]) == (65535, 32768)


def test_killed_anywhere_the_weights_land_once(field):
    for place in itertools.count():
        clear(field.store)
        field.put(1.0, (place + 1) / 1000, 0.0)
        field.landed()
        fuse = Fuse(place)
        field.runner = field.new_runner(Fragile(field.store, fuse), Fragile(field.yard.port, fuse))
        was_killed = False
        try:
            field.runner.recover()
            field.run()
        except Killed:
            was_killed = True
        field.runner = field.new_runner()
        field.runner.recover()

        job = field.run()

        assert job["status"] == "completed", place
        assert len(field.landed()) == 1, place
        assert field.kept()[2] == round((place + 1) / 1000 * 65535)
        if not was_killed:
            break
    assert place > PLACES_MIN


def test_what_is_committed_and_revealed_later_lands_once(subtensor):
    subtensor.people(commit_reveal=True)
    subtensor.put(0.5, 0.25, 0.0)

    job = subtensor.run()

    assert (job["status"], job["attempts"]) == ("completed", 1)
    commits = subtensor.yard.fake.chain.commits(1, subtensor.yard.hotkey("alice"))
    assert [commit.reveal_round for commit in commits] == [job["reveal_round"]]
    assert [name for _number, name, _hash in subtensor.landed()] == ["commit_timelocked_weights"]


def test_what_the_node_lost_is_sent_again_when_its_era_is_over(subtensor):
    subtensor.people()
    subtensor.yard.fake.faults.forget()
    subtensor.settings = Settings(chain_submit_timeout_seconds=0.5)
    subtensor.runner = subtensor.new_runner()
    subtensor.put(0.5, 0.25, 0.0)
    begun = subtensor.head.number

    job = subtensor.run()

    assert (job["status"], job["attempts"]) == ("completed", 2)
    assert job["block_number"] > begun + 8
    assert len(subtensor.landed()) == 1


def test_what_landed_unheard_is_found_and_not_sent_again(subtensor):
    subtensor.people()
    subtensor.yard.fake.faults.hush()
    subtensor.settings = Settings(chain_submit_timeout_seconds=0.5)
    subtensor.runner = subtensor.new_runner()
    subtensor.put(0.5, 0.25, 0.0)

    job = subtensor.run()

    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert len(subtensor.landed()) == 1


def test_a_connection_that_breaks_while_sending_does_not_send_twice(subtensor):
    subtensor.people()
    subtensor.yard.fake.faults.drop("author_submitAndWatchExtrinsic", times=1)
    subtensor.put(0.5, 0.25, 0.0)

    job = subtensor.run()

    assert job["status"] == "completed"
    assert len(subtensor.landed()) == 1


def test_what_the_node_refuses_is_tried_again(subtensor):
    subtensor.people()
    subtensor.yard.fake.faults.refuse()
    subtensor.put(0.5, 0.25, 0.0)

    job = subtensor.run()

    assert (job["status"], job["attempts"]) == ("completed", 2)
