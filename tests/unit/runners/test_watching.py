"""What time does to a prediction."""

import dataclasses

import pytest

from grid_node.runners.health import BUSY, DEFUNCT, OFFLINE, READY, STARTING
from grid_node.runners.prediction import (
    CANCELED,
    DISPATCHING,
    EXTERNAL,
    FAILED,
    NODE,
    PROCESSING,
    QUEUED,
    SUCCEEDED,
    Prediction,
)
from grid_node.runners.prediction import STARTING as WARMING
from grid_node.runners.verdict import NO_ANSWER, STOPPED, Act, verdict
from grid_node.settings import Settings

T = 1_800_000_000.0
SETTINGS = Settings.load({})
"""As they come: 600 s in the queue, 1800 s of run, 450 s of silence, 15 s of grace, 2 sends."""


def prediction(state=QUEUED, **members):
    given = {"number": 1, "id": "p1", "owner": "anna", "runner_owner": "anna", "model_id": "m-1", "model": "anna/x"}
    given |= {"version": "0" * 64, "source": NODE, "input": {}, "due_at": T, "created_at": T}
    if state in (DISPATCHING, WARMING, PROCESSING):
        given |= {"runner": "a" * 32, "attempts": 1, "dispatched_at": T}
    return Prediction(**{**given, "state": state, **members})


def at(seconds, found, runner=None, **settings):
    return verdict(found, T + seconds, runner, dataclasses.replace(SETTINGS, **settings))


# --- the queue


def test_a_queued_prediction_waits_for_its_deadline():
    assert at(599.9, prediction()) == (Act.WAIT, T + 600, None)


def test_no_runner_within_the_time_of_the_queue_fails_with_that_reason():
    assert at(600, prediction())[::2] == (Act.FAIL, "No runner took the prediction within 600 s.")


def test_the_reason_names_the_setting_as_it_is():
    said = at(2.5, prediction(), prediction_queue_ttl_s=2.5)
    assert said.error == "No runner took the prediction within 2.5 s."


def test_its_own_deadline_cancels_a_queued_prediction_before_the_queue_fails_it():
    found = prediction(deadline=T + 30)
    assert at(29, found).due_at == T + 30
    assert at(30, found).act is Act.CANCEL


def test_a_prediction_that_came_back_to_the_queue_has_not_won_time():
    assert at(600, prediction(attempts=1, runner="a" * 32)).act is Act.FAIL


# --- the send


def test_a_send_under_way_is_left_alone_until_its_claim_ends():
    assert at(19, prediction(DISPATCHING, claimed_until=T + 20)) == (Act.WAIT, T + 20, None)


def test_a_send_without_an_answer_goes_back_to_the_queue_once():
    assert at(20, prediction(DISPATCHING, claimed_until=T + 20)).act is Act.QUEUE


def test_the_last_send_without_an_answer_fails():
    said = at(20, prediction(DISPATCHING, claimed_until=T + 20, attempts=2))
    assert (said.act, said.error) == (Act.FAIL_AND_TELL, NO_ANSWER)


def test_a_prediction_on_which_the_worker_has_reported_is_never_sent_again():
    found = prediction(DISPATCHING, claimed_until=T + 20, reported_at=T + 3)
    assert at(20, found) == (Act.WAIT, T + 3 + 450, None)


# --- the run


@pytest.mark.parametrize("state", [WARMING, PROCESSING])
def test_the_longest_run_ends_with_that_reason_and_the_worker_is_told(state):
    found = prediction(state, reported_at=T + 1799)
    assert at(1799.9, found).act is Act.WAIT
    assert at(1800, found) == (Act.FAIL_AND_TELL, T + 1800, "The prediction ran longer than 1800 s.")


def test_the_run_is_counted_from_the_send_and_not_from_the_queue():
    assert at(1800, prediction(PROCESSING, dispatched_at=T + 500, reported_at=T + 1700)).act is Act.WAIT


def test_cancel_after_asks_for_the_cancel_of_what_runs():
    found = prediction(PROCESSING, deadline=T + 30)
    assert at(29, found).due_at == T + 30
    assert at(30, found).act is Act.ASK_CANCEL


def test_a_cancel_is_told_again_and_again_and_then_ends_the_prediction():
    found = prediction(PROCESSING, cancel_at=T + 100)
    assert at(100, found) == (Act.TELL, T + 102, None)
    assert at(114, found) == (Act.TELL, T + 115, None)
    assert at(115, found).act is Act.CANCEL


def test_a_cancel_during_the_send_is_told_too():
    assert at(1, prediction(DISPATCHING, claimed_until=T + 20, cancel_at=T + 1)).act is Act.TELL


# --- the lost


@pytest.mark.parametrize("runner", [OFFLINE, READY, STARTING, DEFUNCT])
def test_silence_of_a_runner_that_does_not_work_on_it_is_a_loss(runner):
    found = prediction(PROCESSING, reported_at=T + 10)
    assert at(459, found, runner) == (Act.WAIT, T + 460, None)
    assert at(460, found).act is Act.ASK_HEALTH
    assert at(460, found, runner)[::2] == (Act.FAIL, STOPPED)
    assert STOPPED == "The runner stopped reporting."


def test_silence_of_a_busy_runner_is_none():
    said = at(460, prediction(PROCESSING, reported_at=T + 10), BUSY)
    assert (said.act, said.due_at) == (Act.WAIT, T + 475)


def test_an_accepted_prediction_that_never_reports_is_lost_as_well():
    assert at(450, prediction(WARMING), READY)[::2] == (Act.FAIL, STOPPED)


# --- the others


@pytest.mark.parametrize("state", [SUCCEEDED, FAILED, CANCELED])
def test_what_has_ended_stays(state):
    assert at(10_000, prediction(state, finished_at=T)).act is Act.WAIT


def test_a_prediction_that_this_node_did_not_start_outlives_all_its_deadlines():
    found = prediction(PROCESSING, source=EXTERNAL, model_id=None, reported_at=T)
    assert at(100_000, found, OFFLINE).act is Act.WAIT


def test_a_prediction_of_a_worker_s_own_is_given_up_once_it_is_as_old_as_ended_ones_become():
    found = prediction(WARMING, source=EXTERNAL, model_id=None, runner=None, reported_at=T + 50)
    month = SETTINGS.prediction_ttl_s
    assert at(month, found) == (Act.WAIT, T + 50 + month, None)
    assert at(month + 50, found)[::2] == (Act.FAIL, STOPPED)
