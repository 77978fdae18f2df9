"""`flask runners`: registered models, the predictions on them and the webhooks that are owed, of all owners."""

import json
from typing import Any
from urllib.parse import urlsplit

import click
from flask.cli import AppGroup
from sqlalchemy import Select, func, select

from grid_node.cli.answers import answers, fail
from grid_node.clock import rfc3339, rfc3339_or_none
from grid_node.database import Transaction
from grid_node.errors import DeliveryNotFound, ModelNotFound, RunnerPredictionNotFound
from grid_node.runners import agents
from grid_node.runners import delivery_rows as owed
from grid_node.runners.models import LIVING, model_by_id, models
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import ENDED, ORDER, QUEUED, predictions
from grid_node.runners.tables import RunnerDelivery
from grid_node.services import Running, services

runners_cli = AppGroup("runners", help="Models that run elsewhere: models, predictions, cancel, webhooks.")

deliveries = RunnerDelivery.__table__
DELIVERY_STATES = (owed.PENDING, owed.DELIVERED, owed.FAILED, owed.DROPPED)
Line = dict[str, Any]
_TOLD = [predictions.c[name] for name in (
    "id", "model", "state", "source", "owner", "attempts", "created_at", "finished_at", "error",
    "runner", "reported_at", "due_at",
)]  # fmt: skip
"""Columns of predictions that are printed: others may hold megabytes."""

as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
up_to = click.option("--limit", default=50, type=click.IntRange(1, 1000), help="How many at most.")


# --- models --------------------------------------------------------------------------------------------------------


@runners_cli.command("models")
@click.option("--owner", metavar="KEY-ID", help="Only models of the API key with this id.")
@up_to
@as_json
def list_models(owner: str | None, limit: int, as_json: bool) -> None:
    """Print id|account|name|state|visibility|runner|queued|running|created_at, newest first.

    `runner` is what the best of the model's workers says, OFFLINE where none is connected.
    """
    query = select(models).order_by(models.c.created_at.desc(), models.c.id).limit(limit)
    if owner is not None:
        query = query.where(models.c.owner == owner)
    with answers():
        lines = services().store.read(lambda tx: [_model_line(tx, row) for row in tx.execute(query).all()])
    _print(lines, as_json)


@runners_cli.command("delete-model")
@click.argument("model_id")
@click.option("--force", is_flag=True, help="Cancel what still waits or runs.")
def delete_model(model_id: str, force: bool) -> None:
    """Remove a model and its tunnel, as its owner could; its predictions stay."""
    with answers():
        row = services().store.read(lambda tx: model_by_id(tx, model_id))
        if row is None or row.state not in LIVING:
            raise ModelNotFound()
        running().registration.delete(RunnerCaller(row.owner, row.account), model_id, force)
    click.echo(f"Deleted model: {model_id}")


def _model_line(tx: Transaction, row: Any) -> Line:
    open_ones = select(predictions.c.state, func.count()).where(
        predictions.c.model_id == row.id, predictions.c.finished_at.is_(None)
    )
    counts: dict[str, int] = dict(tx.execute(open_ones.group_by(predictions.c.state)).all())
    queued = counts.pop(QUEUED, 0)
    return {
        "id": row.id,
        "account": row.account,
        "name": row.name,
        "state": row.state,
        "visibility": row.visibility,
        "runner": agents.standing(tx, row.id)["status"],
        "queued": queued,
        "running": sum(counts.values()),
        "created_at": rfc3339(row.created_at),
    }


# --- predictions ---------------------------------------------------------------------------------------------------


@runners_cli.command("predictions")
@click.option("--model", metavar="MODEL-ID", help="Only predictions on this model.")
@click.option("--owner", metavar="KEY-ID", help="Only predictions of the API key with this id.")
@click.option("--state", type=click.Choice(list(ORDER)), help="Only predictions in this state.")
@up_to
@as_json
def list_predictions(model: str | None, owner: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """Print id|model|state|source|key|attempts|created_at|finished_at|error, newest first; - where there is none.

    In JSON also the worker that has or had it, its last report, and when the node looks at it next.
    """
    query = select(*_TOLD).order_by(predictions.c.number.desc()).limit(limit)
    for column, wanted in ((predictions.c.model_id, model), (predictions.c.owner, owner), (predictions.c.state, state)):
        if wanted is not None:
            query = query.where(column == wanted)
    with answers():
        found = _rows(query)
    _print([_prediction_line(row) | (_watch_line(row) if as_json else {}) for row in found], as_json)


@runners_cli.command("cancel")
@click.argument("prediction_id")
@click.option("--owner", metavar="KEY-ID", help="The API key that asked for it, where several used one id.")
def cancel(prediction_id: str, owner: str | None) -> None:
    """End a prediction: one that waits at once, one that runs as soon as its worker has heard of it."""
    with answers():
        row = _prediction(prediction_id, owner)
        if row.state in ENDED:
            raise fail(f"The prediction has ended already: {row.state}", 1)
        after = running().predictions.cancel(RunnerCaller(row.owner, ""), row.id)
    click.echo(f"{'Canceled prediction' if after.ended else 'Told to cancel'}: {prediction_id}")


def _prediction(id: str, owner: str | None) -> Any:
    """Raises RunnerPredictionNotFound; ends the command where two are meant."""
    query = select(predictions).where(predictions.c.id == id).order_by(predictions.c.number.desc()).limit(2)
    found = _rows(query if owner is None else query.where(predictions.c.owner == owner))
    if not found:
        raise RunnerPredictionNotFound()
    if len({row.owner for row in found}) > 1:
        raise fail("More than one key used this id: name one with --owner", 1)
    return found[0]


def _prediction_line(row: Any) -> Line:
    return {
        "id": row.id,
        "model": row.model,
        "state": row.state,
        "source": row.source,
        "key": row.owner,
        "attempts": row.attempts,
        "created_at": rfc3339(row.created_at),
        "finished_at": rfc3339_or_none(row.finished_at),
        "error": row.error,
    }


def _watch_line(row: Any) -> Line:
    return {
        "runner": row.runner,
        "reported_at": rfc3339_or_none(row.reported_at),
        "due_at": rfc3339(row.due_at) if row.finished_at is None else None,
    }


# --- webhooks ------------------------------------------------------------------------------------------------------


@runners_cli.command("deliveries")
@click.option("--state", type=click.Choice(DELIVERY_STATES), help="Only deliveries in this state.")
@click.option("--owner", metavar="KEY-ID", help="Only deliveries to the API key with this id.")
@up_to
@as_json
def list_deliveries(state: str | None, owner: str | None, limit: int, as_json: bool) -> None:
    """Print id|prediction|event|state|attempts|to|key|created_at|due_at, newest first.

    `to` is the receiver without path and query, for these may be secret. `due_at` is the next try of one that waits.
    """
    here = deliveries.outerjoin(predictions, predictions.c.number == deliveries.c.prediction)
    query = select(deliveries, predictions.c.id.label("of")).select_from(here)
    query = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id).limit(limit)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if owner is not None:
        query = query.where(deliveries.c.owner == owner)
    with answers():
        found = _rows(query)
    _print([_delivery_line(row) for row in found], as_json)


@runners_cli.command("redeliver")
@click.argument("delivery_id")
def redeliver(delivery_id: str) -> None:
    """Let the node send a webhook once more, whatever became of it; under its webhook-id."""
    with answers():
        row = services().store.read(lambda tx: tx.execute(owed.FIND, {"id": delivery_id}).one_or_none())
        if row is None:
            raise DeliveryNotFound()
        running().deliveries.redeliver(RunnerCaller(row.owner, ""), delivery_id)
    click.echo(f"Will be sent again: {delivery_id}")


def _delivery_line(row: Any) -> Line:
    return {
        "id": row.id,
        "prediction": row.of,
        "event": row.event,
        "state": row.state,
        "attempts": row.attempts,
        "to": _origin(row.url),
        "key": row.owner,
        "created_at": rfc3339(row.created_at),
        "due_at": rfc3339(row.due_at) if row.state == owed.PENDING else None,
    }


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


# --- all of them ---------------------------------------------------------------------------------------------------


def running() -> Running:
    return services().running


def _rows(query: Select[Any]) -> list[Any]:
    return services().store.read(lambda tx: list(tx.execute(query).all()))


def _print(lines: list[Line], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(lines))
        return
    for line in lines:
        click.echo("|".join("-" if value is None else _plain(str(value)) for value in line.values()))


def _plain(text: str) -> str:
    """Workers choose ids and errors: nothing of them steers a terminal or begins a line or a column."""
    return "".join(char if char.isprintable() and char != "|" else f"\\u{ord(char):04x}" for char in text)
