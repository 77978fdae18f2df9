"""The routes of webhooks, over each store: their log, sending again, and the secret, each for its owner alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from flask import Flask

from grid_node.adapters.runners import RunnerAccess
from grid_node.clock import ManualClock
from grid_node.http.documents import make_api
from grid_node.http.errors import register_errors
from grid_node.http.runner_door import RunnerDoor
from grid_node.http.v1_deliveries import V1DeliveryRoutes
from grid_node.identity.service import KeyService, NewKey
from grid_node.metrics import Metrics
from grid_node.runners import delivery_rows
from grid_node.runners.changes import Changes
from grid_node.runners.deliveries import Deliveries
from grid_node.runners.guarded_http import Answer
from grid_node.runners.hook_secrets import HookSecrets
from grid_node.runners.prediction import Prediction
from grid_node.runners.secrets_box import SecretsBox
from grid_node.settings import Settings
from grid_node.streams.service import Streams
from tests.stores import postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

LOG = "/v1/predictions/p1/deliveries"
SECRET = "/v1/webhooks/default/secret"


class Face:
    """The routes in an app of their own; Alice has a prediction that told her receiver of its end."""

    def __init__(self, store):
        clock, settings = ManualClock(), Settings.load({}, public_base_url="https://grid.example/")
        box = SecretsBox("", b"secret of the node".ljust(32))
        self.keys = KeyService(store, clock, settings)
        self.sent = []
        self.deliveries = Deliveries(store, clock, settings, settings.public_url, box, self._send)
        self.deliveries.enqueue = lambda id, _seconds: self.waiting.append(id)
        self.waiting = []
        running = SimpleNamespace(deliveries=self.deliveries, hook_secrets=HookSecrets(store, clock, box))
        services = SimpleNamespace(running=running, settings=settings, metrics=Metrics())
        door = RunnerDoor(RunnerAccess(store, clock, self.keys))
        app = Flask("routes")
        app.url_map.strict_slashes = False
        register_errors(app, services)
        make_api(app).register_blueprint(V1DeliveryRoutes(services, door).blueprint())
        self._client = app.test_client()
        self.alice, self.bob = self.key("alice"), self.key("bob")
        self.worker = self.key("runner", "runner")
        self._prediction(store, Changes(Streams(store), clock, self.deliveries), clock.now())
        self.deliver()

    def key(self, name, scope="client"):
        new = NewKey(self.keys.generate(), name, 100, 60, [scope])
        self.keys.add(new)
        return new.key

    def _prediction(self, store, changes, now):
        owner = next(info.id for info in self.keys.all_keys() if info.name == "alice")
        new = Prediction(
            id="p1",
            owner=owner,
            runner_owner="r",
            model_id=None,
            model="r/m",
            version="f" * 64,
            source="node",
            state="starting",
            input={},
            webhook="https://hooks.example/",
            due_at=now,
            created_at=now,
        )
        before = store.write(lambda tx: changes.insert(tx, new))
        after = replace(before, state="processing", output=["a"], logs="1", logs_length=1)
        store.write(lambda tx: changes.apply(tx, before, after))

    def _send(self, _url, headers, _body, **_given):
        self.sent.append(dict(headers)["webhook-id"])
        return Answer(200, b"thanks")

    def deliver(self):
        while self.waiting:
            self.deliveries.deliver(self.waiting.pop(0))

    def call(self, method, path, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self._client.open(path, method=method, headers=headers)


@pytest.fixture
def face(store):
    return Face(store)


def test_the_log_shows_each_webhook_with_its_tries(face):
    answer = face.call("GET", LOG, face.alice)
    assert (answer.status_code, answer.json["previous"], answer.json["next"]) == (200, None, None)
    assert sorted(one["event"] for one in answer.json["results"]) == ["logs", "output", "start"]
    one = answer.json["results"][0]
    assert list(one["tries"][0]) == ["answer", "at", "attempt", "error", "event", "ms", "status"]
    assert (one["state"], one["tries"][0]["status"], one["tries"][0]["answer"]) == ("delivered", 200, "thanks")


def test_the_log_goes_on_with_the_next_page(face, monkeypatch):
    monkeypatch.setattr(delivery_rows, "PAGE", 2)
    first = face.call("GET", LOG, face.alice).json
    address = first["next"]
    assert address.startswith(f"https://grid.example{LOG}?cursor=msg_")
    second = face.call("GET", address.removeprefix("https://grid.example"), face.alice).json
    assert len({one["id"] for one in first["results"] + second["results"]}) == 3
    assert second["next"] is None
    refused = face.call("GET", f"{LOG}?cursor=nonsense", face.alice)
    assert (refused.status_code, refused.json["code"]) == (400, "bad_cursor")


def test_a_webhook_is_sent_again_on_demand(face):
    id = face.sent[0]
    answer = face.call("POST", f"/v1/deliveries/{id}/redeliver", face.alice)
    assert (answer.status_code, answer.json["id"], answer.json["state"]) == (202, id, "pending")
    face.deliver()
    assert face.sent[3:] == [id]


def test_a_secret_is_shown_and_changed(face):
    first = face.call("GET", SECRET, face.alice)
    assert list(first.json) == ["key"]
    assert first.json["key"].startswith("whsec_")
    assert first.headers["Cache-Control"] == "no-store"
    second = face.call("POST", f"{SECRET}/rotate", face.alice)
    assert second.status_code == 200
    assert face.call("GET", SECRET, face.alice).json == second.json
    assert face.call("GET", SECRET, face.bob).json not in (first.json, second.json)


def test_what_belongs_to_another_key_is_not_there(face):
    refused = face.call("GET", LOG, face.bob)
    assert (refused.status_code, refused.json["code"]) == (404, "prediction_not_found")
    refused = face.call("POST", f"/v1/deliveries/{face.sent[0]}/redeliver", face.bob)
    assert (refused.status_code, refused.json["code"]) == (404, "delivery_not_found")
    assert face.waiting == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", LOG), ("POST", "/v1/deliveries/msg_x/redeliver"), ("GET", SECRET), ("POST", f"{SECRET}/rotate")],
)
def test_a_key_with_the_scope_of_clients_is_needed(face, method, path):
    assert face.call(method, path).json["code"] == "missing_key"
    refused = face.call(method, path, face.worker)
    assert (refused.status_code, refused.json["error"]) == (403, "API key lacks the scope client.")
