"""Commitments in the chain's process: attempts, repeats, submissions of unknown fate."""

import pytest

from grid_node.chain.commitments import CommitmentWriter
from grid_node.chain.ports import Landed, NodeUnreachable, Signer, WriteRefused
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import ManualClock
from grid_node.errors import ChainWriteFailed
from grid_node.settings import Settings
from tests.chain_stub import LANDS_UNHEARD, LOST, StubChain, hotkey_of

SIGNER = Signer("sn1", 1, "wallet", "hotkey")
DATA = b"\x00\xffraw"


class World:
    def __init__(self, **pylon):
        self.clock = ManualClock(1_800_000_000.0)
        self.chain = StubChain()
        self.chain.seed(1, 4)
        self.pylon = PylonSettings(**pylon)
        self.slept = []
        self.rest = 0.0
        self.writer = self.new_writer()

    def new_writer(self):
        return CommitmentWriter(self.clock, Settings(), self.pylon, self.chain, self.sleep)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.wait(seconds)

    def wait(self, seconds):
        self.clock.advance(seconds)
        blocks, self.rest = divmod(self.rest + seconds, 12)
        self.chain.advance(int(blocks))

    def on_chain(self):
        found = self.chain.commitment(1, hotkey_of("sn1"), self.chain.at(self.chain.head_number))
        return None if found is None else found.data


@pytest.fixture
def world():
    return World()


def test_a_commitment_is_on_the_chain_when_it_returns(world):
    landed = world.writer.write(SIGNER, DATA)

    assert world.on_chain() == DATA
    assert landed.block.number == world.chain.head_number
    assert world.slept == []


def test_failed_attempts_are_followed_by_others(world):
    world.chain.outcomes.extend([WriteRefused("busy"), WriteRefused("busy")])
    world.chain.fail("prepare_commitment", NodeUnreachable("gone"))

    world.writer.write(SIGNER, DATA)

    assert world.on_chain() == DATA
    assert world.slept == [1, 2, 4]


def test_after_the_last_attempt_the_last_error_is_told(world):
    world.chain.fail("prepare_commitment", *[NodeUnreachable("gone")] * 10, WriteRefused("no wallet"))

    with pytest.raises(ChainWriteFailed, match="Failed to set commitment after 11 attempts: no wallet") as failed:
        world.writer.write(SIGNER, DATA)

    assert failed.value.status == 502
    assert world.slept == [1, 2, 4, 8, 10, 10, 10, 10, 10, 10]
    assert world.on_chain() is None


def test_one_that_was_dispatched_in_vain_is_tried_again(world):
    land = world.chain._land

    def in_vain(prepared):
        world.chain._land = land
        return Landed(world.chain.advance(), prepared.extrinsic_hash, "Commitments.SpaceLimitExceeded")

    world.chain._land = in_vain
    world.writer.write(SIGNER, DATA)

    assert world.chain.calls["submit"] == 2
    assert world.on_chain() == DATA


def test_a_repeat_within_the_window_is_not_written_again(world):
    first = world.writer.write(SIGNER, DATA)
    world.wait(100)

    assert world.writer.write(SIGNER, DATA).block == first.block
    assert world.chain.calls["submit"] == 1


def test_a_repeat_after_a_restart_is_not_written_again(world):
    world.writer.write(SIGNER, DATA)

    world.new_writer().write(SIGNER, DATA)
    assert world.chain.calls["submit"] == 1


def test_after_the_window_the_same_data_are_written_again(world):
    world.writer.write(SIGNER, DATA)
    world.wait(200)
    world.writer.write(SIGNER, DATA)

    assert world.chain.calls["submit"] == 2


def test_other_data_in_between_end_the_repeat(world):
    for data in (DATA, b"other", DATA):
        world.writer.write(SIGNER, data)

    assert world.chain.calls["submit"] == 3
    assert world.on_chain() == DATA


def test_one_that_landed_unheard_is_found_and_not_sent_again(world):
    world.chain.outcomes.append(LANDS_UNHEARD)

    landed = world.writer.write(SIGNER, DATA)

    assert landed == world.chain.landed[0][1]
    assert world.chain.calls["submit"] == 1


def test_one_that_was_lost_is_sent_again_when_its_era_is_over(world):
    world.chain.outcomes.append(LOST)
    begun = world.chain.head_number

    world.writer.write(SIGNER, DATA)

    assert world.chain.calls["submit"] == 2
    assert world.chain.head_number >= begun + 8


def test_nothing_is_sent_while_an_earlier_one_may_still_land(world):
    """Finality has stopped: the era never ends, and each attempt ends after its 120 s."""
    world.chain.outcomes.append(LANDS_UNHEARD)
    world.chain.finalized_lag = 10_000

    with pytest.raises(ChainWriteFailed, match="it may still land"):
        world.writer.write(SIGNER, b"other")
    assert world.chain.calls["submit"] == 1

    world.chain.finalized_lag = 0
    world.writer.write(SIGNER, DATA)
    assert world.on_chain() == DATA
    assert world.chain.calls["submit"] == 2


def test_one_of_unknown_fate_that_landed_answers_its_repeat():
    world = World(commitment_retry_attempts=0)
    world.chain.outcomes.append(LANDS_UNHEARD)
    world.chain.finalized_lag = 10_000
    with pytest.raises(ChainWriteFailed, match="after 1 attempts"):
        world.writer.write(SIGNER, DATA)
    world.chain.finalized_lag = 0

    assert world.writer.write(SIGNER, DATA) == world.chain.landed[0][1]
    assert world.chain.calls["submit"] == 1


def test_identities_do_not_wait_for_each_other():
    world = World(commitment_retry_attempts=0)
    world.chain.outcomes.append(LOST)
    world.chain.finalized_lag = 10_000
    with pytest.raises(ChainWriteFailed):
        world.writer.write(SIGNER, DATA)
    world.slept.clear()

    world.writer.write(Signer("other", 1, "wallet", "hotkey"), DATA)
    assert world.slept == []
