"""Scores that become weights: means as shares, and who gets none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_node.chain.frames import Answer
from grid_node.chain.proposals import Proposals, shares
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import ManualClock
from grid_node.errors import ChainNotFound, ChainTimeout, ChainUnreachable
from grid_node.settings import Settings
from tests.chain_stub import StubChain
from tests.contract.chain.weighing import HOTKEYS, A, B, C, StubLink, StubReads, identity

D, E = HOTKEYS[3:5]


class StubScores:
    def __init__(self):
        self.found = {}
        self.banned = set()
        self.asked = []

    def earned(self, since, until):
        self.asked.append((since, until))
        return self.found

    def blacklisted(self, hotkey):
        return hotkey in self.banned


class World:
    def __init__(self, **settings):
        self.clock = ManualClock(1_800_000_000.0)
        self.chain = StubChain(head=2000, born=1_800_000_000 - 24_024)
        self.chain.seed(1, 8)
        self.reads, self.link, self.scores = StubReads(self.chain), StubLink(), StubScores()
        self.reads.hotkeys = lambda _netuid, _timeout: self.reads.known
        self.tempo = 360
        self.link.answers = {"hyperparams": self.hyperparams, "block": self.block}
        self.proposals = Proposals(
            self.scores, self.reads, self.link, self.clock, Settings(**settings), PylonSettings()
        )

    def hyperparams(self, args):
        head = self.chain.at(self.chain.head_number)
        return Answer({"block": head.body(), "tempo": self.tempo}, b"")

    def block(self, args):
        return Answer({"block": self.chain.at(args["number"]).body()}, b"")

    def propose(self):
        return self.proposals.propose(identity(), 5.0)


@pytest.fixture
def world():
    return World()


def test_weights_are_means_by_their_sum(world):
    world.scores.found = {A: (10, 6.0), B: (5, 1.0), C: (100, 20.0)}

    proposal = world.propose()

    assert proposal.weights == pytest.approx({A: 0.6, B: 0.2, C: 0.2})
    assert proposal.excluded == []


def test_each_exclusion_has_its_reason(world):
    world.scores.found = {A: (10, 5.0), B: (4, 4.0), C: (5, 0.0), D: (9, 9.0), "5Gone": (9, 9.0), E: (5, -1.0)}
    world.scores.banned = {D, "5Gone"}

    proposal = world.propose()

    assert proposal.weights == {A: 1.0}
    assert {one.hotkey: (one.reason, one.results, one.mean) for one in proposal.excluded} == {
        B: ("fewer than 5 results", 4, 1.0),
        C: ("mean score is 0", 5, 0.0),
        D: ("blacklisted", 9, 1.0),
        E: ("mean score is 0", 5, -0.2),
        "5Gone": ("not registered on subnet 1", 9, 1.0),
    }


def test_a_mean_that_is_no_number_is_left_out(world):
    world.scores.found = {A: (5, float("nan")), B: (5, float("inf")), C: (0, 0.0), D: (5, 1.0)}

    proposal = world.propose()

    assert proposal.weights == {D: 1.0}
    reasons = {one.hotkey: one.reason for one in proposal.excluded}
    assert reasons[A] == reasons[B] == "mean score is not a finite number"
    assert reasons[C] == "fewer than 5 results"


def test_nobody_eligible_is_no_weights(world):
    assert world.propose().weights == {}


def test_the_window_is_three_epochs_back_from_the_head(world):
    proposal = world.propose()

    head = world.chain.head_number
    since = world.chain.at(head - 3 * 361).timestamp
    assert world.scores.asked == [(since, world.clock.now())]
    assert (proposal.since, proposal.until) == (since, world.clock.now())
    assert proposal.epoch == (1802, 2163)


def test_the_window_follows_the_subnets_tempo_and_the_setting():
    world = World(chain_score_window_epochs=2)
    world.tempo = 99

    assert world.propose().since == world.chain.at(world.chain.head_number - 200).timestamp


def test_a_young_chain_has_a_short_window():
    world = World()
    world.tempo = 5000

    assert world.propose().since == world.chain.born


def test_a_block_that_is_forgotten_is_dated_by_the_usual_pace(world):
    def gone(_args):
        raise ChainNotFound("Block 918 not found.")

    world.link.answers["block"] = gone
    head = world.chain.at(world.chain.head_number)

    assert world.propose().since == head.timestamp - 3 * 361 * 12


@pytest.mark.parametrize("op", ["hyperparams", "block"])
def test_without_a_chain_there_is_no_proposal(world, op):
    def away(_args):
        raise ChainUnreachable("Chain node is unreachable: gone")

    world.link.answers[op] = away
    with pytest.raises(ChainUnreachable):
        world.propose()


def test_without_a_metagraph_there_is_no_proposal(world):
    def late(_netuid, _timeout):
        raise ChainTimeout

    world.reads.hotkeys = late
    with pytest.raises(ChainTimeout):
        world.propose()


def test_a_proposal_as_json(world):
    world.scores.found = {A: (10, 5.0), B: (1, 1.0)}

    assert world.propose().body() == {
        "identity_name": "sn1",
        "netuid": 1,
        "epoch": {"start": 1802, "end": 2163},
        "since": world.chain.at(2001 - 1083).timestamp,
        "until": world.clock.now(),
        "weights": {A: 1.0},
        "excluded": [{"hotkey": B, "reason": "fewer than 5 results", "results": 1, "mean": 1.0}],
    }


@given(st.dictionaries(st.text(max_size=4), st.floats(1e-300, 1e308), min_size=1, max_size=256))
def test_shares_sum_to_1_and_keep_the_order(means):
    found = shares(means)

    assert sum(found.values()) == pytest.approx(1.0)
    ordered = [found[name] for name in sorted(means, key=means.__getitem__)]
    assert ordered == sorted(ordered)
    assert all(0 <= value <= 1 for value in ordered)
