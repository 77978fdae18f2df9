"""When a task ends and which result wins, against a model that says the same in other words."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.generation.selection import ENDED, FAILED_COPY, Rules, best_of, counts, decide, failure

RULES = Rules(window=30.0, settle=5.0, score_grace=15.0)
LEASE = 60.0


@dataclass
class CopyRow:
    number: int
    state: str
    lease_expires_at: float = 0.0
    submitted_at: float | None = None
    score: float | None = None


@dataclass
class TaskRow:
    """A task as its row would be, moved by events; every look at it goes through `decide`."""

    copies: int = 2
    deadline: float = 100.0
    first_result_at: float | None = None
    settle_at: float | None = None
    due_at: float = 100.0
    status: str = "queued"
    rows: list[CopyRow] = field(default_factory=list)
    best: Any = None
    error: str | None = None
    ended_at: float | None = None

    @property
    def attempts(self) -> int:
        return len(self.rows)

    @property
    def open_slots(self) -> int:
        """Slots follow from the copies: a failed one frees its slot while nothing is accepted."""
        used = sum(row.state not in FAILED_COPY for row in self.rows)
        if self.first_result_at is not None:
            used = self.used_when_accepted
        return max(0, min(self.copies - used, 2 * self.copies + 1 - self.attempts))

    used_when_accepted: int = 0

    def look(self, now: float, may_come: bool) -> None:
        before = replace(self, rows=list(self.rows))
        decision = decide(self, self.rows, now, RULES, may_come=may_come)
        assert before.rows == self.rows, "deciding changes nothing"
        if decision.status is None:
            self.due_at, self.settle_at = decision.due_at, decision.settle_at
        else:
            self.status, self.best, self.error = decision.status, decision.best, decision.error
            self.ended_at = now


def winner(rows: list[CopyRow]) -> CopyRow | None:
    """The highest score; the first submitted among equals."""
    accepted = sorted((row for row in rows if row.state == "accepted"), key=lambda row: (row.submitted_at, row.number))
    top = max((row.score for row in accepted), default=None)
    return next((row for row in accepted if row.score == top), None)


STEPS = st.tuples(
    st.sampled_from(["grant", "submit", "accept", "reject", "skip", "unavailable", "wait", "wait"]),
    st.integers(0, 5),
    st.floats(0.1, 40.0),
    st.booleans(),
)


def apply(task: TaskRow, step: tuple[str, int, float, bool], now: float) -> None:
    action, which, _, _ = step
    if action == "grant":
        if task.open_slots > 0 and now < task.deadline:
            task.rows.append(CopyRow(len(task.rows), "leased", min(now + LEASE, task.deadline)))
            task.settle_at = None
            task.used_when_accepted += task.first_result_at is not None
        return
    wanted = "leased" if action in ("submit", "skip") else "scoring"
    fitting = [row for row in task.rows if row.state == wanted]
    if not fitting:
        return
    row = fitting[which % len(fitting)]
    if action == "submit":
        row.state, row.submitted_at = "scoring", now
    elif action == "accept":
        row.state, row.score = "accepted", 0.6 + (which % 3) / 10
        if task.first_result_at is None:
            task.first_result_at = now
            task.used_when_accepted = sum(other.state not in FAILED_COPY for other in task.rows)
    else:
        row.state = {"reject": "rejected", "skip": "skipped", "unavailable": "scoring_unavailable"}[action]


def expire(task: TaskRow, now: float) -> None:
    for row in task.rows:
        if row.state == "leased" and row.lease_expires_at <= now:
            row.state = "expired"


@given(copies=st.integers(1, 4), steps=st.lists(STEPS, max_size=30), may_come=st.booleans())
@settings(max_examples=400, deadline=None)
def test_every_task_ends_once_with_the_right_result_and_never_later_than_its_grace(
    copies: int, steps: list[tuple[str, int, float, bool]], may_come: bool
) -> None:
    now = 0.0
    task = TaskRow(copies=copies)
    for step in steps:
        if task.ended_at is not None:
            break
        if step[0] == "wait":
            now += step[2]
            expire(task, now)
        else:
            apply(task, step, now)
        task.look(now, step[3])
        check(task, now)
    while task.ended_at is None:  # from here on nothing happens but time
        assert task.due_at > now, "what is due was done"
        now = task.due_at
        expire(task, now)
        task.look(now, may_come)
        check(task, now)


def check(task: TaskRow, now: float) -> None:
    if task.ended_at is None:
        assert task.due_at > now
        assert task.due_at <= task.deadline + RULES.score_grace
        return
    assert task.status in ENDED
    assert task.best is winner(task.rows)
    assert (task.status == "best_results") == (task.best is not None)
    assert (task.error is None) == (task.status == "best_results")
    if task.status == "failed":
        assert (task.error == "no_worker") == (not task.rows)


@given(
    st.lists(
        st.builds(
            CopyRow,
            number=st.integers(0, 99),
            state=st.sampled_from(["accepted", "rejected", "leased"]),
            submitted_at=st.floats(0, 10),
            score=st.sampled_from([0.6, 0.7, 0.9]),
        ),
        max_size=8,
        unique_by=lambda row: row.number,
    )
)
def test_the_best_is_the_highest_score_and_the_first_of_equals(rows: list[CopyRow]) -> None:
    assert best_of(rows) is winner(rows)
    assert best_of(list(reversed(rows))) is winner(rows)


def test_a_result_submitted_in_time_is_waited_for_only_as_long_as_the_grace() -> None:
    task = TaskRow(copies=2, first_result_at=0.0)
    task.rows = [
        CopyRow(0, "accepted", submitted_at=0.0, score=0.7),
        CopyRow(1, "scoring", submitted_at=29.0, score=None),
    ]
    assert decide(task, task.rows, 31.0, RULES, may_come=False).due_at == 45.0
    assert decide(task, task.rows, 45.0, RULES, may_come=False).status == "best_results"
    task.rows[1].submitted_at = 30.5
    assert decide(task, task.rows, 31.0, RULES, may_come=False).status == "best_results"


def test_a_failure_that_was_ours_is_not_put_on_the_workers() -> None:
    ours = CopyRow(0, "scoring_unavailable", submitted_at=1.0)
    theirs = CopyRow(1, "rejected", submitted_at=1.0, score=0.0)
    silent = CopyRow(2, "expired")
    assert failure([], "all_workers_failed") == "no_worker"
    assert failure([ours, silent], "all_workers_failed") == "scoring_unavailable"
    assert failure([ours, theirs], "all_workers_failed") == "all_workers_failed"
    assert failure([silent], "deadline_exceeded") == "deadline_exceeded"
    assert counts([ours, theirs, silent]) == {"submitted": 2, "rejected": 1, "expired": 1, "skipped": 0}
