"""Reports of workers to one process of a node, over a clock that stands still; with real files, without HTTP."""

from pathlib import Path
from typing import Any

import orjson

from grid_node.blobs.holds import Holds
from grid_node.blobs.local import LocalBlobs
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.runners.files import RunnerFiles
from grid_node.runners.ids import webhook_token
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction, by_number, held_of_runner
from grid_node.runners.webhooks import Webhooks
from tests.booth import ANNA, Booth
from tests.stores import call

SECRET = b"the node's own"


class ReportDesk(Booth):
    """Takes reports. `enqueued` are those that a job should merge."""

    def __init__(self, store: Store, clock: ManualClock, folder: Path, **settings: Any) -> None:
        super().__init__(store, clock, **settings)
        blobs = LocalBlobs(folder / "blobs", call)
        self.store_of_files = RunnerFiles(store, clock, self.settings, blobs, Holds(store, blobs, clock), folder)
        self.webhooks = Webhooks(store, clock, self.settings, self.changes, self.store_of_files, SECRET)
        self.enqueued: list[int] = []
        self.webhooks.enqueue = self.enqueued.append

    def started(self, **members: Any) -> Prediction:
        """A prediction that Bert asked for and Anna's worker has."""
        return self.report(self.run(**members), state="dispatching")

    def now(self, prediction: Prediction) -> Prediction:
        """As it is in the database."""
        found = self.store.read(lambda tx: by_number(tx, prediction.number))
        assert found is not None
        return found

    def of(self, caller: RunnerCaller, id: str) -> Prediction | None:
        return self.store.write(lambda tx: held_of_runner(tx, caller.owner, id))

    def by_token(self, prediction: Prediction, raw: bytes | None = None, **members: Any) -> bytes:
        """Report with the prediction's own token; the bytes that were sent."""
        raw = raw or orjson.dumps({"id": prediction.id, **members})
        self.webhooks.by_token(webhook_token(SECRET, prediction.id), raw)
        return raw

    def by_key(self, caller: RunnerCaller = ANNA, raw: bytes | None = None, **members: Any) -> bytes:
        raw = raw or orjson.dumps(members)
        self.webhooks.by_key(caller, raw)
        return raw

    def upload(self, prediction: Prediction, name: str, content: bytes = b"bytes") -> str:
        """What Anna's worker sends for the prediction; its address."""
        new = self.store_of_files.named(prediction.runner_owner, name, prediction.id, None)
        return self.store_of_files.url_of(self.store_of_files.receive(new, [content]).file)

    def merge_enqueued(self) -> None:
        """The job."""
        while self.enqueued:
            self.webhooks.merge_stored(self.enqueued.pop(0))
