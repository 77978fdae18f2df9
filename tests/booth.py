"""Registered models and the predictions on them, on a clock that stands still; no worker, no files, no webhooks."""

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import insert, select, update

from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.runners.changes import Changes
from grid_node.runners.models import models, versions
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction, held, held_by_id
from grid_node.runners.predictions import RunnerPredictions
from grid_node.runners.replays import Replays
from grid_node.runners.run_requests import NewRun, new_run
from grid_node.runners.signature import parse_signature
from grid_node.settings import Settings
from grid_node.streams.service import Streams

SIGNATURE = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "what to paint"}},
        {"name": "steps", "type": "int", "validation": {"default": "50", "ge": "0", "le": "1000"}},
        {"name": "image", "type": "Path", "validation": {"default": None}},
    ],
    "outputs": "list[Path]",
}
ANNA = RunnerCaller("anna-key", "anna")
BERT = RunnerCaller("bert-key", "bert")
CARL = RunnerCaller("carl-key", "carl")


class NoWebhooks:
    """Announcer that keeps what would be told."""

    def __init__(self) -> None:
        self.announced: list[tuple[str, str]] = []

    def announce(self, tx: Any, prediction: Prediction, event: str, now: float) -> None:
        self.announced.append((prediction.id, event))


class FewFiles:
    """DataFiles that keep nothing but what they were asked."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.forgotten: list[str] = []

    def keep_data(self, owner: str, url: str, prediction: Prediction | None) -> str:
        if ";broken" in url[:40]:
            raise ValueError("not a data: URL")
        self.kept.append(url)
        return f"http://grid.test/pc/client-api/files/{len(self.kept):032d}.png"

    def forget_prediction(self, tx: Any, prediction: Prediction) -> None:
        self.forgotten.append(prediction.id)


class Charges:
    """Counts the requests of keys; refuses with `refusal`, if there is one."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.refusal: Exception | None = None

    def __call__(self, tx: Any, key_id: str, now: float) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.charged.append(key_id)


class Booth:
    """One process of a node."""

    def __init__(self, store: Store, clock: ManualClock, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.settings = Settings.load({}, public_base_url="http://grid.test", **settings)
        self.streams = Streams(store)
        self.hooks, self.files, self.charges = NoWebhooks(), FewFiles(), Charges()
        self.changes = Changes(self.streams, clock, self.hooks)
        self.queued = self.watched = 0
        self.changes.queued = self._count_queued
        self.changes.watched = self._count_watched
        self.predictions = RunnerPredictions(
            store, clock, self.settings, self.streams, self.changes, self.files,
            Replays(b"secret", "prediction"), self.charges,
        )  # fmt: skip

    def _count_queued(self) -> None:
        self.queued += 1

    def _count_watched(self) -> None:
        self.watched += 1

    def model(
        self, caller: RunnerCaller = ANNA, name: str = "paint", signature: Any = None, **members: Any
    ) -> tuple[str, str]:
        """Register a model that is ready; its id and version."""
        text = json.dumps(signature or SIGNATURE)
        version = parse_signature(json.loads(text), 100).version
        now = self.clock.now()
        id = f"m-{name[:20]:a<20}".replace("_", "b").replace("-", "c", 0)
        row = {
            "id": id, "owner": caller.owner, "account": caller.account, "name": name, "visibility": "public",
            "state": "ready", "version": version, "document": text, "revision": 1, "provider": "socketio",
            "hostname": f"{id}.runners.localhost", "run_count": 0, "created_at": now, "updated_at": now, **members,
        }  # fmt: skip
        self.store.write(lambda tx: tx.execute(insert(models), row))
        self.new_version(id, text)
        return id, version

    def new_version(self, model_id: str, signature: str) -> str:
        version = parse_signature(json.loads(signature), 100).version
        row = {
            "model_id": model_id,
            "version": version,
            "signature": signature,
            "created_at": self.clock.now(),
        }
        self.store.write(lambda tx: tx.execute(insert(versions), row))
        self.store.write(lambda tx: tx.execute(update(models).where(models.c.id == model_id).values(version=version)))
        return version

    def row_of_model(self, id: str) -> Any:
        return self.store.read(lambda tx: tx.execute(select(models).where(models.c.id == id)).one())

    def run(self, caller: RunnerCaller = BERT, model: str = "anna/paint", **members: Any) -> Prediction:
        """Run the model with a prompt."""
        return self.predictions.create(caller, self.asked(model, **members))

    def asked(self, model: str | None = "anna/paint", **members: Any) -> NewRun:
        """What a client's request for a run means."""
        named = tuple(model.split("/")) if model else None
        headers = {name: members.pop(name) for name in ("cancel_after", "idempotency_key") if name in members}
        return new_run({"input": {"prompt": "a cat"}, **members}, model=named, **headers)

    def report(self, prediction: Prediction, **changed: Any) -> Prediction:
        """Change the prediction as a report of its worker does."""

        def unit(tx: Any) -> Prediction:
            before = held(tx, prediction.number)
            return self.changes.apply(tx, before, replace(before, **changed))

        return self.store.write(unit)

    def stored(self, id: str) -> Prediction | None:
        return self.store.write(lambda tx: held_by_id(tx, id))
