"""Queued predictions meet runners, over every store: order, full hands, lost answers, deadlines, cancels, restarts."""

import logging
import random
from collections import Counter

import pytest

from grid_node.runners import agents
from grid_node.runners.agents import Agent
from grid_node.runners.backoff import LONGEST
from grid_node.runners.handover import QUIET
from grid_node.runners.health import health_of
from grid_node.runners.ids import prediction_of_token
from grid_node.runners.ports import Reply
from grid_node.runners.prediction import CANCELED, DISPATCHING, FAILED, PROCESSING, QUEUED, STARTING, SUCCEEDED
from grid_node.runners.verdict import NO_ANSWER, STOPPED
from tests.contract.runners.yard import AGENT, MODEL, OTHER, SECRET, Worker, Yard
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

OWN_MODEL, HUNGRY = "m-" + "b" * 20, "m-" + "c" * 20


@pytest.fixture
def yard(store):
    return Yard(store)


def states(yard, numbers):
    return [yard.get(number).state for number in numbers]


# --- who gets what


def test_a_queued_prediction_is_sent_whole_and_starts(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue(input={"prompt": "a cat", "steps": 50})
    yard.dispatching.round()
    found = yard.get(number)
    sent = worker.running[found.id]
    assert (found.state, found.runner, found.attempts, found.claimed_until) == (STARTING, AGENT, 1, None)
    assert sent["input"] == {"prompt": "a cat", "steps": 50}
    assert sent["webhook"].startswith("https://grid.example/pc/client-api/webhook/prediction?token=")
    assert prediction_of_token(SECRET, sent["webhook"].partition("token=")[2]) == found.id


def test_without_a_runner_it_waits_and_fails_at_the_deadline_of_the_queue(yard):
    number = yard.queue()
    yard.pass_time(599)
    assert yard.get(number).state == QUEUED
    yard.pass_time(1)
    found = yard.get(number)
    assert (found.state, found.error) == (FAILED, "No runner took the prediction within 600 s.")
    assert yard.ends(number) == 1


def test_the_oldest_comes_first_and_a_busy_worker_takes_the_next_as_soon_as_it_has_ended_one(yard):
    worker = yard.ways.join(Worker())
    numbers = [yard.queue() for _ in range(3)]
    yard.dispatching.round()
    assert states(yard, numbers) == [STARTING, QUEUED, QUEUED]
    assert yard.get(numbers[1]).attempts == 0
    yard.finish(worker, yard.get(numbers[0]).id)
    yard.dispatching.round()  # its rest is not over, but its hands are free
    assert states(yard, numbers) == [SUCCEEDED, STARTING, QUEUED]


def test_a_worker_takes_as_many_as_it_accepts(yard):
    worker = yard.ways.join(Worker(room=3))
    numbers = [yard.queue() for _ in range(5)]
    yard.dispatching.round()
    assert states(yard, numbers) == [STARTING] * 3 + [QUEUED] * 2
    assert list(worker.running) == [yard.get(number).id for number in numbers[:3]]


def test_busy_answers_do_not_count_and_come_at_a_pace(yard):
    worker = yard.ways.join(Worker(room=0))
    number = yard.queue()
    for _ in range(200):
        yard.dispatching.round()
        yard.clock.advance(0.1)
    assert 5 < len(worker.asked) < 12
    assert (yard.get(number).state, yard.get(number).attempts, yard.get(number).runner) == (QUEUED, 0, None)


def test_a_worker_that_says_that_it_is_ready_is_asked_at_once(yard):
    worker = yard.ways.join(Worker(room=0))
    number = yard.queue()
    for _ in range(6):
        yard.dispatching.round()
        yard.clock.advance(LONGEST)
    yard.dispatching.round()
    worker.room = 1
    yard.dispatching.round()
    assert yard.get(number).state == QUEUED
    yard.dispatching.ready(MODEL, AGENT)
    yard.dispatching.round()
    assert yard.get(number).state == STARTING


@pytest.mark.parametrize("status", ["OFFLINE", "STARTING", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"])
def test_a_worker_that_cannot_take_work_is_not_asked(yard, status):
    worker = yard.ways.join(Worker())
    yard.ways.statuses[AGENT] = status
    yard.queue()
    yard.dispatching.round()
    assert worker.asked == []


def test_a_worker_that_says_nothing_by_itself_is_asked_how_it_is_first(yard):
    worker = yard.ways.join(Worker(), instance="direct")
    yard.ways.statuses["direct"] = "UNKNOWN"
    worker.health = {"status": "STARTING"}
    number = yard.queue()
    yard.dispatching.round()
    assert (worker.asked, yard.get(number).attempts) == ([], 0)
    assert yard.store.read(lambda tx: agents.standing(tx, MODEL))["status"] == "STARTING"
    worker.health = None
    yard.clock.advance(1)
    yard.dispatching.round()
    assert yard.get(number).state == STARTING
    assert yard.store.read(lambda tx: agents.standing(tx, MODEL))["status"] == "READY"


def test_a_model_whose_worker_hangs_starves_no_other(yard):
    yard.ways.join(Worker(room=0), HUNGRY)
    yard.ways.join(Worker(room=50), OWN_MODEL, OTHER)
    hungry = [yard.queue(HUNGRY) for _ in range(20)]
    numbers = [yard.queue(OWN_MODEL) for _ in range(20)]
    yard.dispatching.round()
    assert Counter(states(yard, numbers + hungry)) == {STARTING: 20, QUEUED: 20}


def test_what_is_queued_keeps_the_version_and_the_input_that_were_checked(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue(version="1" * 64, input={"old": 1})
    yard.dispatching.round()
    assert yard.get(number).version == "1" * 64
    assert worker.running[yard.get(number).id]["input"] == {"old": 1}


# --- what a worker answers


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_a_refusal_fails_with_the_workers_reason(yard, status):
    worker = yard.ways.join(Worker())
    worker.answer = Reply(status, {"detail": "no such input"})
    number = yard.queue()
    yard.dispatching.round()
    found = yard.get(number)
    assert (found.state, found.error) == (FAILED, "The runner refused the prediction: no such input")


def test_an_end_by_the_node_is_logged_with_its_reason_and_without_the_workers_words(yard, caplog):
    worker = yard.ways.join(Worker())
    worker.answer = Reply(422, {"detail": "a cat is no dog"})
    with caplog.at_level(logging.INFO, "grid_node.runners.changes"):
        refused = yard.queue()
        yard.dispatching.round()
        yard.ways.leave()
        waiting = yard.queue()
        yard.pass_time(600)
    assert caplog.messages == [
        f"prediction {yard.get(refused).id} failed: The runner refused the prediction",
        f"prediction {yard.get(waiting).id} failed: No runner took the prediction within 600 s.",
    ]


def test_a_failure_of_a_worker_is_logged_without_its_words_and_a_success_is_not(yard, caplog):
    worker = yard.ways.join(Worker(room=2))
    failed, done = yard.queue(), yard.queue()
    ids = [yard.start(failed), yard.start(done)]
    with caplog.at_level(logging.INFO, "grid_node.runners.changes"):
        yard.change(failed, state=FAILED, error="a cat is no dog")
        yard.finish(worker, ids[1])
    assert caplog.messages == [f"prediction {ids[0]} failed: by its worker"]


def test_the_one_after_a_refused_one_is_sent_in_the_same_round(yard):
    worker = yard.ways.join(Worker())
    worker.answer = Reply(422, {"detail": "no"})
    numbers = [yard.queue(), yard.queue()]
    yard.dispatching.round()
    assert states(yard, numbers) == [FAILED, FAILED]


def test_a_worker_that_is_not_set_up_yet_gets_it_later(yard):
    worker = yard.ways.join(Worker())
    worker.answer = Reply(503, {"detail": "setup"})
    number = yard.queue()
    yard.dispatching.round()
    assert (yard.get(number).state, yard.get(number).attempts) == (QUEUED, 0)
    worker.answer = None
    yard.clock.advance(1)
    yard.dispatching.round()
    assert yard.get(number).state == STARTING


def test_a_fault_of_the_worker_is_tried_once_more_and_then_fails_with_its_words(yard):
    worker = yard.ways.join(Worker())
    worker.answer = Reply(500, {"detail": "boom"})
    number = yard.queue()
    yard.dispatching.round()
    assert yard.get(number).state == DISPATCHING
    yard.pass_time(QUIET)
    found = yard.get(number)
    assert (found.state, found.error) == (FAILED, "The runner failed to take the prediction: boom")
    assert len(worker.asked) == 2


def test_a_call_that_was_never_sent_is_no_send_and_is_tried_at_a_pace(yard):
    yard.ways.join(Worker())
    tries = Counter()

    def fault(method):
        tries[method] += 1
        return "not sent"

    yard.ways.fault = fault
    number = yard.queue()
    for _ in range(50):
        yard.dispatching.round()
        yard.clock.advance(0.1)
    assert 3 < tries["PUT"] < 8
    assert (yard.get(number).state, yard.get(number).attempts) == (QUEUED, 0)


def test_a_lost_answer_is_no_loss_when_the_worker_reports(yard):
    worker = yard.ways.join(Worker())
    yard.ways.fault = lambda _method: "answer lost"
    number = yard.queue()
    yard.dispatching.round()
    yard.report(yard.get(number).id, PROCESSING)
    yard.ways.fault = lambda _method: None
    yard.pass_time(30)
    assert yard.get(number).state == PROCESSING
    assert len(worker.asked) == 1


def test_a_report_that_overtakes_the_answer_stays(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    yard.ways.during = lambda: yard.report(next(iter(worker.running)), PROCESSING) if worker.running else None
    yard.dispatching.round()
    assert yard.get(number).state == PROCESSING


@pytest.mark.parametrize("overtaking", [False, True])
@pytest.mark.parametrize(
    ("limits", "members", "seconds"),
    [
        ({}, {"deadline": 4}, 4),
        ({"prediction_run_s": 5}, {}, 5),
        ({"runner_lost_s": 6}, {}, 6),
        ({}, {}, 450),
    ],
)
def test_what_a_worker_has_taken_is_looked_at_by_its_first_limit(store, limits, members, seconds, overtaking):
    """Not by the end of the claim, 20 s: whether its first report or its answer comes first."""
    yard = Yard(store, **limits)
    worker = yard.ways.join(Worker())
    start = yard.clock.now()
    number = yard.queue(**{name: start + after for name, after in members.items()})
    if overtaking:
        yard.ways.during = lambda: yard.report(next(iter(worker.running)), PROCESSING)
    yard.dispatching.round()
    assert yard.get(number).state == (PROCESSING if overtaking else STARTING)
    assert (yard.get(number).due_at, yard.get(number).claimed_until) == (start + seconds, None)


@pytest.mark.parametrize(("limits", "members"), [({}, {"deadline": 4}), ({"prediction_run_s": 4}, {})])
def test_a_send_that_hangs_is_looked_at_when_its_run_or_deadline_ends(store, limits, members):
    yard = Yard(store, **limits)
    yard.ways.join(Worker())
    start, due = yard.clock.now(), []
    number = yard.queue(**{name: start + after for name, after in members.items()})
    yard.ways.during = lambda: due.append(yard.get(number).due_at)
    yard.dispatching.round()
    assert due[0] == start + 4


@pytest.mark.parametrize(("deadline", "due"), [(1, 1), (60, QUIET)])
def test_what_got_no_answer_rests_no_longer_than_to_its_deadline(yard, deadline, due):
    yard.ways.join(Worker())
    yard.ways.fault = lambda _method: "request lost"
    start = yard.clock.now()
    number = yard.queue(deadline=start + deadline)
    yard.dispatching.round()
    assert (yard.get(number).state, yard.get(number).due_at) == (DISPATCHING, start + due)


@pytest.mark.parametrize("answer", [Reply(500, None), Reply(409, None), Reply(422, None)])
def test_whatever_is_answered_after_a_report_changes_nothing(yard, answer):
    worker = yard.ways.join(Worker())
    worker.answer = answer
    number = yard.queue()
    yard.ways.during = lambda: yard.report(yard.get(number).id, PROCESSING)
    yard.dispatching.round()
    assert yard.get(number).state == PROCESSING


def test_a_report_that_says_no_status_is_a_sign_of_life_too(yard):
    """Neither the answer nor the end of the claim leads to another send."""
    worker = yard.ways.join(Worker())
    worker.answer = Reply(409, None)
    number = yard.queue()
    yard.ways.during = lambda: yard.change(number, reported_at=yard.clock.now())
    yard.dispatching.round()
    assert yard.get(number).state == DISPATCHING
    for _ in range(10):
        yard.pass_time(10)
    assert yard.get(number).state == DISPATCHING
    assert len(worker.asked) == 1


def test_what_a_worker_has_reported_on_is_not_sent_from_the_queue(yard):
    worker = yard.ways.join(Worker())
    yard.queue(reported_at=yard.clock.now())
    yard.dispatching.round()
    assert worker.asked == []


def test_the_same_id_goes_to_the_same_runner_again_while_it_is_there(yard):
    first = yard.ways.join(Worker())
    yard.ways.fault = lambda method: "request lost" if method == "PUT" else None
    number = yard.queue()
    yard.dispatching.round()
    yard.ways.fault = lambda _method: None
    first.room = 0
    second = yard.ways.join(Worker(), instance=OTHER)
    for _ in range(10):
        yard.pass_time(QUIET)
    assert (yard.get(number).state, yard.get(number).attempts, second.asked) == (QUEUED, 1, [])
    first.room = 1
    yard.pass_time(LONGEST)
    assert (yard.get(number).state, yard.get(number).runner) == (STARTING, AGENT)


def test_another_runner_gets_it_when_the_first_has_gone(yard):
    yard.ways.join(Worker())
    yard.ways.fault = lambda _method: "request lost"
    number = yard.queue()
    yard.dispatching.round()
    yard.ways.leave()
    yard.ways.fault = lambda _method: None
    yard.ways.join(Worker(), instance=OTHER)
    yard.pass_time(QUIET)
    assert (yard.get(number).state, yard.get(number).runner) == (STARTING, OTHER)


def test_two_sends_without_an_answer_are_all_there_are(yard):
    worker = yard.ways.join(Worker())
    yard.ways.fault = lambda method: "request lost" if method == "PUT" else None
    number = yard.queue()
    for _ in range(20):
        yard.dispatching.round()
        yard.pass_time(1)
    found = yard.get(number)
    assert (found.state, found.error, found.attempts) == (FAILED, NO_ANSWER, 2)
    assert worker.runs == {}
    assert yard.ends(number) == 1


def test_a_worker_that_gave_no_answer_is_asked_how_it_is_before_the_next_one(yard):
    yard.ways.join(Worker())
    yard.ways.fault = lambda _method: "request lost"
    numbers = [yard.queue() for _ in range(5)]
    for _ in range(40):
        yard.dispatching.round()
        yard.clock.advance(1)
    assert [yard.get(number).attempts for number in numbers] == [1, 0, 0, 0, 0]


def test_no_id_runs_twice_and_none_is_lost_when_every_tenth_answer_is_dropped(yard):
    """200 predictions, a worker that forgets each id once it has ended, and reports that come at once."""
    chance = random.Random(7)
    faults = Counter()

    def fault(method):
        if method != "PUT" or chance.random() >= 0.1:
            return None
        word = chance.choice(["answer lost", "request lost"])
        faults[word] += 1
        return word

    yard.ways.fault = fault
    worker = yard.ways.join(Worker(room=4))
    numbers = [yard.queue() for _ in range(200)]
    for _ in range(2000):
        yard.look()
        for id in list(worker.running):
            yard.report(id, PROCESSING)
            if chance.random() < 0.4:
                yard.finish(worker, id)
        yard.clock.advance(0.25)
        if not worker.running and yard.open() == 0:
            break
    found = [yard.get(number) for number in numbers]
    assert faults["answer lost"] > 3
    assert faults["request lost"] > 3
    assert max(worker.runs.values()) == 1
    assert [yard.ends(number) for number in numbers] == [1] * 200
    failed = [one for one in found if one.state != SUCCEEDED]
    assert len(failed) <= 3
    assert all(one.error == NO_ANSWER and worker.runs[one.id] == 0 for one in failed)


# --- cancels and limits


def test_a_cancel_is_told_to_the_runner_that_has_it_and_the_worker_says_when(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    id = yard.start(number)
    now = yard.clock.now()
    yard.change(number, cancel_at=now, due_at=now)
    yard.look()
    assert worker.cancelled == [id]
    assert yard.get(number).state == PROCESSING
    yard.pass_time(5)
    assert worker.cancelled == [id]  # it has understood
    yard.finish(worker, id, CANCELED)
    assert yard.get(number).state == CANCELED


def test_a_cancel_that_nobody_confirms_ends_the_prediction_after_the_grace(yard):
    yard.ways.join(Worker())
    number = yard.queue()
    yard.start(number)
    yard.ways.leave()
    now = yard.clock.now()
    yard.change(number, cancel_at=now, due_at=now)
    for _ in range(14):
        yard.pass_time(1)
    assert yard.get(number).state == PROCESSING
    yard.pass_time(1)
    assert (yard.get(number).state, yard.get(number).error) == (CANCELED, None)


def test_a_success_that_was_faster_than_the_cancel_stays(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    id = yard.start(number)
    now = yard.clock.now()
    yard.change(number, cancel_at=now, due_at=now)
    yard.finish(worker, id)
    yard.pass_time(60)
    assert yard.get(number).state == SUCCEEDED
    assert worker.cancelled == []


def test_a_cancel_while_it_is_being_sent_reaches_a_worker_that_took_it(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    cancel = {"cancel_at": yard.clock.now(), "due_at": yard.clock.now()}
    yard.ways.during = lambda: yard.change(number, **cancel) if not worker.cancelled else None
    yard.dispatching.round()
    yard.ways.during = lambda: None
    yard.look()
    assert worker.cancelled == [yard.get(number).id]


def test_a_cancel_while_it_is_being_sent_ends_one_that_was_not_taken(yard):
    yard.ways.join(Worker(room=0))
    number = yard.queue()
    cancel = {"cancel_at": yard.clock.now(), "due_at": yard.clock.now()}
    yard.ways.during = lambda: yard.change(number, **cancel)
    yard.dispatching.round()
    assert yard.get(number).state == CANCELED


def test_cancel_after_is_a_cancel(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue(deadline=yard.clock.now() + 30)
    yard.start(number)
    yard.pass_time(29)
    assert worker.cancelled == []
    yard.pass_time(1)
    assert len(worker.cancelled) == 1
    for _ in range(15):
        yard.pass_time(1)
    assert (yard.get(number).state, yard.get(number).error) == (CANCELED, None)


def test_a_run_beyond_its_limit_fails_and_the_worker_is_told(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    id = yard.start(number)
    for _ in range(5):
        yard.pass_time(300)
        yard.report(id, PROCESSING)
    yard.pass_time(299)
    assert yard.get(number).state == PROCESSING
    yard.pass_time(1)
    found = yard.get(number)
    assert (found.state, found.error) == (FAILED, "The prediction ran longer than 1800 s.")
    assert worker.cancelled == [id]


# --- the lost


def test_a_ready_worker_that_stopped_reporting_has_lost_it(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    yard.start(number)
    worker.running.clear()
    yard.pass_time(449)
    assert yard.get(number).state == PROCESSING
    yard.pass_time(1)
    found = yard.get(number)
    assert (found.state, found.error) == (FAILED, STOPPED)
    assert worker.asked == [("PUT", found.id)]  # asked how it is, never with the id


def test_a_late_success_changes_nothing(yard):
    worker = yard.ways.join(Worker())
    number = yard.queue()
    id = yard.start(number)
    worker.running.clear()
    yard.pass_time(450)
    yard.report(id, SUCCEEDED)
    assert yard.get(number).state == FAILED
    assert yard.ends(number) == 1


def test_a_worker_that_has_gone_has_lost_it_after_the_same_time(yard):
    yard.ways.join(Worker())
    number = yard.queue()
    yard.start(number)
    yard.ways.leave()
    yard.pass_time(449)
    assert yard.get(number).state == PROCESSING
    yard.pass_time(1)
    assert yard.get(number).error == STOPPED


def test_a_busy_worker_may_be_silent_for_long(yard):
    yard.ways.join(Worker())
    number = yard.queue()
    yard.start(number)
    for _ in range(10):
        yard.pass_time(100)
    assert yard.get(number).state == PROCESSING


def test_a_worker_that_is_busy_with_a_later_one_has_lost_the_earlier(yard):
    worker = yard.ways.join(Worker())
    first = yard.queue()
    yard.start(first)
    worker.running.clear()  # killed and started again
    yard.pass_time(10)
    second = yard.queue()
    yard.start(second)
    yard.pass_time(440)
    assert yard.get(first).error == STOPPED
    assert yard.get(second).state == PROCESSING


# --- restarts and other processes


def test_a_node_that_dies_in_the_middle_of_a_send_sends_it_again(yard):
    worker = yard.ways.join(Worker(room=0))

    class Death(BaseException):
        pass

    def die():
        raise Death

    number = yard.queue()
    yard.ways.during = die
    with pytest.raises(Death):
        yard.dispatching.round()
    assert (yard.get(number).state, yard.get(number).attempts) == (DISPATCHING, 1)
    yard.ways.during = lambda: None
    worker.room = 1
    again = yard.restarted()
    again.look()
    assert yard.get(number).state == DISPATCHING
    again.pass_time(20)
    assert (yard.get(number).state, yard.get(number).attempts) == (STARTING, 2)


def test_twenty_queued_and_one_running_all_end_once_over_a_restart(yard):
    worker = yard.ways.join(Worker())
    numbers = [yard.queue() for _ in range(21)]
    yard.start(numbers[0])
    again = yard.restarted()
    for _ in range(100):
        again.look()
        for id in list(worker.running):
            again.finish(worker, id)
        again.clock.advance(0.3)
    assert states(again, numbers) == [SUCCEEDED] * 21
    assert [again.ends(number) for number in numbers] == [1] * 21
    assert set(worker.runs.values()) == {1}


def test_two_processes_never_take_the_same_prediction(yard):
    other = Yard(yard.store, yard.clock)
    here, there = yard.ways.join(Worker(room=9)), other.ways.join(Worker(room=9), instance=OTHER)
    numbers = [yard.queue() for _ in range(10)]
    yard.dispatching.round()
    other.dispatching.round()
    assert sum((here.runs + there.runs).values()) == 10
    assert states(yard, numbers) == [STARTING] * 10


def test_what_a_runner_may_have_already_waits_for_it_at_whichever_process_it_is(yard):
    yard.ways.join(Worker())
    yard.ways.fault = lambda _method: "answer lost"
    number = yard.queue()
    yard.dispatching.round()
    yard.ways.leave()
    yard.ways.fault = lambda _method: None
    agent = Agent(MODEL, AGENT, "node-2", "")
    yard.store.write(lambda tx: agents.probed(tx, agent, health("BUSY"), yard.clock.now()))
    other = yard.ways.join(Worker(), instance=OTHER)
    for _ in range(5):
        yard.pass_time(QUIET)
    assert (yard.get(number).state, other.runs) == (QUEUED, {})
    yard.store.write(lambda tx: agents.gone(tx, agent, yard.clock.now()))
    yard.pass_time(QUIET)
    assert (yard.get(number).state, yard.get(number).runner) == (STARTING, OTHER)


def test_a_cancel_is_left_to_the_process_that_reaches_the_runner(yard):
    other = Yard(yard.store, yard.clock)
    worker = other.ways.join(Worker())
    agent = Agent(MODEL, AGENT, "node-2", "")
    number = other.queue()
    other.start(number)
    yard.store.write(lambda tx: agents.probed(tx, agent, health("BUSY"), yard.clock.now()))
    now = yard.clock.now()
    yard.change(number, cancel_at=now, due_at=now)
    yard.look()
    other.look()
    assert len(worker.cancelled) == 1


def test_a_cancel_ends_in_time_though_the_process_that_reached_the_runner_died(yard):
    other = Yard(yard.store, yard.clock)
    other.ways.join(Worker())
    number = other.queue()
    other.start(number)
    agent = Agent(MODEL, AGENT, "node-2", "")
    yard.store.write(lambda tx: agents.probed(tx, agent, health("BUSY"), yard.clock.now()))
    now = yard.clock.now()
    yard.change(number, cancel_at=now, due_at=now)
    for _ in range(19):
        yard.pass_time(1)
    assert yard.get(number).state == CANCELED


def health(status):
    return health_of({"status": status})


def test_the_longest_run_ends_though_the_process_that_reached_the_runner_died(yard):
    other = Yard(yard.store, yard.clock)
    other.ways.join(Worker())
    number = other.queue()
    id = other.start(number)
    agent = Agent(MODEL, AGENT, "node-2", "")
    yard.store.write(lambda tx: agents.probed(tx, agent, health("BUSY"), yard.clock.now()))
    for seconds in (*[200] * 8, 199, 1):
        yard.clock.advance(seconds)
        yard.report(id, PROCESSING)
        yard.look()
    assert yard.get(number).state == PROCESSING  # the other process could still tell the worker
    for _ in range(4):
        yard.pass_time(1)
    assert yard.get(number).error == "The prediction ran longer than 1800 s."
