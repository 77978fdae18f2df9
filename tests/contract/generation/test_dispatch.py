"""Who gets what, and when: turns of keys, strong workers, pulls, cooldowns."""

import threading

import pytest

from grid_node.errors import (
    BadSignature,
    InvalidPayload,
    LeaseClosed,
    LeaseNotFound,
    QueueFull,
    Sha256Mismatch,
    TooManyPulls,
)
from tests.grids import KEY


def make_strong(grid, worker):
    """Give a worker a history of good results."""
    grid.ask(copies=1)
    grid.hand_in(worker, grid.lease(worker), "0.95")


def test_a_task_goes_to_four_weak_workers_and_one_strong_one(grid):
    for worker in ("s1", "s2"):
        make_strong(grid, worker)
    task = grid.ask(copies=4)
    weak = [grid.pull(f"w{number}")["task"] for number in range(5)]
    strong = [grid.pull(worker, strong=None)["task"] for worker in ("s1", "s2")]
    assert [lease is not None for lease in weak] == [True, True, True, True, False]
    assert [lease is not None for lease in strong] == [True, False]
    assert len(grid.task(task)["statistics"]["miners"]) == 5


def test_a_strong_worker_among_the_first_copies_leaves_no_extra_slot(grid):
    make_strong(grid, "s1")
    make_strong(grid, "s2")
    grid.ask(copies=2)
    assert grid.pull("s1", strong=None)["task"]
    assert grid.pull("w1")["task"]
    assert grid.pull("s2", strong=None)["task"] is None


def test_done_does_not_wait_for_a_strong_worker_that_is_not_there(grid):
    task = grid.ask(copies=1)
    grid.hand_in("w1", grid.lease("w1"), "0.7")
    assert grid.task(task)["status"] == "best_results"


def test_a_worker_never_gets_the_same_task_twice(grid):
    grid.ask(copies=2)
    grid.hand_in("w1", grid.lease("w1"), "0.1")
    grid.pass_time(61)
    assert grid.pull("w1")["task"] is None


def test_keys_are_served_in_turn(grid):
    for number in range(30):
        grid.ask(f"a{number}", key="gkkeyaaa", copies=1)
    other = grid.ask("b", key="gkkeybbb", copies=1)
    first_two = [grid.lease(f"w{number}")["task_id"] for number in range(2)]
    assert other in first_two


def test_within_a_key_a_task_is_filled_before_the_next_one(grid):
    first, second = grid.ask("one", copies=2), grid.ask("two", copies=2)
    given = [grid.lease(f"w{number}")["task_id"] for number in range(4)]
    assert given == [first, first, second, second]


def test_position_counts_the_turns_of_other_keys(grid):
    for number in range(3):
        grid.ask(f"a{number}", key="gkkeyaaa")
    task = grid.ask("b", key="gkkeybbb")
    assert grid.task(task, "gkkeybbb")["position"] == 1
    second = grid.ask("b2", key="gkkeybbb")
    assert grid.task(second, "gkkeybbb")["position"] == 3


def test_the_queue_has_an_end(make_grid):
    grid = make_grid(public_api_queue_max=3)
    for _ in range(3):
        grid.ask()
    with pytest.raises(QueueFull):
        grid.ask()
    grid.lease("w1")
    grid.ask()


def test_a_lost_answer_loses_no_lease(grid):
    grid.ask(copies=1)
    lease = grid.lease("w1")
    assert grid.pull("w1", holding=frozenset())["task"] == lease
    assert grid.pull("w1", holding=frozenset({lease["lease_id"]}))["task"] is None


def test_a_newer_pull_ends_the_older_one(grid):
    older = grid.wait_for_work("w1")
    newer = grid.wait_for_work("w1")
    assert older.answer == {"success": True, "task": None, "retry_after": 0, "cooldown": None, "superseded": True}
    grid.ask(copies=1)
    grid.dispatcher.round()
    assert newer.answer["task"] is not None


def test_the_longest_idle_worker_is_served_first(grid):
    pulls = {}
    for worker in ("late", "early"):
        pulls[worker] = grid.wait_for_work(worker)
        grid.clock.advance(1)
    pulls["late"].idle_since += 10
    grid.ask(copies=1)
    grid.dispatcher.round()
    assert pulls["early"].answer["task"] is not None
    assert pulls["late"].answer is None


def test_one_task_meets_a_thousand_waiting_pulls_in_one_round(grid):
    pulls = [grid.wait_for_work(f"w{number}") for number in range(1000)]
    assert grid.dispatcher.round() == 0
    grid.ask(copies=1)
    assert grid.dispatcher.round() == 1
    assert sum(pull.answer is not None for pull in pulls) == 1


def test_a_worker_that_left_while_waiting_gets_no_lease(grid):
    pull = grid.wait_for_work("w1")
    grid.dispatcher.withdraw(pull)
    task = grid.ask(copies=1)
    assert grid.dispatcher.round() == 0
    assert grid.task(task)["status"] == "queued"


def test_full_hands_get_no_more_work_and_hammering_is_refused(grid):
    grid.ask(copies=1)
    grid.ask(copies=1)
    grid.lease("w1", max_parallel=1)
    answer = grid.pull("w1", max_parallel=1)
    assert answer["task"] is None
    assert answer["retry_after"] == 60
    for _ in range(10):
        grid.pull("w1", max_parallel=1)
    with pytest.raises(TooManyPulls):
        grid.pull("w1", max_parallel=1)
    grid.clock.advance(61)
    grid.pull("w1", max_parallel=1)


@pytest.mark.parametrize(("result", "reason", "seconds"), [("0.5", "low_score", 60), ("rubbish", "invalid_asset", 120)])
def test_a_bad_result_brings_a_cooldown_with_its_reason(grid, result, reason, seconds):
    grid.ask(copies=1)
    verdict = grid.hand_in("w1", grid.lease("w1"), result)
    assert verdict["cooldown"]["reason"] == reason
    assert grid.pull("w1")["retry_after"] == seconds


def test_low_scores_in_a_row_double_the_cooldown(grid):
    waits = []
    for number in range(6):
        grid.ask(f"{number}", copies=1)
        grid.hand_in("w1", grid.lease("w1"), "0.5")
        waits.append(grid.pull("w1")["retry_after"])
        grid.clock.advance(601)
        for other in range(9):  # nobody else may find the old task
            grid.pull(f"o{other}")
    assert waits == [60, 120, 240, 480, 600, 600]


def test_skipping_is_free_three_times_in_a_row(grid):
    waits = []
    for number in range(4):
        grid.ask(f"{number}", copies=1)
        lease = grid.lease("w1")
        waits.append(grid.leases.skip("w1", lease["lease_id"])["cooldown"])
        grid.tasks.cancel(KEY, lease["task_id"])
    assert waits[:3] == [None, None, None]
    assert waits[3]["reason"] == "skip"


def test_an_expired_lease_brings_a_cooldown_and_a_success_none(grid):
    grid.ask(copies=1)
    grid.lease("slow")
    grid.pass_time(61)
    assert grid.pull("slow")["cooldown"]["reason"] == "lease_expired"
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    assert grid.pull("w1")["cooldown"] is None


def test_a_wrong_hash_or_signature_is_fraud(grid):
    for worker, wrong, error in (
        ("w1", {"sha256": "0" * 64}, Sha256Mismatch),
        ("w2", {"signature_valid": False}, BadSignature),
    ):
        grid.ask(copies=1)
        lease = grid.lease(worker)
        with pytest.raises(error):
            grid.hand_in(worker, lease, "0.9", **wrong)
        assert grid.pull(worker)["cooldown"]["reason"] == "fraud"
        assert grid.task(lease["task_id"])["results"] == []


def test_a_late_result_is_scored_while_the_task_is_open_but_not_credited(grid):
    task = grid.ask(copies=2)
    lease = grid.lease("w1")
    grid.pass_time(61)
    verdict = grid.hand_in("w1", lease, "0.9")
    assert (verdict["verdict"], verdict["credited"]) == ("accepted", False)
    assert grid.task(task)["results"][0]["hotkey"] == "w1"


def test_a_result_after_the_end_never_replaces_the_winner(grid):
    task = grid.ask(copies=1)
    stopped = grid.lease("stopped")
    grid.pass_time(61)
    grid.hand_in("w1", grid.lease("w1"), "0.7")
    assert grid.hand_in("stopped", stopped, "0.99")["verdict"] == "late"
    assert grid.updates(task)[-1]["results"]["hotkey"] == "w1"
    assert grid.task(task)["best"] == 0
    assert len(grid.task(task)["results"]) == 1


def test_a_lease_belongs_to_its_worker(grid):
    grid.ask(copies=1)
    lease = grid.lease("w1")
    for attempt in (
        lambda: grid.hand_in("w2", lease, "0.9"),
        lambda: grid.leases.renew("w2", lease["lease_id"]),
        lambda: grid.leases.skip("w2", lease["lease_id"]),
    ):
        with pytest.raises(LeaseNotFound):
            attempt()


def test_a_lease_names_its_task_and_its_formats(grid):
    task = grid.ask(copies=2)
    lease = grid.lease("w1")
    with pytest.raises(InvalidPayload):
        grid.hand_in("w1", lease, "0.9", task_id=grid.ask())
    with pytest.raises(InvalidPayload):
        grid.hand_in("w1", lease, "0.9", format="ply")
    assert grid.hand_in("w1", lease, "0.9")["task_id"] == task


def test_renewing_extends_a_lease_but_not_beyond_its_longest_life(make_grid):
    grid = make_grid(worker_lease=60, worker_lease_max=100)
    grid.ask(copies=1)
    lease = grid.lease("w1")
    grid.pass_time(50)
    grid.leases.renew("w1", lease["lease_id"])
    grid.pass_time(45)
    grid.leases.renew("w1", lease["lease_id"])
    grid.pass_time(6)
    with pytest.raises(LeaseClosed) as closed:
        grid.leases.renew("w1", lease["lease_id"])
    assert closed.value.data == {"reason": "expired"}


def test_the_same_result_sent_in_parallel_is_credited_once(grid):
    task = grid.ask(copies=4)
    lease = grid.lease("w1")
    outcomes = []

    def submit(result):
        try:
            outcomes.append(grid.hand_in("w1", lease, result)["state"])
        except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=submit, args=(result,)) for result in ("0.9", "0.8", "0.9", "0.7")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(grid.task(task)["results"]) == 1
    assert len([entry for entry in grid.streams.after("worker:w1", 0) if entry.body["credited"]]) == 1
    assert "AlreadySubmitted" in outcomes


def test_backlog_in_scoring_stops_new_leases_but_not_submissions(make_grid):
    grid = make_grid(scoring_queue_max=1)
    leases = []
    for number in range(3):
        grid.ask(f"{number}", kind="slow", copies=1)
        leases.append(grid.lease(f"w{number}"))
    for number, lease in enumerate(leases):
        grid.hand_in(f"w{number}", lease, str(number))
    grid.ask("more", kind="slow", copies=1)
    answer = grid.pull("w9")
    assert (answer["task"], answer["retry_after"]) == (None, 5)


def test_feedback_is_kept_in_order_and_without_gaps(grid):
    for number in range(3):
        grid.ask(f"{number}", copies=1)
        grid.hand_in("w1", grid.lease("w1"), "0.9")
    feedback = [entry.body for entry in grid.streams.after("worker:w1", 0)]
    assert [entry["seq"] for entry in feedback] == [1, 2, 3]
    assert all(entry["verdict"] == "accepted" and entry["credited"] for entry in feedback)


def test_two_nodes_never_hand_out_the_same_slot(make_grid):
    one = make_grid()
    two = make_grid(clock=one.clock)
    tasks = [one.ask(f"{number}", copies=1) for number in range(20)]
    granted = []

    def serve(grid, name):
        for number in range(20):
            answer = grid.pull(f"{name}{number}")
            if answer["task"] is not None:
                granted.append(answer["task"]["task_id"])

    threads = [threading.Thread(target=serve, args=pair) for pair in ((one, "a"), (two, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == sorted(tasks)
