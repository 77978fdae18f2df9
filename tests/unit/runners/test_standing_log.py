"""What operators read of workers that come, go and change."""

import logging

import pytest

from grid_node.adapters.socket_tunnel import SocketTunnel
from grid_node.clock import ManualClock
from grid_node.runners.standing_log import StandingLog
from grid_node.settings import Settings

MODEL, AGENT = "m-" + "a" * 20, "1" * 32
WHO = f"runner {AGENT} of model {MODEL}"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def standings(clock, caplog):
    caplog.set_level(logging.INFO, "grid_node.runners.standing_log")
    return StandingLog(clock)


def test_each_change_is_a_line_and_the_same_again_is_none(standings, clock, caplog):
    for status in ("READY", "READY", "BUSY", "BUSY", "OFFLINE", "OFFLINE"):
        standings.note(MODEL, AGENT, status)
        clock.advance(1)
    assert caplog.messages == [f"{WHO}: OFFLINE -> READY", f"{WHO}: READY -> BUSY", f"{WHO}: BUSY -> OFFLINE"]


def test_a_runner_that_flickers_has_a_line_a_second_and_its_last_word_is_not_lost(standings, clock, caplog):
    for _ in range(50):
        standings.note(MODEL, AGENT, "READY")
        standings.note(MODEL, AGENT, "BUSY")
    assert caplog.messages == [f"{WHO}: OFFLINE -> READY"]
    clock.advance(1)
    standings.note(MODEL, AGENT, "BUSY")
    assert caplog.messages[1:] == [f"{WHO}: READY -> BUSY"]


def test_a_runner_that_comes_and_goes_without_end_does_not_fill_the_log(standings, clock, caplog):
    for _ in range(50):
        standings.note(MODEL, AGENT, "UNKNOWN")
        standings.note(MODEL, AGENT, "OFFLINE")
    assert caplog.messages == [f"{WHO}: OFFLINE -> UNKNOWN", f"{WHO}: UNKNOWN -> OFFLINE"]


def test_runners_that_went_are_forgotten(standings, clock):
    for number in range(50):
        standings.note(MODEL, str(number), "READY")
        standings.note(MODEL, str(number), "OFFLINE")
        clock.advance(1)
    assert len(standings._said) == 1


def test_an_agent_is_told_from_its_coming_to_its_going(clock, caplog):
    caplog.set_level(logging.INFO, "grid_node.runners.standing_log")
    tunnel, link = SocketTunnel(Settings.load({}), clock, "node-1"), object()
    tunnel.join(MODEL, AGENT, link)
    tunnel.heard(MODEL, AGENT, link, "READY")
    tunnel.heard(MODEL, AGENT, object(), "BUSY")
    tunnel.leave(MODEL, AGENT, object())
    tunnel.leave(MODEL, AGENT, link)
    assert caplog.messages == [
        f"{WHO}: OFFLINE -> UNKNOWN",
        f"{WHO}: UNKNOWN -> READY",
        f"{WHO}: READY -> OFFLINE",
    ]
