"""What is kept ready before anybody asks."""

import pytest

from grid_node.chain.pylon import PylonSettings
from grid_node.chain.recent import READ_MAX, Limits, Refresher
from grid_node.clock import ManualClock
from grid_node.errors import ChainNotFound, ChainUnreachable
from tests.chain_reads import Reading, until

IDENTITY = {
    "PYLON_IDENTITIES": '["sn5"]',
    "PYLON_ID_SN5_WALLET_NAME": "w",
    "PYLON_ID_SN5_HOTKEY_NAME": "h",
    "PYLON_ID_SN5_NETUID": "5",
    "PYLON_ID_SN5_TOKEN": "t",
}


@pytest.fixture
def clock():
    return ManualClock()


class Book:
    """What was refreshed, and what goes wrong."""

    def __init__(self):
        self.done = []
        self.errors = {}

    def __call__(self, key):
        self.done.append(key)
        if key in self.errors:
            raise self.errors[key]


@pytest.fixture
def book():
    return Book()


@pytest.mark.parametrize(("soft", "lead", "hard", "refresh"), [(100, 10, 150, 90), (5, 10, 5, 0), (0, 0, 0, 0)])
def test_limits(soft, lead, hard, refresh):
    environ = {
        "PYLON_RECENT_OBJECTS_SOFT_LIMIT_BLOCKS": str(soft),
        "PYLON_RECENT_OBJECTS_REFRESH_LEAD_BLOCKS": str(lead),
        "PYLON_RECENT_OBJECTS_HARD_LIMIT_BLOCKS": str(hard),
    }
    assert Limits.of(PylonSettings.load(environ)) == (refresh, hard)


def test_what_was_read_is_kept_ready_for_ten_minutes(clock, book):
    refresher = Refresher(clock, [("neurons", 1)], book)
    refresher.read(("validators", 3))
    clock.advance(600)
    assert refresher.wanted() == [("neurons", 1), ("validators", 3)]
    clock.advance(0.1)
    assert refresher.wanted() == [("neurons", 1)]


def test_the_last_read_ones_win_and_each_is_there_once(clock, book):
    refresher = Refresher(clock, [("neurons", 1), ("neurons", 1)], book)
    for netuid in range(200):
        clock.advance(1)
        refresher.read(("neurons", netuid))
    assert refresher.wanted() == [("neurons", 1), *(("neurons", netuid) for netuid in range(199, 199 - READ_MAX, -1))]


def test_what_does_not_exist_is_forgotten_and_the_rest_goes_on(clock, book):
    refresher = Refresher(clock, [("neurons", 1)], book)
    refresher.read(("neurons", 9))
    refresher.read(("neurons", 3))
    book.errors = {("neurons", 1): ChainNotFound(), ("neurons", 9): ChainNotFound()}
    refresher.round()
    assert book.done == [("neurons", 1), ("neurons", 9), ("neurons", 3)]
    assert refresher.wanted() == [("neurons", 1), ("neurons", 3)]


def test_a_chain_that_is_away_is_asked_once_a_round(clock, book):
    refresher = Refresher(clock, [("neurons", 1), ("neurons", 2)], book)
    book.errors = {("neurons", 1): ChainUnreachable()}
    refresher.round()
    assert book.done == [("neurons", 1)]


def test_it_wakes_works_survives_faults_and_ends(clock, book, caplog):
    refresher = Refresher(clock, [("neurons", 1)], book)
    book.errors = {("neurons", 1): ZeroDivisionError()}
    refresher.wake()
    until(lambda: "were not refreshed" in caplog.text)
    book.errors = {}
    refresher.wake()
    until(lambda: len(book.done) == 2)
    thread = refresher._thread
    refresher.stop()
    thread.join(10)
    assert not thread.is_alive()
    refresher.wake()
    assert refresher._thread is thread


def test_each_head_brings_the_listed_subnets_the_identities_and_the_nodes_own():
    node = Reading(
        environ={**IDENTITY, "PYLON_RECENT_OBJECTS_NETUIDS": "[7]"}, overrides={"chain_netuid": 2}, refreshes=True
    )
    for netuid in (2, 5, 7, 9):
        node.chain.seed(netuid, 2)
    node.link.start()
    until(lambda: all(node.reads.ready("neurons", netuid) for netuid in (2, 5, 7)))
    assert node.reads.ready("neurons", 9) is None
    node.reads.latest("commitments", 9, 5)
    head = node.chain.advance()
    node.tick()
    wanted = [("neurons", 2), ("neurons", 5), ("neurons", 7), ("commitments", 9)]
    until(lambda: all((told := node.reads.ready(*key)) and told.block == head for key in wanted))
    misses = node.misses
    assert misses == 1
    node.close()


def test_a_round_that_failed_is_made_up_for_at_the_next_beat():
    node = Reading()
    node.chain.seed(1, 2)
    node.link.start()
    node.link.is_up = False
    node.refresh()
    assert node.reads.ready("neurons", 1) is None
    node.link.is_up = True
    node.refresh()
    assert node.reads.ready("neurons", 1).block.number == 1001
    calls = len(node.chain.asked)
    node.refresh()
    assert len(node.chain.asked) == calls
    node.close()


def test_the_callback_of_a_beat_does_not_wait_for_the_chain():
    node = Reading(refreshes=True)
    node.chain.seed(1, 2)
    asked = []
    node.reads._flights.join = lambda *args: asked.append(args) or until(lambda: len(asked) > 1)
    node.reads.on_beat(node.desk.follower.beat())
    node.desk.look()
    node.reads.on_beat(node.desk.follower.beat())
    until(lambda: len(asked) == 1)
    asked.append("done")
    node.close()
