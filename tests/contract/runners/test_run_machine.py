"""Clients, workers, lost answers, time and restarts in any order: what must hold of every prediction after every step.

`GRID_TEST_MACHINE_STEPS` sets how many steps are made in all.
"""

import itertools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import select

from grid_node.clock import ManualClock
from grid_node.database import DirectStore, Store, make_engine
from grid_node.errors import PredictionActive, PredictionClosed
from grid_node.runners.backoff import LONGEST
from grid_node.runners.deliveries import GRACE, PAUSES
from grid_node.runners.delivery_rows import DELIVERED, DROPPED, PENDING
from grid_node.runners.ports import Reply
from grid_node.runners.prediction import DISPATCHING, ORDER, QUEUED, Prediction, by_number
from grid_node.runners.views import status_of
from grid_node.runners.webhooks import IN_LINE, OVERDUE
from tests.booth import ANNA, BERT
from tests.contract.runners.running import HOOK, SIGNATURE, Calls, Died, Node, Receiver, deliveries, events
from tests.contract.runners.yard import AGENT, OTHER, Worker
from tests.stores import _empty, postgres_tables, sqlite_template

__all__ = ["postgres_tables", "sqlite_template"]

STEPS = int(os.environ.get("GRID_TEST_MACHINE_STEPS", "360"))
STEPS_OF_AN_EXAMPLE, STEPS_OF_MOST = 60, 12
"""At most, and about as many as most examples have."""
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FAULTS = [None, "not sent", "request lost", "refused", "answer lost", "node dies"]
BUSY, BROKEN, REFUSED = Reply(409, {"detail": "busy"}), Reply(500, {"error": "no"}), Reply(422, {"detail": "bad"})
STATUSES = ["starting", "processing", "processing", "succeeded", "failed", "unheard of"]


reports = st.tuples(
    st.sampled_from(STATUSES), st.integers(0, 4), st.sampled_from(["small", "small", "small", "large", "data"])
)
"""Status, how much was done by then, and how it comes."""


class RunMachine(RuleBasedStateMachine):
    """Every rule is something that a client, a worker, a job or the world may do at any time."""

    made: Bundle[int] = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="grid-test-", dir=MEMORY))
        self.store = self.open_store(self.folder)
        self.clock, self.ways, self.receiver = ManualClock(), Calls(), Receiver()
        self.ways.judge = self.judge_send
        self.workers = {instance: Worker(room=2) for instance in (AGENT, OTHER)}
        self.node = self.fresh_node()
        self.before: dict[int, Prediction] = {}
        self.hooked: dict[int, bool] = {}
        self.reported: Counter[int] = Counter()
        self.removed: set[int] = set()
        self.bad_sends: list[Prediction] = []
        self.keys = 0

    @staticmethod
    def open_store(folder: Path) -> Store:
        raise NotImplementedError

    def fresh_node(self) -> Node:
        return Node(self.store, self.clock, self.folder, self.ways, self.receiver)

    @initialize()
    def register(self) -> None:
        self.model_id, _version = self.node.model(signature=SIGNATURE)
        for instance, worker in self.workers.items():
            self.ways.join(worker, self.model_id, instance)

    # --- clients

    @rule(
        target=made,
        hook=st.sampled_from([None, None, [], ["completed"], ["start", "logs"]]),
        cancel_after=st.sampled_from([None, None, None, "5s", "10m"]),
        count=st.integers(1, 3),
    )
    def create(self, hook: list[str] | None, cancel_after: str | None, count: int) -> Any:
        return multiple(*(self.create_one(hook, cancel_after) for _ in range(count)))

    def create_one(self, hook: list[str] | None, cancel_after: str | None) -> int:
        self.keys += 1
        wanted = {} if hook is None else {"webhook": HOOK, "webhook_events_filter": hook}
        given = {**wanted, "cancel_after": cancel_after, "idempotency_key": f"key-{self.keys}"}
        number = self.node.run(BERT, **given).number
        assert self.node.run(BERT, **given).number == number, "the same request made another one"
        self.hooked[number] = hook is not None and hook in ([], ["completed"])
        return number

    @rule(number=made)
    def cancel(self, number: int) -> None:
        before = self.get(number)
        after = self.node.predictions.cancel(BERT, before.id)
        assert after.ended == (before.ended or before.state == QUEUED)
        assert after.ended or after.cancel_at is not None

    @rule(number=made)
    def delete(self, number: int) -> None:
        before = self.get(number)
        try:
            self.node.predictions.delete(BERT, before.id)
        except PredictionActive:
            assert not before.ended
        else:
            assert before.ended
            self.removed.add(number)
            self.reported[number] = 0

    # --- workers

    @rule()
    def dispatch_without_faults(self) -> None:
        self.node.dispatching.round()

    @rule(fault=st.sampled_from(FAULTS), answer=st.sampled_from([None, None, None, None, BUSY, BROKEN, REFUSED]))
    def dispatch(self, fault: str | None, answer: Reply | None) -> None:
        faults = [fault]
        self.ways.fault = lambda _method: faults[0]
        for worker in self.workers.values():
            worker.answer = answer
        try:
            self.node.dispatching.round()
        except Died:
            self.node = self.fresh_node()
        faults[0] = None
        for worker in self.workers.values():
            worker.answer = None

    @rule(number=made, said=st.lists(reports, min_size=1, max_size=5))
    def report_several(self, number: int, said: list[tuple[str, int, str]]) -> None:
        for status, length, kind in said:
            self.report(number, status, length, kind)
            self.nothing_goes_back_and_ends_are_final()

    def report(self, number: int, status: str, length: int, kind: str) -> None:
        """Any report at any time; a small one is merged before it is answered, unless its end must wait its turn."""
        before = self.get(number)
        said = {"status": status, "logs": "line\n" * length, "output": self.output(length, kind)}
        if kind == "large":
            said["more"] = "x" * IN_LINE
        self.node.report(before, **said)
        self.reported[number] += 1
        ends = status in ("succeeded", "failed", "canceled")
        for worker in self.workers.values():
            if ends:
                worker.running.pop(before.id, None)
        after = self.get(number)
        if kind != "large" and ends and not self.waits(number):
            assert after.ended

    @staticmethod
    def output(length: int, kind: str) -> Any:
        if kind == "data":
            return [f"data:text/plain,{place}" for place in range(length)]
        return [f"item {place}" for place in range(length)] or None

    @rule(
        number=made, name=st.sampled_from(["0_a.png", "1_b.png", "c.txt"]), content=st.sampled_from([b"", b"1", b"22"])
    )
    def upload(self, number: int, name: str, content: bytes) -> None:
        before = self.get(number)
        try:
            self.node.upload(before, name, content)
        except PredictionClosed:
            late = before.finished_at is not None and before.finished_at + 900 < self.clock.now()
            assert number in self.removed or late

    @rule(number=made, length=st.integers(1, 3))
    def keep_data_of_a_slow_merge(self, number: int, length: int) -> None:
        """A job stores what a report held, while anything may have happened to the prediction."""
        try:
            self.node.kept.keep_data(ANNA.owner, "data:,slow" + "x" * length, self.get(number))
        except PredictionClosed:
            assert number in self.removed

    @rule(instance=st.sampled_from([AGENT, OTHER]))
    def an_agent_comes_or_goes(self, instance: str) -> None:
        """While it is away its worker may have been started anew."""
        if instance in self.ways.workers[self.model_id]:
            self.ways.leave(self.model_id, instance)
            self.workers[instance].running.clear()
        else:
            self.ways.join(self.workers[instance], self.model_id, instance)

    # --- jobs and the world

    @rule()
    def merge_what_waits(self) -> None:
        self.node.merge()

    @rule(answer=st.sampled_from([200, 200, 500, 404, None]))
    def deliver(self, answer: int | None) -> None:
        self.receiver.answer = answer
        self.node.deliver()

    @rule(seconds=st.sampled_from([0.1, 0.6, 2.5, 6.0, 16.0, 100.0, 460.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.node.watch()
        self.node.webhooks.sweep()
        self.node.deliveries.sweep()
        self.node.kept.expire()

    @rule()
    def restart(self) -> None:
        self.node = self.fresh_node()

    # --- looks

    def get(self, number: int) -> Prediction:
        found = self.store.read(lambda tx: by_number(tx, number))
        assert found is not None
        return found

    def all(self) -> list[Prediction]:
        return self.node.all()

    def rows(self, query: Any) -> list[Any]:
        return self.node.rows(query)

    def waits(self, number: int) -> bool:
        return bool(self.rows(select(events.c.id).where(events.c.prediction == number, events.c.merged.is_(False))))

    def judge_send(self, id: str) -> None:
        """Only noted here: whoever sends survives every error."""
        (found,) = (one for one in self.all() if one.id == id)
        often = self.ways.sends[id] >= self.node.settings.prediction_attempts
        if (found.state, found.reported_at, found.cancel_at, often) != (DISPATCHING, None, None, False):
            self.bad_sends.append(found)

    # --- what must hold

    @invariant()
    def nothing_is_sent_after_its_end_or_a_report_or_too_often(self) -> None:
        assert self.bad_sends == []

    @invariant()
    def nothing_goes_back_and_ends_are_final(self) -> None:
        for after in self.all():
            before = self.before.get(after.number)
            self.before[after.number] = after
            if before is None:
                continue
            assert ORDER[status_of(after)] >= ORDER[status_of(before)]
            assert before.ended <= after.ended
            assert after.logs_length >= before.logs_length or after.data_removed
            assert after.data_removed or len(after.output or []) >= len(before.output or [])
            if before.ended:
                same = ("state", "finished_at", "error", "seq", "metrics")
                assert [getattr(after, one) for one in same] == [getattr(before, one) for one in same]
                assert after.output == before.output or after.data_removed

    @invariant()
    def streams_have_no_gap_and_one_end(self) -> None:
        self.node.check_streams()

    @invariant()
    def no_wait_is_longer_than_it_may_be(self) -> None:
        limits, now = self.node.settings, self.clock.now()
        for one in self.all():
            if one.ended:
                continue
            assert one.cancel_at is None or now < one.cancel_at + limits.cancel_grace_s
            assert one.deadline is None or now < one.deadline or one.cancel_at is not None
            assert one.state != QUEUED or now < one.created_at + limits.prediction_queue_ttl_s
            assert one.dispatched_at is None or now < one.dispatched_at + limits.prediction_run_s

    @invariant()
    def places_in_the_queue_are_right(self) -> None:
        found = self.all()
        shown = self.node.predictions.views(found)
        places = [view["queue_position"] for one, view in zip(found, shown, strict=True) if one.state == QUEUED]
        assert places == list(range(1, len(places) + 1))
        assert all(
            view["queue_position"] is None for one, view in zip(found, shown, strict=True) if one.state != QUEUED
        )

    @invariant()
    def an_end_owes_one_webhook(self) -> None:
        self.node.check_hooks({number for number, wanted in self.hooked.items() if wanted})

    @invariant()
    def counts_are_right(self) -> None:
        self.node.check_counts()
        found = self.all()
        assert all(one.events == self.reported[one.number] for one in found)
        if hasattr(self, "model_id"):
            assert self.node.row_of_model(self.model_id).run_count == len(found)

    def teardown(self) -> None:
        try:
            if hasattr(self, "model_id"):
                self.come_to_an_end()
        finally:
            self.store.close()
            shutil.rmtree(self.folder)

    def come_to_an_end(self) -> None:
        """With time alone everything ends, is merged, and is told."""
        self.receiver.answer = 200
        faults = itertools.cycle(["request lost", "answer lost", None])
        for seconds in [1.0, 2.5, 2.5, 6.0, 6.0, LONGEST, OVERDUE, *[300.0] * 9, GRACE + PAUSES[-1] * 2, 60.0]:
            self.dispatch(next(faults), None)
            self.time_passes(seconds)
            self.merge_what_waits()
            self.deliver(200)
            self.nothing_is_sent_after_its_end_or_a_report_or_too_often()
            self.nothing_goes_back_and_ends_are_final()
            self.no_wait_is_longer_than_it_may_be()
        assert all(one.ended for one in self.all())
        assert not self.rows(select(events.c.id).where(events.c.merged.is_(False)))
        assert not self.rows(select(deliveries.c.id).where(deliveries.c.state == PENDING))
        self.everybody_was_told_once()
        self.streams_have_no_gap_and_one_end()
        self.an_end_owes_one_webhook()

    def everybody_was_told_once(self) -> None:
        states = {row.id: row.state for row in self.rows(select(deliveries.c.id, deliveries.c.state))}
        ids = [id for id, _body in self.receiver.got]
        assert len(ids) == len(set(ids))
        assert all(states[id] in (DELIVERED, DROPPED) for id in ids)
        finals = Counter(body["id"] for _id, body in self.receiver.got if body["completed_at"] is not None)
        assert all(count == 1 for count in finals.values())


def machine(make_store: Any, steps: int) -> None:
    class Machine(RunMachine):
        open_store = staticmethod(make_store)

    case = Machine.TestCase
    case.settings = settings(
        max_examples=max(1, steps // STEPS_OF_MOST),
        stateful_step_count=STEPS_OF_AN_EXAMPLE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()


@pytest.mark.timeout(3600)
def test_predictions_on_models_keep_their_promises_in_whatever_order(sqlite_template: Path) -> None:
    def open_store(folder: Path) -> Store:
        shutil.copy(sqlite_template, folder / "grid.db")
        return DirectStore(make_engine(f"sqlite:///{folder / 'grid.db'}"))

    machine(open_store, STEPS)


@pytest.mark.timeout(3600)
def test_they_keep_them_on_postgresql_too(postgres_tables: str) -> None:
    def open_store(_folder: Path) -> Store:
        engine = make_engine(postgres_tables)
        _empty(engine)
        return DirectStore(engine)

    machine(open_store, STEPS // 10)
