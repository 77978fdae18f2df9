"""Following the head of the chain."""

import logging
import threading

from grid_node.chain.follow import HOTKEYS_EVERY, Follower, Pulse
from grid_node.chain.ports import Signer, WriteRefused
from grid_node.clock import ManualClock
from tests.chain_stub import StubChain, hotkey_of
from tests.nodes import until

SN1, SN2 = Signer("sn1", 1, "w", "h"), Signer("sn2", 2, "w", "h2")


def follower(chain, *signers):
    clock = ManualClock()
    return Follower(chain, clock, signers), clock


def test_before_the_first_answer_nothing_is_known():
    follow, clock = follower(StubChain())
    clock.advance(3)
    beat = follow.beat()

    assert (beat.block, beat.finalized, beat.age, beat.error) == (None, 0, 3.0, None)


def test_a_look_tells_whether_there_is_news():
    chain = StubChain()
    chain.finalized_lag = 3
    follow, _clock = follower(chain)

    assert follow.look()
    assert not follow.look()
    chain.advance()
    assert follow.look()

    assert follow.beat().block == chain.at(1001)
    assert follow.beat().finalized == 998


def test_the_age_counts_from_the_last_answer():
    chain = StubChain()
    follow, clock = follower(chain)
    follow.look()
    clock.advance(2)
    follow.look()
    clock.advance(5)

    assert follow.beat().age == 5.0


def test_an_outage_keeps_the_head_and_says_why(caplog):
    chain = StubChain()
    follow, clock = follower(chain)
    follow.look()
    chain.is_down = "connection refused"
    clock.advance(4)
    with caplog.at_level(logging.INFO):
        assert follow.look()
        assert not follow.look()
        beat = follow.beat()
        assert (beat.block, beat.age, beat.error) == (chain.at(1000), 4.0, "connection refused")

        chain.is_down = None
        assert follow.look()

    assert (follow.beat().age, follow.beat().error) == (0.0, None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_fault_is_logged_and_the_next_look_is_taken(caplog):
    chain = StubChain()
    follow, _clock = follower(chain)
    chain.fail("head", KeyError("x"))
    follow.look()
    assert follow.beat().error == "a fault of ours"
    assert "KeyError" in caplog.text

    follow.look()
    assert follow.beat().error is None


def test_what_a_read_was_told_is_in_the_next_beat():
    chain = StubChain()
    follow, clock = follower(chain)
    follow.look()
    clock.advance(5)
    new = chain.advance()
    follow.heard(new)

    assert follow.beat().block == new
    assert follow.beat().age == 0.0
    assert [follow.look(), follow.look()] == [True, False]


def test_what_is_final_stays_final():
    chain = StubChain()
    follow, _clock = follower(chain)
    follow.look()
    chain.finalized_lag = 10
    follow.look()

    assert follow.finalized == 1000


def test_a_reorg_is_news():
    chain = StubChain()
    follow, _clock = follower(chain)
    follow.look()
    new = chain.reorg(2)

    assert follow.look()
    assert follow.head == new


def test_hotkeys_of_identities_are_read_once_each(caplog):
    chain = StubChain()
    chain.fail("hotkey", WriteRefused("no file"))
    follow, clock = follower(chain, SN1, SN2)
    follow.look()
    assert follow.beat().identities == {"sn2": hotkey_of("sn2")}
    assert "identity sn1 cannot sign, this is tried again: no file" in caplog.text

    follow.look()
    assert chain.calls["hotkey"] == 2
    clock.advance(HOTKEYS_EVERY)
    follow.look()
    follow.look()

    assert follow.beat().identities == {"sn1": hotkey_of("sn1"), "sn2": hotkey_of("sn2")}
    assert chain.calls["hotkey"] == 3


class Beats:
    """Counts what a pulse does, and lets a test wait for it."""

    def __init__(self, every, news=lambda _looks: False, stuck=lambda: False):
        self.looks = self.sent = 0
        self._news = news
        self.pulse = Pulse(self._look, self._send, stuck, every)

    def _look(self):
        self.looks += 1
        if self._news(self.looks):
            self.pulse.changed()

    def _send(self):
        self.sent += 1


def test_there_is_a_beat_a_second_without_news():
    beats = Beats(0.1)
    beats.pulse.start()
    until(lambda: beats.sent == 2)
    beats.pulse.stop()

    assert 20 <= beats.looks <= 22


def test_news_are_told_at_once():
    beats = Beats(30.0, news=lambda looks: looks <= 3)
    beats.pulse.start()
    until(lambda: beats.sent == 3)
    beats.pulse.stop()


def test_a_hung_reader_has_no_pulse():
    seen = threading.Event()

    def stuck():
        seen.set()
        return True

    beats = Beats(0.01, news=lambda looks: looks < 50, stuck=stuck)
    beats.pulse.start()
    until(lambda: beats.looks >= 50)
    beats.pulse.stop()

    assert seen.is_set()
    assert beats.sent == 0
