"""The web process's link to the chain's process, with a puppet in its place."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from grid_node.chain.child import Child
from grid_node.chain.link import LOOK_EVERY, PAUSE_MAX, SILENCE_MAX, STEADY, ChainLink
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import ManualClock
from grid_node.errors import ChainFault, ChainNotFound, ChainQueueFull, ChainTimeout, ChainUnreachable
from grid_node.settings import Settings
from tests.chain_puppet import BEAT
from tests.nodes import ROOT, until

SETTINGS = Settings.load({}, data_dir=Path("/nonexistent"))
PYLON = PylonSettings.load({})


class Puppets:
    """Starts puppets for a link, each as the next word of `modes` says; the last word stays."""

    def __init__(self, *modes):
        self.modes = list(modes)
        self.children = []

    def __call__(self, environ, beat, ended):
        mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
        if mode == "none":
            raise OSError("no such program")
        environ = {**environ, "PUPPET": mode, "PYTHONPATH": str(ROOT)}
        self.children.append(Child(environ, beat, ended, "tests.chain_puppet"))
        return self.children[-1]


@pytest.fixture
def linked():
    """Makes links; at the end they are stopped, and no process is left."""
    made = []

    def link(*modes, clock=None, **settings):
        puppets = Puppets(*modes)
        one = ChainLink(replace(SETTINGS, **settings), PYLON, clock, puppets)
        made.append((one, puppets))
        return one, puppets

    yield link
    for one, puppets in made:
        one.stop(5)
        assert all(child.gone.wait(10) for child in puppets.children)
        assert not any(psutil.pid_exists(child.pid) for child in puppets.children)


def test_the_first_call_starts_the_process(linked):
    link, puppets = linked("good")
    assert not link.is_up
    assert link.pid is None

    answer = link.ask("block", {"number": 3}, 10)

    assert (answer.meta, answer.body) == ({"op": "block", "number": 3}, b"body")
    assert link.is_up
    assert link.restarts == 0
    assert len(puppets.children) == 1


def test_beats_and_samples_are_passed_on(linked):
    link, _puppets = linked("good")
    beats, samples = [], []
    link.on_beat, link.on_samples = beats.append, samples.extend
    link.start()
    until(lambda: samples)

    assert beats == [BEAT]
    assert link.beat == BEAT
    assert samples == [["fallback", "stale_block", "get_block", "N/A"]]


def test_whoever_hears_beats_may_fail(linked, caplog):
    link, _puppets = linked("good")

    def fail(_beat):
        raise RuntimeError("no ears")

    link.on_beat = fail
    with caplog.at_level(logging.ERROR):
        link.ask("block", {}, 10)
    assert "no ears" in caplog.text


def test_refusals_are_raised_as_what_they_are(linked):
    link, _puppets = linked("good")
    refusal = {"code": "chain_not_found", "text": "Subnet 7 not found.", "data": {}}
    with pytest.raises(ChainNotFound, match=r"^Subnet 7 not found\.$"):
        link.ask("refuse", refusal, 10)
    full = {"code": "chain_queue_full", "text": "Chain queue is full.", "data": {"retry_after": 3}}
    with pytest.raises(ChainQueueFull) as raised:
        link.ask("refuse", full, 10)
    assert raised.value.retry_after == 3


@pytest.mark.parametrize("refusal", [{}, {"code": "no such", "text": "x", "data": {}}, {"code": "invalid_key"}])
def test_a_refusal_that_is_none_is_a_fault(linked, refusal):
    link, _puppets = linked("good")
    with pytest.raises(ChainFault):
        link.ask("refuse", refusal, 10)


def test_a_call_ends_with_its_deadline_and_the_next_is_served(linked):
    link, _puppets = linked("good")
    link.ask("block", {}, 10)
    begun = time.monotonic()
    with pytest.raises(ChainTimeout):
        link.ask("sleep", {"seconds": 0.3}, 0.05)

    assert time.monotonic() - begun < 0.25
    assert link.queue == 0
    assert link.ask("block", {"number": 1}, 10).meta["number"] == 1


def test_the_start_is_waited_for_no_longer_than_the_deadline(linked):
    link, _puppets = linked("mute")
    with pytest.raises(ChainTimeout):
        link.ask("block", {}, 0.05)
    assert not link.is_up


def test_calls_above_the_limit_are_refused_at_once(linked):
    link, _puppets = linked("good", chain_queue_max=2)
    link.ask("block", {}, 10)
    threads = [threading.Thread(target=link.ask, args=("sleep", {"seconds": 0.2}, 10)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: link.queue == 2)

    with pytest.raises(ChainQueueFull) as raised:
        link.ask("block", {}, 10)
    assert raised.value.retry_after == 1

    for thread in threads:
        thread.join(10)
    link.ask("block", {}, 10)


def test_a_death_ends_every_wait_at_once_and_the_process_is_started_again(linked, caplog):
    clock = ManualClock()
    link, puppets = linked("good", clock=clock)
    link.ask("block", {}, 10)
    outcomes = []

    def wait():
        try:
            link.ask("sleep", {"seconds": 60}, 60)
        except ChainUnreachable as error:
            outcomes.append(error)

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for thread in waiting:
        thread.start()
    until(lambda: link.queue == 3)
    begun = time.monotonic()
    puppets.children[0].kill()
    for thread in waiting:
        thread.join(10)

    assert time.monotonic() - begun < 2
    assert {error.message for error in outcomes} == {"Chain node is unreachable: the chain's process ended"}
    until(lambda: link.pid is None)
    with pytest.raises(ChainUnreachable, match="is being restarted"):
        link.ask("block", {}, 10)
    assert link.beat == BEAT
    assert "ended with status -9" in caplog.text

    clock.advance(1.0)
    until(lambda: link.restarts == 1)
    assert link.ask("block", {"number": 2}, 10).meta["number"] == 2


def test_a_process_that_dies_at_the_start_fails_who_waits_for_it(linked):
    link, _puppets = linked("dead", clock=ManualClock())
    with pytest.raises(ChainUnreachable):
        link.ask("block", {}, 10)


def test_one_that_keeps_dying_is_started_ever_more_seldom(linked):
    clock = ManualClock()
    link, puppets = linked("dead", clock=clock)
    link.start()
    pauses = []
    for number in range(7):
        until(lambda: link.pid is None)
        pauses.append(link._not_before - clock.steady())
        clock.advance(pauses[-1])
        until(lambda number=number: len(puppets.children) == number + 2)

    assert pauses == [1, 2, 4, 8, 16, PAUSE_MAX, PAUSE_MAX]


def test_one_that_lived_long_is_started_again_soon(linked):
    clock = ManualClock()
    link, puppets = linked("dead", "dead", "good", clock=clock)
    link.start()
    for _ in range(2):
        until(lambda: link.pid is None)
        clock.advance(link._pause)
        until(lambda: link.pid is not None)
    until(lambda: link.is_up)
    clock.advance(STEADY + 1)
    puppets.children[-1].kill()
    until(lambda: link.pid is None)

    assert link._not_before - clock.steady() == 1.0


def test_a_program_that_cannot_be_started_is_tried_again(linked, caplog):
    clock = ManualClock()
    link, _puppets = linked("none", "good", clock=clock)
    with pytest.raises(ChainUnreachable, match="is being restarted"):
        link.ask("block", {}, 10)
    assert "cannot be started" in caplog.text

    clock.advance(1)
    until(lambda: link.is_up)
    link.ask("block", {}, 10)


@pytest.mark.parametrize("mode", ["garbage", "alien"])
def test_one_that_does_not_speak_the_protocol_is_ended(linked, caplog, mode):
    link, puppets = linked(mode, "good", clock=ManualClock())
    with pytest.raises(ChainUnreachable):
        link.ask("block", {}, 10)
    until(lambda: puppets.children[0].is_dead)
    assert "does not speak the protocol" in caplog.text


def test_a_silent_one_is_killed(linked, caplog):
    link, puppets = linked("mute", "good", clock=ManualClock())
    link._has_started = True  # looked after by hand
    link._try_to_start()
    child = puppets.children[0]
    looks = round(SILENCE_MAX / LOOK_EVERY)
    for _ in range(looks - 1):
        link._look_after(child)
    assert not child.is_dead

    link._look_after(child)

    assert child.gone.wait(10)
    assert child.status == -9
    assert "was silent for 30 s" in caplog.text


def test_every_word_ends_the_silence(linked):
    link, puppets = linked("good", clock=ManualClock())
    link._has_started = True
    link._try_to_start()
    for _ in range(3 * round(SILENCE_MAX / LOOK_EVERY) // 100):
        for _ in range(100):
            link._look_after(puppets.children[0])
        link.ask("block", {}, 10)
    assert puppets.children[0].quiet < 100
    assert link.is_up


def test_the_end_is_quiet_and_final(linked, caplog):
    link, puppets = linked("good")
    link.ask("block", {}, 10)
    link.stop(5)

    assert puppets.children[0].gone.is_set()
    assert puppets.children[0].status == 0
    with pytest.raises(ChainUnreachable):
        link.ask("block", {}, 10)
    assert len(puppets.children) == 1
    assert caplog.text == ""


def test_a_link_that_was_never_needed_starts_nothing(linked):
    link, puppets = linked("good")
    link.stop(5)
    with pytest.raises(ChainUnreachable):
        link.ask("block", {}, 10)
    assert puppets.children == []


def test_many_first_calls_start_one_process(linked):
    link, puppets = linked("good")
    answers = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(link.ask("block", {"number": n}, 10).meta["number"]))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    assert sorted(answers) == list(range(20))
    assert len(puppets.children) == 1
