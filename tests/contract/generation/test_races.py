"""What happens at the same moment, in one process or in several: nothing is lost, granted or judged twice.

On PostgreSQL no transaction may even be undone for a deadlock: finding one takes the server a second.
"""

import threading
from collections import Counter

import pytest
from sqlalchemy import event, select, text

from grid_node.adapters.generation import KeyGate
from grid_node.clock import ManualClock
from grid_node.errors import AlreadySubmitted, GridError
from grid_node.generation.holds import COPY_ROW
from grid_node.generation.tables import Heartbeat
from grid_node.identity.limits import DatabaseLimiter
from grid_node.identity.service import KeyService, NewKey
from grid_node.jobs.scoring import ScoringJobs
from grid_node.settings import Settings
from tests.grids import KEY

THREADS = 8


@pytest.fixture
def deadlocks(store):
    """States of transactions that PostgreSQL undid for a deadlock."""
    states = []

    def note(context):
        state = getattr(context.original_exception, "sqlstate", None)
        if state == "40P01":
            states.append(context.statement)

    event.listen(store.engine, "handle_error", note)
    return states


def at_once(*actions):
    """Every action in a thread of its own, begun together; their results and errors in order."""
    begin = threading.Barrier(len(actions))
    outcomes = [None] * len(actions)

    def run(number, action):
        begin.wait()
        try:
            outcomes[number] = action()
        except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def copy_of(grid, lease):
    return grid.store.read(lambda tx: tx.execute(COPY_ROW, {"lease": lease["lease_id"]}).one())


def test_the_same_idempotency_key_sent_in_parallel_makes_one_task(grid):
    outcomes = at_once(*[lambda: grid.ask(idempotency_key="once")] * THREADS)
    assert len(set(outcomes)) == 1, outcomes
    assert len(grid.tasks.page(KEY, None, 50, None)["tasks"]) == 1


def test_unfinished_tasks_of_a_key_never_exceed_its_limit(store, make_grid):
    clock = ManualClock()
    keys = KeyService(store, clock, Settings())
    key = keys.add(NewKey(keys.generate(), "three", 1000, 60, ["client"], 3))
    grids = [make_grid(clock=clock, gate=KeyGate(keys, DatabaseLimiter())) for _ in range(2)]
    outcomes = at_once(*[lambda grid=grid: grid.ask(key=key.id) for grid in grids for _ in range(THREADS)])
    refused = Counter(error.code for error in outcomes if isinstance(error, GridError))
    assert refused == {"too_many_active_tasks": 2 * THREADS - 3}
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 3


def test_a_result_handed_in_while_its_worker_is_sent_away_is_not_lost(grid):
    for number in range(8):
        grid.ask(f"{number}", kind="slow", copies=1)
        lease = grid.lease(f"w{number}")
        sent, _ = at_once(
            lambda number=number, lease=lease: grid.hand_in(f"w{number}", lease, "0.9"),
            lambda number=number: grid.leases.revoke(f"w{number}"),
        )
        assert sent["state"] == "scoring"
        assert copy_of(grid, lease).state == "scoring"


def test_a_lease_renewed_while_it_expires_is_either_alive_or_expired(grid):
    for number in range(8):
        task = grid.ask(f"{number}", copies=1)
        lease = grid.lease(f"w{number}")
        grid.clock.advance(59.999)
        renewed, _ = at_once(
            lambda number=number, lease=lease: grid.leases.renew(f"w{number}", lease["lease_id"]),
            lambda: (grid.clock.advance(0.002), grid.tending.tend()),
        )
        alive = copy_of(grid, lease).state == "leased"
        assert alive == (not isinstance(renewed, GridError))
        grid.tasks.cancel(KEY, task)


def test_two_verdicts_at_the_same_time_are_one(grid):
    task = grid.ask(kind="slow", copies=1)
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "anything")
    verdicts = at_once(lambda: grid.judge(lease, 0.9), lambda: grid.judge(lease, 0.1))
    assert sum(verdict is not None for verdict in verdicts) == 1, verdicts
    assert len(grid.streams.after("worker:w1", 0)) == 1
    updates = grid.statuses(task)
    assert len([status for status in updates if status in ("best_results", "failed")]) <= 1


def test_a_job_that_was_taken_over_is_not_given_up_by_the_process_that_lost_it(grid):
    jobs = ScoringJobs(grid.store, grid.clock, grid.settings, grid.verdicts)
    grid.ask(kind="slow", copies=1)
    lease = grid.lease("w1")["lease_id"]
    grid.hand_in("w1", {"lease_id": lease, "task_id": None}, "anything")
    assert jobs.claim(lease, "slow process") is not None
    grid.clock.advance(grid.settings.scoring_timeout + 11)
    assert jobs.claim(lease, "other process") is not None
    jobs.fail(lease, grid.settings.scoring_attempts, "slow process")
    copy = copy_of(grid, {"lease_id": lease})
    assert (copy.state, copy.job_owner) == ("scoring", "other process")


def test_nodes_that_start_together_extend_leases_once(make_grid):
    grid = make_grid()
    grid.ask(copies=1)
    lease = grid.lease("w1")
    before = copy_of(grid, lease).lease_expires_at
    grid.clock.advance(30)
    downs = at_once(*[grid.tending.recover] * 4)
    assert sorted(downs) == [0, 0, 0, 30]
    assert copy_of(grid, lease).lease_expires_at == before + 30


def test_nodes_that_start_together_on_an_empty_database_all_start(grid):
    grid.store.write(lambda tx: tx.execute(text("DELETE FROM heartbeats")))
    assert at_once(*[grid.tending.recover] * 4) == [0, 0, 0, 0]
    assert len(grid.store.read(lambda tx: tx.execute(select(Heartbeat.__table__)).all())) == 1


def test_tasks_that_share_workers_end_at_the_same_time_without_waiting_in_a_circle(grid, deadlocks):
    workers = [f"w{number}" for number in range(4)]
    tasks = [grid.ask(f"{number}", copies=4) for number in range(6)]
    leases = {(lease["task_id"], worker): lease for worker in workers for lease in all_leases(grid, worker, 6)}
    order = [workers, workers[::-1], workers[2:] + workers[:2]] * 2

    def finish(task, turn):
        for worker in turn[:2]:
            grid.hand_in(worker, leases[task, worker], "0.9")
        grid.tasks.cancel(KEY, task)

    faults = at_once(
        *[lambda task=task, turn=turn: finish(task, turn) for task, turn in zip(tasks, order, strict=True)]
    )
    assert faults == [None] * 6
    assert deadlocks == []
    assert all(grid.task(task)["status"] == "cancelled" for task in tasks)
    for worker in workers:
        for stream in ("worker", "notices"):
            seqs = [entry.seq for entry in grid.streams.after(f"{stream}:{worker}", 0)]
            assert seqs == list(range(1, len(seqs) + 1))


def all_leases(grid, worker, count):
    return [grid.lease(worker) for _ in range(count)]


def test_two_nodes_dispatch_judge_tend_and_cancel_at_once(make_grid, store, deadlocks):
    one = make_grid()
    grids = [one, make_grid(clock=one.clock)]
    tasks = [one.ask(f"{number}", key=f"gkkey{number % 3}", copies=2) for number in range(24)]

    def work(grid, name):
        for _ in range(24):
            lease = grid.pull(name)["task"]
            if lease is not None:
                grid.hand_in(name, lease, "0.9")

    def tend(grid):
        for _ in range(20):
            grid.tending.tend()

    def cancel(grid):
        for number in range(0, 24, 8):
            grid.tasks.cancel(f"gkkey{number % 3}", tasks[number])

    actions = [lambda grid=grid, name=name: work(grid, name) for grid, name in zip(grids * 3, "abcdef", strict=True)]
    actions += [lambda grid=grid: tend(grid) for grid in grids] + [lambda: cancel(grids[1])]
    assert [outcome for outcome in at_once(*actions) if outcome is not None] == []
    assert deadlocks == []
    for number, task in enumerate(tasks):
        seen = one.task(task, f"gkkey{number % 3}")
        copies = Counter(miner["hotkey"] for miner in (seen["statistics"] or {"miners": []})["miners"])
        assert max(copies.values(), default=0) <= 1
        assert sum(copies.values()) <= 3
        assert seen["status"] in ("best_results", "cancelled")
        ends = [status for status in one.statuses(task) if status in ("best_results", "cancelled", "failed")]
        assert len(ends) == 1


def test_what_two_processes_see_of_a_race_is_told_as_what_it_is(grid):
    """Not the driver's error: other bytes for a lease that was just used up."""
    grid.ask(copies=1, kind="slow")
    lease = grid.lease("w1")
    outcomes = at_once(lambda: grid.hand_in("w1", lease, "one"), lambda: grid.hand_in("w1", lease, "two"))
    assert sorted(isinstance(outcome, AlreadySubmitted) for outcome in outcomes) == [False, True], outcomes


def test_a_worker_that_waits_at_two_nodes_gets_what_its_hands_hold(make_grid):
    one = make_grid()
    grids = [one, make_grid(clock=one.clock)]
    pulls = [grid.wait_for_work("w1", max_parallel=1) for grid in grids]
    assert [grid.dispatcher.round() for grid in grids] == [0, 0]
    tasks = {one.ask("first", copies=1), one.ask("second", copies=1)}
    for grid in grids:
        grid.dispatcher.round()
    leases = [pull.answer["task"] for pull in pulls]
    assert leases[0]["task_id"] in tasks
    assert leases[1] == leases[0]  # delivered again: perhaps nobody listens at the first node any more
