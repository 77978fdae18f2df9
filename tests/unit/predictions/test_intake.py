"""The queue in front of the database: order, shared commits, bounds, and an answer for everybody."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid_node.clock import ManualClock
from grid_node.errors import StoreFull, StoreUnavailable
from grid_node.predictions.intake import Intake
from grid_node.predictions.pending import Answer, Pending
from grid_node.predictions.ports import Miner
from grid_node.predictions.submission import Item, Reply, Submission
from grid_node.settings import Settings

WAIT = 20.0
MINER = Miner("ab" * 32, "5Miner", None)


class FakeStore:
    """Runs units at once; `gate` holds a commit back, `failure` makes it fail."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.commits = 0

    def write(self, unit: Callable[[Any], Any]) -> Any:
        assert self.gate.wait(WAIT)
        if self.failure is not None:
            raise self.failure
        result = unit(None)
        self.commits += 1
        return result


class Judge:
    """Notes what it was given, in order; poison raises."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, _tx: Any, submissions: list[Submission]) -> None:
        for submission in submissions:
            if submission.transport == "poison":
                raise RuntimeError("a fault of ours")
        for submission in submissions:
            self.seen.append(submission.transport)
            submission.replies = [Reply(submission.transport, 200, "successful")]


def submission(name: str, miner: Miner = MINER) -> Submission:
    made = Submission(miner, [None], False, name, lambda: None, None)
    made.items.append(Item(None))
    return made


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.store, self.judge = FakeStore(), Judge()
        self.intake = Intake(self.store, ManualClock(), Settings.load({}, **settings), self.judge)  # type: ignore[arg-type]

    def add(self, one: Submission) -> Pending:
        """As the service does."""
        if self.intake.place(one):
            self.intake.add(one)
        return one.pending

    def answer(self, name: str) -> Answer:
        answer = self.add(submission(name)).wait(WAIT)
        assert answer is not None
        return answer


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    found.intake.start()
    yield found
    found.store.gate.set()
    found.intake.stop()


def test_an_answer_comes_after_the_commit(bench: Bench) -> None:
    bench.store.gate.clear()
    pending = bench.add(submission("a"))

    assert pending.wait(0.05) is None

    bench.store.gate.set()
    assert pending.wait(WAIT) == Answer("a", 200, codes=("successful",))


def test_what_waits_is_judged_in_order_and_shares_one_commit(bench: Bench) -> None:
    names = [str(number) for number in range(100)]
    bench.store.gate.clear()
    pendings = [bench.add(submission(name)) for name in names]
    bench.store.gate.set()

    assert all(pending.wait(WAIT) for pending in pendings)
    assert bench.judge.seen == names
    assert bench.store.commits <= 2


def test_a_submission_that_takes_long_to_check_keeps_its_place_and_holds_up_nobody_else(bench: Bench) -> None:
    slow, quick = submission("slow"), submission("quick")
    assert bench.intake.place(slow)
    assert bench.intake.place(quick)
    bench.intake.add(quick)

    assert bench.add(submission("other", Miner("cd" * 32, "5Other", None))).wait(WAIT)
    assert not quick.pending.finished
    bench.intake.add(slow)

    assert quick.pending.wait(WAIT)
    assert bench.judge.seen == ["other", "slow", "quick"]
    assert slow.received_at <= quick.received_at


def test_a_full_queue_answers_at_once() -> None:
    bench = Bench(prediction_queue_max=2, prediction_max_batch=2)
    for name in "ab":
        bench.add(submission(name))

    answer = bench.add(submission("c")).wait(0)

    assert answer is not None
    assert (answer.status, answer.codes, answer.retry_after) == (503, ("overloaded",), 1)
    assert len(bench.intake) == 2


def test_one_miner_fills_half_of_the_queue_and_no_more() -> None:
    bench = Bench(prediction_queue_max=8, prediction_max_batch=1)
    other = Miner("cd" * 32, "5Other", None)
    waiting = [bench.add(submission(str(number))) for number in range(4)]
    assert not any(pending.finished for pending in waiting)

    assert bench.add(submission("fifth")).wait(0).codes == ("overloaded",)  # type: ignore[union-attr]
    assert not bench.add(submission("other", other)).finished
    bench.intake.start()
    assert all(pending.wait(WAIT) for pending in waiting)
    assert bench.answer("later").status == 200
    bench.intake.stop()


@pytest.mark.parametrize("failure", [StoreUnavailable(), StoreFull()])
def test_a_failed_commit_is_no_verdict(bench: Bench, failure: Exception) -> None:
    bench.store.failure = failure

    assert (bench.answer("a").status, bench.answer("a").codes) == (503, ("storage_unavailable",))
    bench.store.failure = None
    assert bench.answer("a").status == 200


def test_a_fault_of_ours_is_nobody_elses() -> None:
    bench = Bench()
    pendings = [bench.add(submission(name)) for name in ("a", "poison", "b")]
    bench.intake.start()

    assert [pending.wait(WAIT).status for pending in pendings] == [200, 500, 200]  # type: ignore[union-attr]
    bench.intake.stop()


def test_who_waited_too_long_is_told_so_and_is_not_judged_afterwards() -> None:
    bench = Bench()
    late = submission("late")
    pending = bench.add(late)
    bench.intake.expire(late.expires - 0.001)
    assert not pending.finished

    bench.intake.expire(late.expires)

    assert pending.wait(0).codes == ("commit_timeout",)  # type: ignore[union-attr]
    bench.intake.start()
    assert bench.answer("next").status == 200
    assert bench.judge.seen == ["next"]
    bench.intake.stop()


def test_stopping_answers_all_that_waits_and_takes_nothing_more() -> None:
    bench = Bench()
    pendings = [bench.add(submission(name)) for name in "ab"]
    bench.intake.start()
    bench.intake.stop()

    assert [pending.wait(0).status for pending in pendings] == [200, 200]  # type: ignore[union-attr]
    assert bench.add(submission("c")).wait(0).codes == ("shutting_down",)  # type: ignore[union-attr]
