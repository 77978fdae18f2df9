"""`flask runners` as an operator meets it, on the machine of a node with models, predictions and webhooks."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from grid_node.identity.service import NewKey
from grid_node.runners.delivery_rows import deliveries
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction, held
from grid_node.runners.run_requests import new_run
from tests.command_line import CommandLine

SIGNATURE = {"inputs": [{"name": "prompt", "type": "str"}], "outputs": "str"}
HOOK = "http://hooks.example/services/T0KEN?sign=s3cret"
Told = list[dict[str, Any]]


class Operator(CommandLine):
    """Types commands on a node's machine, and lets owners and clients do their part there."""

    commands = ("runners",)

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, webhook_allow_private=True, **settings)
        self.running = self.grid.running
        self.owners = 0

    def owner(self, name: str) -> RunnerCaller:
        key = self.grid.keys.add(NewKey(self.grid.keys.generate(), name, 100, 60, ["runner", "client"]))
        return RunnerCaller(key.id, name)

    def model(self, owner: RunnerCaller, name: str = "painter") -> str:
        return str(self.running.registration.create(owner, {**SIGNATURE, "name": name})["id"])

    def run(self, caller: RunnerCaller, model: str, **more: Any) -> Prediction:
        body = {"input": {"prompt": "a cat"}, "version": f"{caller.account}/{model}", **more}
        return self.running.predictions.create(caller, new_run(body))

    def change(self, prediction: Prediction, **members: Any) -> None:
        def unit(tx: Any) -> None:
            before = held(tx, prediction.number)
            assert before is not None
            self.running.changes.apply(tx, before, replace(before, **members))

        self.grid.store.write(unit)

    def shown(self, caller: RunnerCaller, prediction: Prediction) -> str:
        return self.running.predictions.get(caller, prediction.id).state

    def told(self, *arguments: str) -> Told:
        """What a list says as JSON."""
        found: Told = json.loads(self.done(*arguments, "--json"))
        return found


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    made = Operator(tmp_path_factory.mktemp("operator"))
    yield made
    made.close()


@pytest.fixture
def anna(operator: Operator) -> RunnerCaller:
    """A new owner for each test."""
    operator.owners += 1
    return operator.owner(f"anna-{operator.owners}")


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_are_listed_newest_first_with_what_waits_for_them(operator: Operator, anna: RunnerCaller) -> None:
    first, second = operator.model(anna, "first"), operator.model(anna, "second")
    operator.run(anna, first)
    operator.change(operator.run(anna, first), state="processing")

    lines = operator.done("models", "--owner", anna.owner).splitlines()

    assert [line.split("|")[0] for line in lines] == [second, first]
    assert lines[1].split("|")[1:8] == [anna.account, "first", "ready", "private", "OFFLINE", "1", "1"]
    shown = operator.told("models", "--owner", anna.owner)
    assert [(one["id"], one["queued"], one["running"]) for one in shown] == [(second, 0, 0), (first, 1, 1)]
    assert operator.done("models", "--limit", "1").splitlines() == lines[:1]


def test_a_model_is_deleted_and_nothing_of_it_is_left(operator: Operator, anna: RunnerCaller) -> None:
    model = operator.model(anna)
    assert operator.done("delete-model", model) == f"Deleted model: {model}\n"
    assert operator.told("models", "--owner", anna.owner) == []
    assert operator.refused("delete-model", model) == "Model not found."


def test_a_busy_model_is_deleted_by_force_alone(operator: Operator, anna: RunnerCaller) -> None:
    model = operator.model(anna)
    waiting = operator.run(anna, model)
    assert operator.refused("delete-model", model) == "The model has active predictions."
    operator.done("delete-model", model, "--force")
    assert operator.shown(anna, waiting) == "canceled"


# --- predictions ------------------------------------------------------------------------------------------------------


def test_predictions_are_listed_newest_first(operator: Operator, anna: RunnerCaller) -> None:
    model = operator.model(anna)
    first, second = operator.run(anna, model), operator.run(anna, model)
    operator.change(first, state="failed", error="out of |memory|\n")

    lines = operator.done("predictions", "--model", model).splitlines()

    assert [line.split("|")[0] for line in lines] == [second.id, first.id]
    assert lines[0].split("|")[1:6] == [f"{anna.account}/painter", "queued", "node", anna.owner, "0"]
    assert lines[0].endswith("|-|-")
    assert lines[1].endswith("|out of \\u007cmemory\\u007c\\u000a")
    assert [one["id"] for one in operator.told("predictions", "--owner", anna.owner, "--state", "failed")] == [first.id]
    assert operator.flask("predictions", "--state", "done").exit_code == 2


def test_predictions_in_json_say_which_worker_has_them_and_when_they_are_looked_at(
    operator: Operator, anna: RunnerCaller
) -> None:
    model = operator.model(anna)
    ended, running = operator.run(anna, model), operator.run(anna, model)
    operator.change(ended, state="failed")
    operator.change(running, state="processing", runner="1" * 32, reported_at=1800000000.0, due_at=1800000060.0)

    shown = operator.told("predictions", "--model", model)

    assert [(one["runner"], one["reported_at"], one["due_at"]) for one in shown] == [
        ("1" * 32, "2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z"),
        (None, None, None),
    ]


def test_a_prediction_that_waits_is_cancelled_at_once(operator: Operator, anna: RunnerCaller) -> None:
    waiting = operator.run(anna, operator.model(anna))
    assert operator.done("cancel", waiting.id) == f"Canceled prediction: {waiting.id}\n"
    assert operator.shown(anna, waiting) == "canceled"
    assert operator.refused("cancel", waiting.id) == "The prediction has ended already: canceled"


def test_a_prediction_that_runs_is_cancelled_through_its_worker(operator: Operator, anna: RunnerCaller) -> None:
    begun = operator.run(anna, operator.model(anna))
    operator.change(begun, state="processing", runner="a" * 32)
    assert operator.done("cancel", begun.id) == f"Told to cancel: {begun.id}\n"
    assert operator.running.predictions.get(anna, begun.id).cancel_at is not None


def test_one_id_of_two_keys_needs_the_name_of_one(operator: Operator, anna: RunnerCaller) -> None:
    bert = operator.owner(f"bert-of-{anna.account}")
    for caller in (anna, bert):
        operator.running.webhooks.by_key(caller, json.dumps({"id": anna.owner, "status": "processing"}).encode())
    assert operator.refused("cancel", anna.owner) == "More than one key used this id: name one with --owner"
    assert operator.done("cancel", anna.owner, "--owner", bert.owner) == f"Canceled prediction: {anna.owner}\n"
    states = {one["key"]: one["state"] for one in operator.told("predictions") if one["id"] == anna.owner}
    assert states == {anna.owner: "processing", bert.owner: "canceled"}


@pytest.mark.parametrize("id", ["nothing", "", "a\nb"])
def test_what_is_not_there_cannot_be_cancelled(operator: Operator, id: str) -> None:
    assert operator.refused("cancel", id) == "Prediction not found."


# --- webhooks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def delivery(operator: Operator, anna: RunnerCaller) -> str:
    """A webhook that could not be delivered."""
    waiting = operator.run(anna, operator.model(anna), webhook=HOOK, webhook_events_filter=["completed"])
    operator.running.predictions.cancel(anna, waiting.id)
    operator.grid.store.write(
        lambda tx: tx.execute(update(deliveries).where(deliveries.c.owner == anna.owner).values(state="failed"))
    )
    [owed] = operator.told("deliveries", "--owner", anna.owner)
    assert (owed["prediction"], owed["event"], owed["due_at"]) == (waiting.id, "completed", None)
    return str(owed["id"])


def test_a_webhook_is_listed_without_what_is_secret_in_its_address(
    operator: Operator, anna: RunnerCaller, delivery: str
) -> None:
    [line] = operator.done("deliveries", "--state", "failed", "--owner", anna.owner).splitlines()
    assert line.split("|")[0] == delivery
    assert line.split("|")[2:7] == ["completed", "failed", "0", "http://hooks.example", anna.owner]
    everything = line + operator.done("deliveries", "--json")
    assert not any(word in everything for word in ("s3cret", "T0KEN"))


def test_a_webhook_that_failed_is_sent_again(operator: Operator, anna: RunnerCaller, delivery: str) -> None:
    assert operator.done("redeliver", delivery) == f"Will be sent again: {delivery}\n"
    [owed] = operator.told("deliveries", "--owner", anna.owner, "--state", "pending")
    assert owed["id"] == delivery
    assert owed["due_at"] is not None
    assert operator.refused("redeliver", "msg_nothing") == "Delivery not found."


# --- how commands fail ------------------------------------------------------------------------------------------------


COMMANDS = [["models"], ["delete-model", "m"], ["predictions"], ["cancel", "p"], ["deliveries"], ["redeliver", "d"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_without_a_database_a_command_says_what_to_do(tmp_path: Path, command: list[str]) -> None:
    operator = Operator(tmp_path, database_url=f"sqlite:///{tmp_path}/empty.db")
    result = operator.flask(*command)
    operator.close()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "`flask db upgrade`" in result.stderr
