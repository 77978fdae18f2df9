"""The life of a scoring job on bad days: faults of ours cost the worker nothing, and every result gets one verdict."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid_node.blobs.factory import make_blobs
from grid_node.blobs.store import Blobs
from grid_node.database import Store
from grid_node.generation.workers import feedback_stream
from grid_node.jobs.scoring import DEATHS_MAX, MARGIN, JobRunner, ScoringJobs
from grid_node.node import SWEEP_EVERY
from grid_node.scoring.port import InvalidAsset, Report, ScoreTask
from tests.grids import Grid
from tests.stores import call

TIMEOUT = 120.0


class TrialScorer:
    """A scorer that does what the test says; without further word every result is good."""

    version = "trial-1"
    score_kind = "validity"

    def __init__(self) -> None:
        self.calls = 0
        self.plan: list[Callable[[Path], None]] = []

    def score(self, path: Path, task: ScoreTask, _artifacts: Path | None = None) -> Report:
        self.calls += 1
        if self.plan:
            self.plan.pop(0)(path)
        return Report(0.9, True, 0.6, self.score_kind, self.version, format=task.format)


def raising(error: BaseException) -> Callable[[Path], None]:
    def fail(_path: Path) -> None:
        raise error

    return fail


class Workshop:
    """A grid, its jobs and job processes, and a queue that is a list."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self.grid = Grid(store)
        self.jobs = ScoringJobs(store, self.grid.clock, self.grid.settings, self.grid.verdicts)
        self.scorer = TrialScorer()
        self.queue: list[str] = []
        self.watched: list[float] = []
        self._blobs = blobs
        self._workers = itertools.count()
        self.grid.leases.enqueue = self.queue.append

    def process(self, owner: str = "process-1") -> JobRunner:
        watch, kinds = self.watched.append, lambda _kind: self.scorer
        return JobRunner(self.jobs, self._blobs, kinds, b"secret", owner, watch, 0.6)

    def run(self, lease: dict[str, Any], owner: str = "process-1") -> bool:
        return self.process(owner).run(lease["lease_id"], TIMEOUT)

    def submitted(self, data: str = "asset", copies: int = 1, **fields: Any) -> dict[str, Any]:
        """A task whose first result waits for a score: the lease, with its worker."""
        task_id = self.grid.ask(kind="slow", copies=copies, **fields)
        return {"task": task_id, **self.result(data)}

    def result(self, data: str = "asset") -> dict[str, Any]:
        worker = f"w{next(self._workers)}"
        lease = self.grid.lease(worker)
        self.grid.hand_in(worker, lease, data)
        return {**lease, "worker": worker}

    def status(self, lease: dict[str, Any]) -> str:
        """How the copy of this lease stands."""
        task = self.grid.task(lease["task_id"])
        return {miner["hotkey"]: miner["state"] for miner in task["statistics"]["miners"]}[lease["worker"]]

    def feedback(self, lease: dict[str, Any]) -> list[dict[str, Any]]:
        return [entry.body for entry in self.grid.streams.after(feedback_stream(lease["worker"]), 0)]

    def swept(self) -> list[str]:
        """What the sweeper enqueues now."""
        found: list[str] = []
        self.jobs.sweep(found.append)
        return found

    def live_on(self, seconds: float) -> None:
        self.grid.clock.advance(seconds)


@pytest.fixture
def shop(store: Store, tmp_path: Path) -> Workshop:
    return Workshop(store, make_blobs(str(tmp_path / "blobs"), tmp_path / "cache", call))


# --- a good day -------------------------------------------------------------------------------------------------------


def test_a_result_is_enqueued_scored_and_told(shop: Workshop) -> None:
    lease = shop.submitted()
    assert shop.queue == [lease["lease_id"]]
    assert shop.run(lease)
    assert shop.grid.task(lease["task_id"])["status"] == "best_results"
    assert [told["verdict"] for told in shop.feedback(lease)] == ["accepted"]
    assert shop.watched == [TIMEOUT, 0]


def test_bytes_that_are_no_asset_are_the_workers_fault_at_the_first_attempt(shop: Workshop) -> None:
    shop.scorer.plan = [raising(InvalidAsset("truncated"))]
    lease = shop.submitted()
    shop.run(lease)
    (told,) = shop.feedback(lease)
    assert (told["verdict"], told["reasons"], told["cooldown"]["reason"]) == (
        "rejected",
        ["truncated"],
        "invalid_asset",
    )


# --- faults of ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [RuntimeError("boom"), MemoryError(), OSError("no such device")], ids=repr)
def test_three_attempts_at_growing_intervals_then_unavailable_without_a_penalty(
    shop: Workshop, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shop.scorer.plan = [raising(fault)] * 3
    lease = shop.submitted()
    for pause in (1.0, 5.0):
        assert shop.run(lease)
        shop.live_on(pause - 0.01)
        assert (shop.run(lease), shop.swept()) == (False, [])
        shop.live_on(0.01)
        assert shop.swept() == [lease["lease_id"]]
        assert shop.status(lease) == "scoring"
    assert shop.run(lease)

    assert (shop.status(lease), shop.scorer.calls) == ("scoring_unavailable", 3)
    (told,) = shop.feedback(lease)
    assert (told["verdict"], told["cooldown"], told["credited"]) == ("scoring_unavailable", None, False)
    assert shop.grid.pull(lease["worker"])["cooldown"] is None
    assert shop.swept() == []
    assert "scoring of lease" in caplog.text


def test_a_failed_attempt_asks_for_the_next_one_itself(shop: Workshop) -> None:
    asked: list[tuple[str, float]] = []
    shop.jobs.schedule = lambda lease_id, seconds: asked.append((lease_id, seconds))
    shop.scorer.plan = [raising(RuntimeError("boom"))] * 3
    lease = shop.submitted()
    for pause in (1.0, 5.0, 0.0):
        shop.run(lease)
        shop.live_on(pause)
    assert asked == [(lease["lease_id"], 1.0), (lease["lease_id"], 5.0)]


def test_a_scorer_that_heals_in_between_gives_its_verdict(shop: Workshop) -> None:
    shop.scorer.plan = [raising(RuntimeError("boom"))] * 2
    lease = shop.submitted()
    for pause in (1.0, 5.0, 0.0):
        shop.run(lease)
        shop.live_on(pause)
    assert shop.status(lease) == "accepted"
    assert [told["verdict"] for told in shop.feedback(lease)] == ["accepted"]


def test_the_slot_of_an_unavailable_result_goes_to_the_next_worker(shop: Workshop) -> None:
    shop.scorer.plan = [raising(RuntimeError("boom"))] * 3
    lease = shop.submitted()
    for pause in (1.0, 5.0, 0.0):
        shop.run(lease)
        shop.live_on(pause)
    second = shop.result()
    assert second["task_id"] == lease["task_id"]
    shop.run(second)
    task = shop.grid.task(lease["task_id"])
    assert (task["status"], task["results"][0]["hotkey"]) == ("best_results", second["worker"])


def test_a_task_whose_results_cannot_be_scored_says_so_and_after_a_repair_new_tasks_pass(shop: Workshop) -> None:
    shop.scorer.plan = [raising(RuntimeError("boom"))] * 9
    lease = shop.submitted("one")
    for data in ("two", "three", None):
        for pause in (1.0, 5.0, 0.0):
            shop.run(lease)
            shop.live_on(pause)
        if data:
            lease = shop.result(data)
    task = shop.grid.task(lease["task_id"])
    assert (task["status"], task["error"]["code"]) == ("failed", "scoring_unavailable")

    repaired = shop.submitted()
    shop.run(repaired)
    assert shop.grid.task(repaired["task_id"])["status"] == "best_results"


def test_a_missing_file_is_our_fault(shop: Workshop, store: Store) -> None:
    lease = shop.submitted()
    store.write(lambda tx: tx.connection.exec_driver_sql("UPDATE copies SET inline = NULL"))
    assert shop.run(lease)
    assert (shop.status(lease), shop.scorer.calls) == ("scoring", 0)
    assert shop.feedback(lease) == []


# --- processes that die -----------------------------------------------------------------------------------------------


def test_the_death_of_a_job_process_counts_an_attempt_of_the_job_in_its_hand(shop: Workshop) -> None:
    lease = shop.submitted()
    assert shop.jobs.claim(lease["lease_id"], "doomed").job_attempts == 1
    assert not shop.run(lease, "another")
    shop.jobs.process_died("doomed")
    assert not shop.run(lease, "another")
    shop.live_on(1.0)
    assert shop.jobs.claim(lease["lease_id"], "another").job_attempts == 2


def test_the_death_of_a_process_without_a_job_changes_nothing(shop: Workshop) -> None:
    lease = shop.submitted()
    shop.jobs.process_died("idle")
    assert shop.run(lease)
    assert shop.status(lease) == "accepted"


def test_bytes_that_ended_three_processes_are_never_scored_again(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    killer = shop.submitted("killer")
    for _ in range(DEATHS_MAX):
        assert shop.jobs.claim(killer["lease_id"], "doomed") is not None
        shop.jobs.process_died("doomed")
        shop.live_on(5.0)
    assert shop.status(killer) == "scoring_unavailable"
    shop.grid.tasks.cancel("gktest01", killer["task_id"])

    again, harmless = shop.submitted("killer"), shop.submitted("harmless")
    assert shop.run(again)
    assert shop.run(harmless)
    assert (shop.status(again), shop.status(harmless)) == ("scoring_unavailable", "accepted")
    assert shop.scorer.calls == 1
    assert [told["cooldown"] for told in shop.feedback(again)] == [None]
    assert "quarantined" in caplog.text


def test_a_job_that_ended_with_its_node_starts_again_at_once_and_its_bytes_are_not_suspected(shop: Workshop) -> None:
    lease = shop.submitted()
    for number in range(DEATHS_MAX + 1):
        assert shop.jobs.claim(lease["lease_id"], f"node-{number}") is not None
        shop.jobs.interrupted(f"node-{number}")
        assert shop.swept() == [lease["lease_id"]]
    assert shop.run(lease)
    assert shop.status(lease) == "accepted"


def test_a_process_that_hangs_holds_its_claim_no_longer_than_its_timeout_and_a_margin(shop: Workshop) -> None:
    lease = shop.submitted()
    shop.jobs.claim(lease["lease_id"], "hanging")
    shop.live_on(TIMEOUT + MARGIN - 1)
    assert (shop.run(lease, "another"), shop.swept()) == (False, [])
    shop.live_on(2)
    assert shop.swept() == [lease["lease_id"]]
    assert shop.run(lease, "another")
    assert shop.status(lease) == "accepted"


def test_a_job_whose_third_process_vanished_without_a_word_is_given_up_by_the_sweeper(shop: Workshop) -> None:
    lease = shop.submitted(deadline_s=3600.0)
    for number in range(3):
        assert shop.jobs.claim(lease["lease_id"], f"lost-{number}") is not None
        shop.live_on(TIMEOUT + MARGIN + 1)
    assert shop.swept() == []
    assert shop.status(lease) == "scoring_unavailable"


# --- a queue that loses and repeats -----------------------------------------------------------------------------------


def test_a_job_that_the_queue_lost_is_found_within_five_seconds(shop: Workshop) -> None:
    lease = shop.submitted()
    shop.queue.clear()
    assert SWEEP_EVERY <= 5.0
    assert shop.swept() == [lease["lease_id"]]
    shop.jobs.claim(lease["lease_id"], "process-1")
    assert shop.swept() == []


def test_a_job_that_is_run_twice_has_one_verdict_and_one_feedback(shop: Workshop) -> None:
    lease = shop.submitted(copies=2)
    assert (shop.run(lease), shop.run(lease, "process-2")) == (True, False)
    assert [told["verdict"] for told in shop.feedback(lease)] == ["accepted"]


def test_two_processes_with_the_same_job_give_the_first_verdict_once(shop: Workshop) -> None:
    lease = shop.submitted(copies=2)

    def overtaken(_path: Path) -> None:
        shop.live_on(TIMEOUT + MARGIN + 1)
        assert shop.run(lease, "process-2")
        raise InvalidAsset("truncated")

    shop.scorer.plan = [overtaken]
    assert shop.run(lease)
    assert (shop.status(lease), shop.scorer.calls) == ("accepted", 2)
    assert [told["verdict"] for told in shop.feedback(lease)] == ["accepted"]


def test_a_process_that_fails_after_another_gave_the_verdict_changes_nothing(shop: Workshop) -> None:
    lease = shop.submitted(copies=2)

    def overtaken(_path: Path) -> None:
        shop.live_on(TIMEOUT + MARGIN + 1)
        assert shop.run(lease, "process-2")
        raise RuntimeError("boom")

    shop.scorer.plan = [overtaken]
    assert shop.run(lease)
    assert shop.status(lease) == "accepted"
    assert len(shop.feedback(lease)) == 1


def test_a_task_that_ended_meanwhile_needs_no_score(shop: Workshop) -> None:
    lease = shop.submitted()
    shop.grid.tasks.cancel("gktest01", lease["task_id"])
    assert not shop.run(lease)
    assert not shop.run({"lease_id": "00000000-0000-4000-8000-000000000000"})
    assert (shop.swept(), shop.scorer.calls) == ([], 0)
