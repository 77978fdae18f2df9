"""Clients, workers, time and restarts in any order: what must hold of every task after every step."""

import itertools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from sqlalchemy import select

from grid_node.database import DirectStore, make_engine
from grid_node.errors import AlreadySubmitted, LeaseClosed
from grid_node.generation.selection import ENDED
from grid_node.generation.tables import Copy, Task
from grid_node.generation.workers import feedback_stream
from grid_node.streams.tables import StreamEntry
from tests.grids import KEY, Grid
from tests.stores import sqlite_template

__all__ = ["sqlite_template"]

tasks, copies, entries = Task.__table__, Copy.__table__, StreamEntry.__table__
ORDER = {"queued": 0, "started": 1, "first_results": 2, **dict.fromkeys(ENDED, 3)}
WORKERS = [f"w{number}" for number in range(5)]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
RESULTS = ["0.9", "0.7", "0.61", "0.2", "rubbish"]


NO_COOLDOWNS = {
    "worker_cooldown_low_score": 0.0,
    "worker_cooldown_invalid": 0.0,
    "worker_cooldown_expired": 0.0,
    "worker_skips_free": 99,
}
"""So that few workers are enough to use up the attempts of a task."""


class GridMachine(RuleBasedStateMachine):
    """Every rule is something that a client, a worker, a job process or the world may do at any time."""

    template: Any = None
    accepted: Bundle[str] = Bundle("tasks")
    leases: Bundle[tuple[str, dict[str, Any]]] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="grid-test-", dir=MEMORY))
        shutil.copy(self.template, self.folder / "grid.db")
        self.store = DirectStore(make_engine(f"sqlite:///{self.folder / 'grid.db'}"))
        self.grid = Grid(self.store, **NO_COOLDOWNS)
        self.numbers = itertools.count()
        self.asked: dict[str, str] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.slots: dict[str, int] = {}

    # --- clients

    @rule(
        target=accepted,
        copies=st.integers(1, 3),
        kind=st.sampled_from(["graded", "graded", "slow"]),
        first=st.booleans(),
        deadline=st.sampled_from([90.0, 600.0]),
    )
    def submit(self, copies: int, kind: str, first: bool, deadline: float) -> str:
        key = f"idem-{next(self.numbers)}"
        wanted = {
            "copies": copies,
            "kind": kind,
            "send_first_results": first,
            "deadline_s": deadline,
            "idempotency_key": key,
        }
        task_id = self.grid.ask(**wanted)
        assert self.grid.ask(**wanted) == task_id
        self.asked[task_id] = key
        return task_id

    @rule(task_id=consumes(accepted))
    def cancel(self, task_id: str) -> None:
        self.grid.tasks.cancel(KEY, task_id)

    # --- workers

    @rule(target=leases, worker=st.sampled_from(WORKERS), strong=st.booleans(), lost=st.booleans())
    def pull(self, worker: str, strong: bool, lost: bool) -> Any:
        held = frozenset() if lost else self.grid.held(worker)
        answer = self.grid.pull(worker, strong=strong, holding=held)
        return multiple() if answer["task"] is None else (worker, answer["task"])

    @rule(held=leases, result=st.sampled_from(RESULTS))
    def hand_in(self, held: tuple[str, dict[str, Any]], result: str) -> None:
        worker, lease = held
        try:
            answer = self.grid.hand_in(worker, lease, result)
            assert self.grid.hand_in(worker, lease, result)["lease_id"] == answer["lease_id"]
        except (AlreadySubmitted, LeaseClosed):
            pass

    @rule(results=st.lists(st.sampled_from([*RESULTS, "skip"]), min_size=3, max_size=5))
    def a_round_of_work(self, results: list[str]) -> None:
        """One worker after the other takes what there is and ends it at once."""
        for worker, result in zip(WORKERS, results, strict=False):
            self.work_off(worker, result)

    @rule(result=st.sampled_from(["0.2", "rubbish", "skip"]))
    def nobody_delivers(self, result: str) -> None:
        for worker in WORKERS:
            self.work_off(worker, result)

    def work_off(self, worker: str, result: str) -> None:
        lease = self.grid.pull(worker, kinds=("graded",))["task"]
        if lease is None:
            return
        self.a_failed_copy_frees_its_slot_only_while_nothing_is_accepted()
        if result == "skip":
            self.grid.leases.skip(worker, lease["lease_id"])
        else:
            self.grid.hand_in(worker, lease, result)
        self.a_failed_copy_frees_its_slot_only_while_nothing_is_accepted()

    @rule(held=leases)
    def renew(self, held: tuple[str, dict[str, Any]]) -> None:
        try:
            self.grid.leases.renew(held[0], held[1]["lease_id"])
        except LeaseClosed:
            pass

    @rule(held=leases)
    def skip(self, held: tuple[str, dict[str, Any]]) -> None:
        try:
            self.grid.leases.skip(held[0], held[1]["lease_id"])
        except LeaseClosed:
            pass

    # --- job processes and the world

    @rule(held=leases, score=st.sampled_from([0.9, 0.7, 0.3]), twice=st.booleans())
    def judge(self, held: tuple[str, dict[str, Any]], score: float, twice: bool) -> None:
        self.grid.judge(held[1], score)
        if twice:
            assert self.grid.judge(held[1], 1.0 - score) is None

    @rule(held=leases)
    def scoring_fails(self, held: tuple[str, dict[str, Any]]) -> None:
        now = self.grid.clock.now()
        self.store.write(lambda tx: self.grid.verdicts.unavailable(tx, held[1]["lease_id"], now))

    @rule(seconds=st.sampled_from([0.5, 4.0, 6.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.grid.pass_time(seconds)

    @rule(down=st.sampled_from([0.0, 3.0, 70.0]))
    @precondition(lambda self: self.asked)
    def restart(self, down: float) -> None:
        clock = self.grid.clock
        clock.advance(down)
        self.grid = Grid(self.store, clock, **NO_COOLDOWNS)
        self.grid.tending.tend()

    # --- what must hold -------------------------------------------------------------------------------------------

    def rows(self, table: Any) -> list[Any]:
        return list(self.store.read(lambda tx: tx.execute(select(table)).all()))

    @invariant()
    def streams_are_gapless_and_statuses_never_go_back(self) -> None:
        streams: dict[str, list[Any]] = {}
        for entry in sorted(self.rows(entries), key=lambda entry: entry.seq):
            streams.setdefault(entry.stream, []).append(entry)
        for stream, told in streams.items():
            assert [entry.seq for entry in told] == list(range(1, len(told) + 1)), stream
        for task in self.rows(tasks):
            updates = self.grid.updates(task.id)
            statuses = [update["status"] for update in updates]
            ranks = [ORDER[status] for status in statuses]
            assert ranks == sorted(ranks)
            assert len(set(ranks)) == len(ranks), statuses
            assert (statuses[-1], updates[-1]["seq"]) == (task.status, task.seq)
            assert (ranks.count(3) == 1) == (task.finished_at is not None)

    @invariant()
    def slots_and_copies_stay_within_what_was_asked_for(self) -> None:
        of_task: dict[str, list[Any]] = {}
        for copy in self.rows(copies):
            of_task.setdefault(copy.task_id, []).append(copy)
        for task in self.rows(tasks):
            given = of_task.get(task.id, [])
            live = sum(copy.state in ("leased", "scoring", "accepted") for copy in given)
            assert task.open_slots >= 0
            assert task.attempts == len(given) <= 2 * task.copies + 2
            assert live <= task.copies + 1
            assert live + task.open_slots <= task.copies + 1
            assert max(Counter(copy.worker for copy in given).values(), default=0) <= 1
            assert sum(copy.strong for copy in given if copy.extra) <= 1
            if task.finished_at is not None:
                assert not any(copy.state in ("leased", "scoring") for copy in given)

    @invariant()
    def a_failed_copy_frees_its_slot_only_while_nothing_is_accepted(self) -> None:
        for task in self.rows(tasks):
            if task.first_result_at is not None:
                assert task.open_slots <= self.slots.setdefault(task.id, task.open_slots)
                self.slots[task.id] = task.open_slots

    @invariant()
    def what_has_ended_never_changes(self) -> None:
        for task in self.rows(tasks):
            if task.finished_at is None:
                assert task.due_at <= task.deadline + self.grid.settings.public_api_score_grace
                continue
            now = {"status": task.status, "best": task.best, "seq": task.seq, "error": task.error}
            assert self.ended.setdefault(task.id, now) == now

    @invariant()
    def every_worker_is_told_once_of_each_result(self) -> None:
        for worker in WORKERS:
            told = Counter(entry.body["lease_id"] for entry in self.grid.streams.after(feedback_stream(worker), 0))
            assert max(told.values(), default=0) <= 1

    def teardown(self) -> None:
        try:
            self.grid.pass_time(700.0)
            assert all(task.finished_at is not None for task in self.rows(tasks)), "every task ends"
            assert len(self.rows(tasks)) == len(self.asked), "a replay makes no second task"
            self.streams_are_gapless_and_statuses_never_go_back()
            self.what_has_ended_never_changes()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)


@pytest.mark.timeout(240)
def test_the_grid_keeps_its_promises_whatever_happens_in_whatever_order(sqlite_template: Any) -> None:
    GridMachine.template = sqlite_template
    machine = GridMachine.TestCase
    machine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    machine().runTest()
