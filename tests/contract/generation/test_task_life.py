"""How a task lives and ends, on every store, with a clock that is set."""

import pytest

from grid_node.errors import AlreadySubmitted, LeaseClosed, SeqAhead, TaskNotFound
from tests.grids import KEY


def test_a_task_goes_from_queued_to_best_results_with_a_gapless_stream(grid):
    task = grid.ask(copies=2, send_first_results=True)
    first, second = grid.lease("w1"), grid.lease("w2")
    grid.hand_in("w1", first, "0.7")
    grid.hand_in("w2", second, "0.9")
    updates = grid.updates(task)
    assert [update["status"] for update in updates] == ["queued", "started", "first_results", "best_results"]
    assert [update["seq"] for update in updates] == [1, 2, 3, 4]
    assert updates[2]["results"]["score"] == 0.7
    assert updates[3]["results"]["hotkey"] == "w2"
    assert [miner["state"] for miner in updates[3]["statistics"]["miners"]] == ["accepted", "accepted"]


def test_without_send_first_results_there_is_no_such_update(grid):
    task = grid.ask(copies=1)
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    assert grid.statuses(task) == ["queued", "started", "best_results"]


def test_the_best_is_the_highest_score_and_among_equals_the_earlier_one(grid):
    task = grid.ask(copies=3, send_first_results=True)
    leases = {worker: grid.lease(worker) for worker in ("w1", "w2", "w3")}
    for worker, result in (("w1", "0.7"), ("w2", "0.9"), ("w3", "0.90")):
        grid.clock.advance(1)
        grid.hand_in(worker, leases[worker], result)
    first, best = grid.updates(task)[2:]
    assert first["results"]["score"] == 0.7
    assert best["results"]["hotkey"] == "w2"
    assert grid.task(task)["best"] == 1


def test_the_task_ends_when_all_slots_are_used_and_nothing_is_pending(grid):
    task = grid.ask(copies=2)
    one, two = grid.lease("w1"), grid.lease("w2")
    grid.hand_in("w1", one, "0.8")
    assert grid.task(task)["status"] == "started"
    grid.hand_in("w2", two, "0.1")
    assert grid.task(task)["status"] == "best_results"


def test_it_ends_after_the_settle_time_when_nobody_else_can_contribute(grid):
    task = grid.ask(copies=4)
    one, two = grid.lease("w1"), grid.lease("w2")
    grid.hand_in("w1", one, "0.8")
    grid.hand_in("w2", two, "0.9")
    grid.pass_time(4)
    assert grid.task(task)["status"] == "started"
    grid.pass_time(1.5)
    assert grid.task(task)["status"] == "best_results"


def test_with_a_worker_still_busy_the_window_is_waited_for(grid):
    task = grid.ask(copies=4)
    leases = {worker: grid.lease(worker) for worker in ("w1", "w2", "w3")}
    grid.hand_in("w1", leases["w1"], "0.8")
    grid.hand_in("w2", leases["w2"], "0.9")
    grid.pass_time(29)
    assert grid.task(task)["status"] == "started"
    grid.pass_time(1.5)
    assert grid.task(task)["status"] == "best_results"


def test_a_vanished_worker_does_not_cost_the_window_when_its_lease_ended_before(grid):
    task = grid.ask(copies=2)
    grid.lease("gone")
    grid.pass_time(45)
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "0.8")
    grid.pass_time(16)  # the lease of the other ran out, nobody else is here
    grid.pass_time(6)
    assert grid.task(task)["status"] == "best_results"


def test_a_present_worker_that_could_take_a_copy_keeps_the_task_open_until_the_window_ends(grid):
    task = grid.ask(copies=2)
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "0.8")
    grid.pass_time(3)
    assert grid.pull("busy", kinds=("slow",))["task"] is None
    grid.pass_time(4)
    assert grid.task(task)["status"] == "best_results"  # that one does not do this kind


def test_a_result_submitted_inside_the_window_counts_though_it_is_scored_after_it(grid):
    task = grid.ask(copies=4, kind="slow")
    one, two = grid.lease("w1"), grid.lease("w2")
    grid.lease("w3")
    grid.hand_in("w1", one, "a")
    grid.judge(one, 0.7)
    grid.pass_time(29)
    grid.hand_in("w2", two, "b")
    grid.pass_time(4)
    assert grid.task(task)["status"] == "started"
    grid.judge(two, 0.9)
    assert grid.task(task)["status"] == "best_results"
    assert grid.updates(task)[-1]["results"]["hotkey"] == "w2"


def test_scoring_that_never_comes_does_not_hold_the_task_beyond_the_grace(grid):
    task = grid.ask(copies=2, kind="slow")
    one, two = grid.lease("w1"), grid.lease("w2")
    grid.hand_in("w1", one, "a")
    grid.judge(one, 0.7)
    grid.hand_in("w2", two, "b")
    grid.pass_time(44)
    assert grid.task(task)["status"] == "started"
    grid.pass_time(2)
    assert grid.task(task)["status"] == "best_results"


def test_failed_copies_are_replaced_until_the_attempts_are_used_up(grid):
    task = grid.ask(copies=4)
    handed_out = 0
    for number in range(20):
        answer = grid.pull(f"w{number}")
        if answer["task"] is None:
            break
        handed_out += 1
        grid.hand_in(f"w{number}", answer["task"], "0.1")
    assert handed_out == 9
    final = grid.updates(task)[-1]
    assert final["status"] == "failed"
    assert final["error"] == {
        "code": "all_workers_failed",
        "error": "Generation failed",
        "submitted": 9,
        "rejected": 9,
        "expired": 0,
        "skipped": 0,
    }


def test_one_copy_whose_only_good_result_comes_last_is_delivered(grid):
    task = grid.ask(copies=1)
    grid.hand_in("w1", grid.lease("w1"), "0.1")
    grid.hand_in("w2", grid.lease("w2"), "0.2")
    grid.hand_in("w3", grid.lease("w3"), "0.8")
    assert grid.statuses(task)[-1] == "best_results"


def test_a_task_that_nobody_takes_fails_at_its_deadline(grid):
    task = grid.ask(deadline_s=60)
    grid.pass_time(59)
    assert grid.task(task)["status"] == "queued"
    grid.pass_time(1)
    assert grid.updates(task)[-1]["error"] == {
        "code": "no_worker",
        "error": "No worker took the task before its deadline",
    }


def test_a_task_whose_worker_vanishes_goes_to_the_next_one(grid):
    task = grid.ask(copies=1)
    grid.lease("gone")
    assert grid.pull("next")["task"] is None
    grid.pass_time(61)
    grid.hand_in("next", grid.lease("next"), "0.8")
    assert grid.task(task)["status"] == "best_results"
    assert grid.statuses(task) == ["queued", "started", "best_results"]


def test_every_task_ends_at_its_deadline(grid):
    task = grid.ask(copies=1, deadline_s=100)
    grid.lease("w1")
    grid.pass_time(99)
    assert grid.task(task)["status"] == "started"
    grid.pass_time(2)
    assert grid.updates(task)[-1]["error"]["code"] == "deadline_exceeded"


def test_scoring_that_is_unavailable_costs_the_worker_nothing_and_is_named(grid):
    task = grid.ask(copies=1, kind="slow")
    for worker in ("w1", "w2", "w3"):
        lease = grid.lease(worker)
        grid.hand_in(worker, lease, worker)
        now = grid.clock.now()
        grid.store.write(lambda tx, lease=lease, now=now: grid.verdicts.unavailable(tx, lease["lease_id"], now))
        assert grid.pull(worker)["cooldown"] is None
    assert grid.updates(task)[-1]["error"] == {"code": "scoring_unavailable", "error": "Scoring is not available"}


def test_the_first_verdict_is_final(grid):
    task = grid.ask(copies=1, kind="slow")
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "a")
    assert grid.judge(lease, 0.9)["verdict"] == "accepted"
    assert grid.judge(lease, 0.1) is None
    assert grid.task(task)["results"][0]["score"] == 0.9


def test_cancelling_tells_the_worker_and_neither_credits_nor_punishes_it(grid):
    task = grid.ask(copies=1)
    lease = grid.lease("w1")
    assert grid.tasks.cancel(KEY, task)["status"] == "cancelled"
    with pytest.raises(LeaseClosed):
        grid.leases.renew("w1", lease["lease_id"])
    verdict = grid.hand_in("w1", lease, "0.9")
    assert (verdict["verdict"], verdict["credited"], verdict["cooldown"]) == ("late", False, None)
    notices = [entry.body for entry in grid.streams.after("notices:w1", 0)]
    assert notices == [{"task_id": task, "lease_id": lease["lease_id"], "reason": "task_cancelled"}]


def test_a_terminal_task_is_returned_unchanged_by_cancel(grid):
    task = grid.ask(copies=1)
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    assert grid.tasks.cancel(KEY, task)["status"] == "best_results"


def test_another_keys_task_an_unknown_and_a_malformed_id_are_the_same_404(grid):
    task = grid.ask()
    for key, task_id in ((KEY, "0" * 36), (KEY, "x"), ("gkother1", task)):
        with pytest.raises(TaskNotFound):
            grid.tasks.status(key, task_id)


def test_asking_beyond_the_last_update_is_refused(grid):
    task = grid.ask()
    with pytest.raises(SeqAhead) as refused:
        grid.tasks.resume(KEY, task, 2)
    assert refused.value.data == {"last_seq": 1}


def test_a_restart_extends_leases_by_the_time_the_node_was_down(make_grid):
    before = make_grid()
    task = before.ask(copies=1)
    lease = before.lease("w1")
    before.clock.advance(300)
    after = make_grid(clock=before.clock)
    after.tending.tend()
    assert after.hand_in("w1", lease, "0.9")["verdict"] == "accepted"
    assert after.task(task)["status"] == "best_results"


def test_two_workers_results_in_any_order_give_one_terminal_update(grid):
    task = grid.ask(copies=2, kind="slow")
    one, two = grid.lease("w1"), grid.lease("w2")
    grid.hand_in("w1", one, "a")
    grid.hand_in("w2", two, "b")
    grid.judge(two, 0.8)
    grid.judge(one, 0.7)
    assert grid.statuses(task).count("best_results") == 1


def test_other_bytes_for_the_same_lease_are_refused_and_the_first_stay(grid):
    task = grid.ask(copies=2)
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "0.9")
    again = grid.hand_in("w1", lease, "0.9")
    assert again["state"] == "accepted"
    with pytest.raises(AlreadySubmitted):
        grid.hand_in("w1", lease, "0.1")
    assert [result["score"] for result in grid.task(task)["results"]] == [0.9]


def test_a_task_whose_client_was_lost_is_cancelled_after_the_grace_even_by_a_later_node(make_grid):
    before = make_grid()
    task = before.ask(copies=1)
    before.tasks.abandon(KEY, task)
    after = make_grid(clock=before.clock)
    after.clock.advance(59)
    assert after.tasks.cancel_abandoned() == 0
    after.clock.advance(2)
    assert after.tasks.cancel_abandoned() == 1
    assert after.updates(task)[-1]["error"]["code"] == "client_gone"


@pytest.mark.parametrize("read", ["status", "resume"])
def test_whoever_asks_for_an_abandoned_task_has_come_back(grid, read):
    task = grid.ask(copies=1)
    grid.tasks.abandon(KEY, task)
    grid.clock.advance(50)
    getattr(grid.tasks, read)(KEY, task, 0)
    grid.clock.advance(50)
    assert grid.tasks.cancel_abandoned() == 0
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    assert grid.statuses(task)[-1] == "best_results"
