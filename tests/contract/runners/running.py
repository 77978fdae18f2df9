"""A whole node's part for predictions on models, without HTTP, and what must hold of its rows at any time."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select

from grid_node.blobs.holds import Holds
from grid_node.blobs.local import LocalBlobs
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import Deliveries
from grid_node.runners.dispatch import Dispatching
from grid_node.runners.file_rows import usage
from grid_node.runners.files import RunnerFiles
from grid_node.runners.guarded_http import Answer, Unreachable
from grid_node.runners.ids import webhook_token
from grid_node.runners.prediction import COMPLETED, Prediction, of_row, predictions
from grid_node.runners.predictions import RunnerPredictions
from grid_node.runners.replays import Replays
from grid_node.runners.secrets_box import SecretsBox
from grid_node.runners.tables import RunnerDelivery, RunnerEvent, RunnerFile
from grid_node.runners.watching import Watching
from grid_node.runners.webhooks import Webhooks
from tests.booth import ANNA, Booth
from tests.contract.runners.yard import SECRET, Ways, inline
from tests.stores import call

HOOK = "https://hooks.example/x"
SIGNATURE = {"inputs": [{"name": "prompt", "type": "str"}], "outputs": "Any"}
files, events, deliveries = RunnerFile.__table__, RunnerEvent.__table__, RunnerDelivery.__table__


class Died(BaseException):
    """The node is gone in the middle of a call."""


class Calls(Ways):
    """Ways to the workers. `judge` is called with the id of every prediction that is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sends: Counter[str] = Counter()
        self.judge: Any = lambda _id: None

    def call(self, model: str, method: str, path: str, json: Any = None, headers: Any = None, *rest: Any, **more: Any):
        if method != "PUT":
            return super().call(model, method, path, json, headers, *rest, **more)
        id = path.split("/")[2]
        self.judge(id)
        fault = self.fault(method)
        if fault == "node dies":
            self.sends[id] += 1
            raise Died()
        reply = None
        try:
            reply = super().call(model, method, path, json, headers, *rest, **more)
        finally:
            busy = reply is not None and reply.status == 409
            self.sends[id] += fault != "not sent" and not busy
        return reply


class Receiver:
    """Of webhooks: `answer` is its status, None if it is away."""

    def __init__(self) -> None:
        self.answer: int | None = 200
        self.got: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, url: str, headers: Any, body: bytes, **limits: Any) -> Answer:
        if self.answer is None:
            raise Unreachable("away")
        if self.answer == 200:
            self.got.append((dict(headers)["webhook-id"], orjson.loads(body)))
        return Answer(self.answer, b"")


class Node(Booth):
    """One life of the node, over what outlives it."""

    def __init__(self, store: Store, clock: ManualClock, folder: Path, ways: Calls, receiver: Receiver) -> None:
        super().__init__(store, clock)
        blobs = LocalBlobs(folder / "blobs", call)
        kept = RunnerFiles(store, clock, self.settings, blobs, Holds(store, blobs, clock), folder)
        box = SecretsBox("", SECRET.ljust(32))
        self.kept = kept
        self.deliveries = Deliveries(store, clock, self.settings, "http://grid.test", box, receiver, lambda: 0.5)
        self.changes = changes = Changes(self.streams, clock, self.deliveries)
        replays = Replays(SECRET, "prediction")
        self.predictions = RunnerPredictions(
            store, clock, self.settings, self.streams, changes, kept, replays, self.charges
        )
        self.webhooks = Webhooks(store, clock, self.settings, changes, kept, SECRET)
        self.dispatching = Dispatching(store, clock, self.settings, changes, ways, SECRET, "node-1", spawn=inline)
        self.watching = Watching(store, clock, self.settings, changes, ways, spawn=inline)
        self.due: list[str] = []
        self.large: list[int] = []
        self.deliveries.enqueue = lambda id, _seconds: self.due.append(id)
        self.webhooks.enqueue = self.large.append

    def watch(self) -> None:
        for _ in range(1000):
            if self.watching.tick() > self.clock.now():
                return
        raise AssertionError("the watch does not come to an end")

    def report(self, prediction: Prediction, **said: Any) -> None:
        """What its worker posts."""
        raw = orjson.dumps({"id": prediction.id, **said})
        self.webhooks.by_token(webhook_token(SECRET, prediction.id), raw)

    def upload(self, prediction: Prediction, name: str, content: bytes) -> None:
        self.kept.receive(self.kept.named(ANNA.owner, name, prediction.id, None), [content])

    def merge(self) -> None:
        """The job."""
        while self.large:
            self.webhooks.merge_stored(self.large.pop())

    def deliver(self) -> None:
        """The job."""
        due, self.due = self.due, []
        for id in due:
            self.deliveries.deliver(id)

    # --- looks

    def rows(self, query: Any) -> list[Any]:
        return self.store.read(lambda tx: list(tx.execute(query).all()))

    def all(self) -> list[Prediction]:
        return [of_row(row) for row in self.rows(select(predictions).order_by(predictions.c.number))]

    # --- what must hold

    def check_streams(self) -> None:
        """No gap, and one end."""
        for one in self.all():
            told = self.streams.after(one.stream, 0)
            ends = [entry.seq for entry in told if entry.body["event"] == "done"]
            if one.data_removed:
                assert [entry.body["event"] for entry in told] in ([], ["done"])
                continue
            assert [entry.seq for entry in told] == list(range(1, one.seq + 1))
            assert ends == ([one.seq] if one.ended else [])
            assert "".join(entry.body["data"] for entry in told if entry.body["event"] == "logs") == one.logs

    def check_hooks(self, hooked: set[int]) -> None:
        """An end owes one webhook, to those that asked for it."""
        query = select(deliveries.c.prediction).where(deliveries.c.event == COMPLETED)
        owed = Counter(row.prediction for row in self.rows(query))
        assert owed == Counter(one.number for one in self.all() if one.ended and one.number in hooked)

    def check_counts(self) -> None:
        """Of files and reports, and of the bytes of each key."""
        kept = self.rows(select(files.c.prediction, files.c.owner, files.c.size, files.c.removed))
        logged = Counter(row.prediction for row in self.rows(select(events.c.prediction)))
        for one in self.all():
            own = [file for file in kept if file.prediction == one.number]
            if one.data_removed:
                assert own == []
            else:
                assert (one.files, one.files_bytes) == (len(own), sum(file.size for file in own))
            assert one.events == logged[one.number]
        for row in self.rows(select(usage)):
            assert row.bytes == sum(file.size for file in kept if file.owner == row.owner and not file.removed)
