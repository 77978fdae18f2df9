"""Automatic weights: once in an epoch, in its window, never beside a client's."""

import shutil

import pytest

from grid_node.chain.auto import AGAIN_SECONDS, AutoWeights
from grid_node.chain.frames import Answer
from grid_node.chain.proposals import Proposals
from grid_node.chain.weights_tables import jobs
from grid_node.database import DirectStore, make_engine
from grid_node.errors import ChainUnreachable, StoreUnavailable
from grid_node.settings import BadSetting, Settings
from tests.contract.chain.weighing import A, B, C, World, sent
from tests.stores import sqlite_template
from tests.unit.chain.test_proposals import StubScores

__all__ = ["sqlite_template"]

START, NEXT, LAST = 1080, 1441, 1802
WINDOW = 1260
"""The first block of the window of the epoch that starts at START."""


class AutoWorld(World):
    def __init__(self, store, names=("sn1",)):
        super().__init__(store, names)
        self.settings = Settings(chain_auto_weights=",".join(names), chain_local_block_seconds=12.0)
        self.scores = StubScores()
        self.scores.found = {A: (10, 10.0), B: (10, 5.0)}
        self.tempo = 360
        self.link.answers = {"hyperparams": self.hyperparams, "block": self.block}
        self.auto = self.new_auto()

    def new_auto(self):
        """As after a restart."""
        proposals = Proposals(self.scores, self.reads, self.link, self.clock, self.settings, self.pylon)
        reads = self.reads
        reads.hotkeys = lambda _netuid, _timeout: reads.known
        return AutoWeights(self.clock, self.settings, self.pylon, reads, self.weights, proposals)

    def hyperparams(self, _args):
        return Answer({"block": self.chain.at(self.chain.head_number).body(), "tempo": self.tempo}, b"")

    def block(self, args):
        return Answer({"block": self.chain.at(args["number"]).body()}, b"")

    def at_block(self, number):
        self.chain.head_number = number
        self.auto.tick()

    def jobs(self):
        query = jobs.select().order_by(jobs.c.number)
        rows = self.store.read(lambda tx: tx.execute(query).all())
        return [(row.source, row.epoch_start, row.status) for row in rows]


@pytest.fixture
def store(sqlite_template, tmp_path):
    shutil.copy(sqlite_template, tmp_path / "grid.db")
    made = DirectStore(make_engine(f"sqlite:///{tmp_path / 'grid.db'}"))
    yield made
    made.close()


@pytest.fixture
def world(store):
    return AutoWorld(store)


def test_weights_are_put_in_the_window_and_land(world):
    world.at_block(WINDOW - 1)
    assert world.jobs() == []
    world.at_block(WINDOW)

    job = world.run()

    assert world.chain.weights == [sent((0, 65535), (1, 32768))]
    assert (job["source"], job["status"], job["epoch"]) == ("auto", "completed", {"start": START, "end": NEXT})


def test_after_the_window_nothing_is_sent(world):
    world.at_block(NEXT - 10)
    assert world.jobs() == []
    world.at_block(NEXT - 11)
    assert len(world.jobs()) == 1


def test_once_in_each_epoch_over_three_epochs_and_restarts(world):
    for block in range(WINDOW, START + 3 * 361, 20):
        world.at_block(block)
        world.auto = world.new_auto()
        world.run()

    assert world.jobs() == [("auto", start, "completed") for start in (START, NEXT, LAST)]
    assert len(world.chain.weights) == 3


def test_the_same_scores_are_sent_again_in_the_next_epoch(world):
    world.at_block(WINDOW)
    world.at_block(WINDOW + 361)

    assert world.jobs() == [("auto", START, "superseded"), ("auto", NEXT, "scheduled")]


def test_a_restart_before_the_weights_landed_sends_nothing_more(world):
    world.at_block(WINDOW)
    world.auto = world.new_auto()
    world.scores.found = {C: (10, 1.0)}
    world.at_block(WINDOW + 1)

    assert len(world.jobs()) == 1


def test_a_clients_weights_in_the_epoch_stand_alone(world):
    world.chain.head_number = START + 1
    world.put({C: 1.0})
    world.run()
    world.at_block(WINDOW)

    assert world.jobs() == [("client", START, "completed")]
    world.at_block(WINDOW + 361)
    assert world.jobs()[-1] == ("auto", NEXT, "scheduled")


def test_a_clients_weights_that_wait_stand_alone(world):
    world.reads.knows_head = False
    world.put({C: 1.0})
    world.reads.knows_head = True
    world.at_block(WINDOW)

    assert world.jobs() == [("client", None, "scheduled")]


def test_a_client_may_replace_them(world):
    world.at_block(WINDOW)
    world.put({C: 1.0})
    world.at_block(WINDOW + 1)
    world.run()

    assert world.chain.weights == [sent((2, 65535))]
    assert [row[0] for row in world.jobs()] == ["auto", "client"]


def test_a_client_that_comes_between_the_look_and_the_put_wins(world):
    propose = world.auto._proposals.propose

    def slow(*args):
        world.put({C: 1.0})
        return propose(*args)

    world.auto._proposals.propose = slow
    world.at_block(WINDOW)

    assert [row[0] for row in world.jobs()] == ["client"]


def test_nobody_eligible_is_logged_once_and_nothing_is_sent(world, caplog):
    world.scores.found = {}
    for block in range(WINDOW, WINDOW + 5):
        world.at_block(block)

    assert world.jobs() == []
    assert caplog.text.count("nobody is eligible") == 1
    assert len(world.scores.asked) == 1


def test_the_window_is_the_subnets_own(world):
    world.tempo = 99
    world.at_block(1097 + 49 - 1)
    assert world.jobs() == []
    world.at_block(1097 + 49)
    assert world.jobs() == [("auto", 1097, "scheduled")]


def test_a_changed_tempo_is_noticed_before_anything_is_sent(world):
    world.at_block(START + 1)
    world.tempo = 200
    world.at_block(WINDOW)

    assert world.jobs() == []


def test_a_chain_that_is_away_is_asked_again_later(world, caplog):
    answers = world.link.answers
    world.link.answers = {"hyperparams": lambda _: (_ for _ in ()).throw(ChainUnreachable())}
    world.at_block(WINDOW)
    world.link.answers = answers
    world.at_block(WINDOW)
    assert world.jobs() == []
    assert caplog.text.count("wait") == 1

    world.clock.advance(AGAIN_SECONDS)
    world.at_block(WINDOW)
    assert len(world.jobs()) == 1


def test_a_database_that_is_away_is_asked_again_later(world):
    def away(*_args, **_kwargs):
        raise StoreUnavailable(retry_after=1)

    put, world.weights.put = world.weights.put, away
    world.at_block(WINDOW)
    world.weights.put = put
    world.clock.advance(AGAIN_SECONDS)
    world.at_block(WINDOW)

    assert len(world.jobs()) == 1


def test_without_a_head_nothing_is_asked(world):
    world.reads.knows_head = False
    world.at_block(WINDOW)

    assert world.link.asked == []


def test_only_listed_identities_have_them(store):
    world = World(store, ("sn1", "other"))
    world.settings = Settings(chain_auto_weights='["other"]')
    auto = AutoWorld.new_auto
    world.scores = StubScores()
    made = auto(world)

    assert made.is_wanted
    assert [one.name for one in made._identities] == ["other"]
    world.settings = Settings()
    assert not auto(world).is_wanted


def test_an_unknown_name_is_a_setting_that_is_wrong(store):
    world = AutoWorld(store)
    world.settings = Settings(chain_auto_weights="nobody")

    with pytest.raises(BadSetting, match="nobody"):
        world.new_auto()
