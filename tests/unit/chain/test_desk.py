"""What the chain's process does when it is asked."""

import json
import logging
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from grid_node.chain.frames import Answer
from grid_node.chain.lanes import AFTER_FAULT, SWEEP, Lane
from grid_node.chain.ports import BlockUnknown, NodeUnreachable, SubnetUnknown, WriteRefused
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import ManualClock
from grid_node.errors import (
    ChainError,
    ChainFault,
    ChainNotFound,
    ChainQueueFull,
    ChainTimeout,
    ChainUnreachable,
    ChainWriteFailed,
    StoreUnavailable,
)
from grid_node.settings import Settings
from tests.chain_stub import StubChain, StubWriting, hotkey_of, stub_link
from tests.nodes import until

SETTINGS = Settings.load({}, data_dir=Path("/nonexistent"))
PYLON = PylonSettings.load(
    {
        "PYLON_IDENTITIES": '["sn1"]',
        "PYLON_ID_SN1_WALLET_NAME": "w",
        "PYLON_ID_SN1_HOTKEY_NAME": "h",
        "PYLON_ID_SN1_NETUID": "1",
        "PYLON_ID_SN1_TOKEN": "t",
    }
)
SELF = {"identity": "sn1"}


def at(number, netuid=1):
    return {"netuid": netuid, "number": number}


class Place:
    """A main node and an archive at the same height, and a link to them in this process."""

    def __init__(self, threads=False, writing=None, **settings):
        self.clock = ManualClock()
        self.main, self.archive = StubChain(100), StubChain(100, uri="ws://archive")
        for chain in (self.main, self.archive):
            chain.seed(1, 4)
            chain.advance(979)
        assert self.main.head_number == 1080
        self.link = stub_link(
            self.main,
            replace(SETTINGS, **settings),
            PYLON,
            self.clock,
            archive=self.archive,
            threads=threads,
            writing=writing,
        )
        self.samples = []
        self.link.on_samples = self.samples.extend
        self.posted = []
        """Calls that the desk has taken."""
        self._take, self.link.desk.ask = self.link.desk.ask, self._taken

    def ask(self, op, timeout=5, **args):
        return self.link.ask(op, args, timeout)

    def _taken(self, op, *rest):
        self._take(op, *rest)
        self.posted.append(op)

    def fallbacks(self):
        self.link.tick()
        return [sample[1:] for sample in self.samples if sample[0] == "fallback"]


@pytest.fixture
def place():
    made = Place()
    made.link.start()
    yield made
    made.link.stop(1)


@contextmanager
def threaded(**given):
    made = Place(threads=True, **given)
    try:
        yield made
    finally:
        made.link.stop(2)


# --- what is answered ---------------------------------------------------------------------------------------------


def test_the_newest_block_and_one_by_its_number(place):
    assert place.ask("block", number=None).meta == {"block": place.main.at(1080).body()}
    assert place.ask("block", number=900).meta == {"block": place.main.at(900).body()}


@pytest.mark.parametrize("kind", ["neurons", "validators", "commitments"])
def test_a_subnet_comes_with_its_block_what_is_final_and_a_word_for_its_state(place, kind):
    answer = place.ask(kind, **at(None))

    assert answer.meta["block"] == place.main.at(1080).body()
    assert answer.meta["finalized"] == 1080
    assert isinstance(answer.meta["state"], str)
    assert json.loads(answer.body)["block"] == place.main.at(1080).ref()
    assert kind in json.loads(answer.body)


def test_own_and_others_commitments_and_certificates(place):
    place.ask("set_commitment", identity="sn1", data="00ff")
    place.ask("generate_certificate", identity="sn1", algorithm=1)
    own = hotkey_of("sn1")

    for who in (SELF, {"netuid": 1, "hotkey": own}):
        assert json.loads(place.ask("commitment", **who).body)["commitment"] == "0x00ff"
        assert json.loads(place.ask("certificate", **who).body)["algorithm"] == 1
    assert json.loads(place.ask("certificates", **at(None)).body).keys() == {own}


def test_a_write_tells_its_block_and_later_reads_are_past_it(place):
    answer = place.ask("set_commitment", identity="sn1", data="00ff")

    assert answer.meta == {"block_number": 1081}
    assert place.ask("block", number=None).meta["block"]["number"] >= 1081


def test_the_status_names_every_connection_once(place):
    place.main.is_down = "connection refused"

    told = place.ask("status").meta

    assert told["endpoints"] == [
        {"uri": "ws://stub", "ok": False, "error": "connection refused"},
        {"uri": "ws://archive", "ok": True, "error": None},
    ]
    assert told["queue"] == 0


def test_an_extrinsic(place):
    assert json.loads(place.ask("extrinsic", number=1000, index=0).body)["block_number"] == 1000
    with pytest.raises(ChainNotFound, match=r"^Extrinsic 1000-99 not found\.$"):
        place.ask("extrinsic", number=1000, index=99)


def test_the_tempo_of_a_subnet(place):
    assert place.ask("hyperparams", **at(None)).meta["tempo"] == 360


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SubnetUnknown("x"), ChainNotFound, "Subnet 1 not found."),
        (NodeUnreachable("connection refused"), ChainUnreachable, "Chain node is unreachable: connection refused"),
        (
            StoreUnavailable(retry_after=1),
            ChainUnreachable,
            "Chain node is unreachable: the database is not available",
        ),
        (WriteRefused("no such wallet"), ChainWriteFailed, "no such wallet"),
        (ChainNotFound("Commitment not found."), ChainNotFound, "Commitment not found."),
        (KeyError("secret"), ChainFault, "Internal Server Error"),
    ],
)
def test_errors_of_the_port_in_the_words_of_the_api(place, error, kind, text):
    place.main.fail("neurons", error)

    with pytest.raises(ChainError) as raised:
        place.ask("neurons", **at(None))

    assert type(raised.value) is kind
    assert raised.value.message == text


def test_an_unknown_block_an_unknown_identity_an_unknown_operation(place):
    with pytest.raises(ChainNotFound, match=r"^Block 2000 not found\.$"):
        place.ask("block", number=2000)
    with pytest.raises(ChainNotFound, match="Identity 'nope' not found"):
        place.ask("commitment", identity="nope")
    with pytest.raises(ChainFault):
        place.ask("no such thing")


def test_a_fault_is_logged_and_told_without_detail(place, caplog):
    place.main.fail("neurons", RuntimeError("of our own"))

    with caplog.at_level(logging.ERROR), pytest.raises(ChainFault) as raised:
        place.ask("neurons", **at(None))

    assert "of our own" in caplog.text
    assert "of our own" not in str(raised.value.body())


def test_a_newest_block_that_is_undone_while_it_is_read_is_not_the_newest(place):
    place.main.fail("neurons", BlockUnknown("x"))
    assert place.ask("neurons", **at(None)).meta["block"]["number"] == 1080

    place.main.fail("commitments", BlockUnknown("x"), BlockUnknown("x"))
    with pytest.raises(ChainUnreachable, match="the newest block was undone"):
        place.ask("commitments", **at(None))


# --- the archive --------------------------------------------------------------------------------------------------


def test_the_archive_is_asked_for_what_is_further_back_than_the_cutoff(place):
    place.ask("neurons", **at(780))
    assert place.archive.calls["block"] == 0
    assert place.fallbacks() == []

    place.ask("neurons", **at(779))

    assert place.archive.calls["block"] == 1
    assert place.fallbacks() == [["stale_block", "get_neurons", "N/A"]]


def test_the_archive_is_asked_for_state_that_the_main_node_threw_away(place):
    place.main.discarded_below = 1050

    answer = place.ask("neurons", **at(1049))

    assert len(json.loads(answer.body)["neurons"]) == 4
    assert place.fallbacks() == [["unknown_block", "get_neurons", "N/A"]]
    place.ask("neurons", **at(1050))
    assert len(place.fallbacks()) == 1


def test_unknown_to_both_is_not_found(place):
    place.main.discarded_below = place.archive.discarded_below = 1050

    with pytest.raises(ChainNotFound, match=r"^Block 1049 not found\.$"):
        place.ask("neurons", **at(1049))


def test_a_block_that_is_not_there_yet_is_not_looked_for_in_the_archive(place):
    with pytest.raises(ChainNotFound, match=r"^Block 1081 not found\.$"):
        place.ask("neurons", **at(1081))

    assert place.archive.calls["block"] == 0
    assert place.fallbacks() == []


def test_the_cutoff_holds_before_the_first_look():
    place = Place()

    place.ask("neurons", **at(779))

    assert place.fallbacks() == [["stale_block", "get_neurons", "N/A"]]


def test_old_blocks_stay_readable_while_the_main_node_is_away(place):
    place.main.is_down = "connection refused"

    assert place.ask("block", number=100).meta["block"]["number"] == 100


# --- threads ------------------------------------------------------------------------------------------------------


def test_each_connection_has_one_thread_of_its_own():
    with threaded() as place:
        place.ask("neurons", **at(None))
        place.ask("block", number=1)
        with pytest.raises(ChainNotFound):
            place.ask("neurons", netuid=9, number=1000)

        assert len(place.main.threads) == len(place.archive.threads) == 1
        assert place.main.threads != place.archive.threads


def test_a_submission_does_not_delay_reads():
    writing = StubWriting(StubChain())
    with threaded(writing=writing) as place, ThreadOf() as thread:
        writer = writing._port
        with writer.hold("submit"):
            write = thread.ask(place, "set_commitment", identity="sn1", data="aa")
            until(lambda: writer.calls["submit"] == 1)
            assert place.ask("neurons", **at(None)).body
            assert not write.is_set()
        assert write.wait(5)


def test_equal_reads_of_one_block_are_one_call():
    with threaded() as place, ThreadOf() as thread:
        with place.main.hold("neurons"):
            first = thread.ask(place, "neurons", **at(1079))
            until(lambda: place.main.calls["neurons"] == 1)
            others = [thread.ask(place, "neurons", **at(1079)) for _ in range(5)]
            until(lambda: len(place.posted) == 6)
        assert all(done.wait(5) for done in [first, *others])

        assert place.main.calls["neurons"] == 1
        assert len({outcome.body for outcome in thread.outcomes}) == 1


def test_a_read_of_the_head_joins_none_that_has_begun():
    with threaded() as place, ThreadOf() as thread:
        with place.main.hold("neurons"):
            before = thread.ask(place, "neurons", **at(None))
            until(lambda: place.main.calls["neurons"] == 1)
            number = place.main.advance().number
            after = [thread.ask(place, "neurons", **at(None)) for _ in range(3)]
            until(lambda: len(place.posted) == 4)
        assert all(done.wait(5) for done in [before, *after])

        heads = sorted(outcome.meta["block"]["number"] for outcome in thread.outcomes)
        assert heads == [number - 1, number, number, number]
        assert place.main.calls["head"] == 2


def test_equal_commitments_are_one_write_and_certificates_never():
    writing = StubWriting(StubChain())
    with threaded(writing=writing) as place, ThreadOf() as thread:
        with writing._port.hold("submit"):
            writes = [thread.ask(place, "set_commitment", identity="sn1", data="aa") for _ in range(3)]
            writes += [thread.ask(place, "generate_certificate", identity="sn1", algorithm=1) for _ in range(2)]
            until(lambda: len(place.posted) == 5)
        assert all(done.wait(5) for done in writes)

        assert writing._port.calls["prepare_commitment"] == 1
        assert writing._port.calls["prepare_certificate"] == 2


def test_the_last_commitment_wins_also_when_it_is_as_one_that_runs():
    writing = StubWriting(StubChain())
    with threaded(writing=writing) as place, ThreadOf() as thread:
        with writing._port.hold("submit"):
            writes = [thread.ask(place, "set_commitment", identity="sn1", data="aa")]
            until(lambda: writing._port.calls["submit"] == 1)
            for number, data in enumerate(("bb", "aa", "aa"), 2):
                writes.append(thread.ask(place, "set_commitment", identity="sn1", data=data))
                until(lambda number=number: len(place.posted) == number)
        assert all(done.wait(5) for done in writes)

        sent = [prepared.payload[1][1] for prepared, _landed in writing._port.landed]
        assert sent == [b"\xaa", b"\xbb", b"\xaa"]


def test_a_read_whose_deadline_passed_while_it_waited_is_dropped():
    with threaded() as place, ThreadOf() as thread:
        with place.main.hold("neurons"):
            blocking = thread.ask(place, "neurons", **at(1079))
            until(lambda: place.main.calls["neurons"] == 1)
            with pytest.raises(ChainTimeout):
                place.ask("commitments", 0.01, **at(1078))
            place.clock.advance(1)
        assert blocking.wait(5)
        place.ask("block", number=1000)

        assert place.main.calls["commitments"] == 0


def test_a_write_goes_on_when_its_caller_has_left():
    writing = StubWriting(StubChain())
    with threaded(writing=writing) as place:
        with writing._port.hold("submit"):
            for data in ("aa", "bb"):
                with pytest.raises(ChainTimeout):
                    place.ask("set_commitment", 0.01, identity="sn1", data=data)
            place.clock.advance(1)
        until(lambda: len(writing._port.landed) == 2)


def test_a_full_queue_refuses():
    with threaded(chain_queue_max=2) as place, ThreadOf() as thread:
        with place.main.hold("neurons"):
            waiting = [thread.ask(place, "neurons", **at(number)) for number in (1078, 1079)]
            until(lambda: place.link.queue == 2)
            with pytest.raises(ChainQueueFull) as raised:
                place.ask("status")
            assert raised.value.retry_after == 1
        assert all(done.wait(5) for done in waiting)
        place.ask("status")


def test_a_look_goes_before_what_waits():
    with threaded() as place, ThreadOf() as thread:
        with place.main.hold("neurons"):
            first = thread.ask(place, "neurons", **at(1079))
            until(lambda: place.main.calls["neurons"] == 1)
            second = thread.ask(place, "commitments", **at(1079))
            until(lambda: len(place.posted) == 2)
            place.link.desk.look()
            place.link.desk.look()
        assert first.wait(5)
        assert second.wait(5)

        order = [call[0] for call in place.main.asked]
        assert order.index("finalized") < order.index("commitments")
        assert order.count("finalized") == 1


def test_a_reader_that_hangs_is_noticed():
    with threaded(chain_call_timeout_seconds=0.001) as place, ThreadOf() as thread:
        assert not place.link.desk.is_stuck()
        with place.main.hold("neurons"):
            read = thread.ask(place, "neurons", **at(1079))
            until(place.link.desk.is_stuck)
        assert read.wait(5)
        until(lambda: not place.link.desk.is_stuck())


def test_the_end_closes_every_connection():
    with threaded() as place:
        place.ask("block", number=None)
    assert (place.main.calls["close"], place.archive.calls["close"]) == (2, 1)


def test_weights_wake_the_writer_and_commitments_go_first():
    chain, order = StubChain(), []

    class Ordered(StubWriting):
        def commit(self, signer, data):
            order.append("commitment")
            return super().commit(signer, data)

        def turn(self):
            order.append("turn")

    with threaded(writing=Ordered(chain)) as place, ThreadOf() as thread:
        with chain.hold("submit"):
            writes = [thread.ask(place, "set_commitment", identity="sn1", data="aa")]
            until(lambda: order == ["commitment"])
            assert place.ask("weights") == Answer({}, b"")
            writes.append(thread.ask(place, "set_commitment", identity="sn1", data="bb"))
            until(lambda: len(place.posted) == 3)
        assert all(done.wait(5) for done in writes)
        until(lambda: len(order) == 3)

    assert order == ["commitment", "commitment", "turn"]


# --- lanes --------------------------------------------------------------------------------------------------------


def test_a_turn_comes_again_when_it_wants_to():
    turns, three = [], threading.Event()

    def turn():
        turns.append(None)
        if len(turns) == 3:
            three.set()
            return None
        return 0.0

    lane = Lane("test", turn)
    lane.wake()

    assert three.wait(5)
    lane.close(lambda: None)
    lane.join(5)
    assert len(turns) == 3


def test_a_turn_that_fails_is_logged_and_tried_again_later(caplog):
    failed = threading.Event()

    def turn():
        failed.set()
        raise RuntimeError("no luck")

    lane = Lane("test", turn)
    with caplog.at_level(logging.ERROR):
        lane.wake()
        assert failed.wait(5)
        until(lambda: lane._turn_due is not None)
    lane.close(lambda: None)
    lane.join(5)

    assert "no luck" in caplog.text
    assert 0 < AFTER_FAULT < SWEEP


def test_a_job_that_fails_does_not_end_the_thread(caplog):
    lane, done = Lane("test"), threading.Event()
    with caplog.at_level(logging.ERROR):
        lane.post(lambda: 1 / 0)
        lane.post(done.set)
        assert done.wait(5)
    lane.close(lambda: None)
    lane.join(5)
    assert "ZeroDivisionError" in caplog.text


class ThreadOf:
    """Asks from threads of their own, and waits for them at the end."""

    def __init__(self):
        self.outcomes = []
        self._threads = []

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        for thread in self._threads:
            thread.join(10)

    def ask(self, place, op, **args):
        done = threading.Event()

        def run():
            try:
                self.outcomes.append(place.ask(op, 10, **args))
            except ChainError as error:
                self.outcomes.append(error)
            done.set()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return done
