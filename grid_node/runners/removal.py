"""What of a prediction goes when its owner removes its data, or when it is old."""

from dataclasses import replace

from sqlalchemy import bindparam, delete, func, select, update

from grid_node.database import Transaction
from grid_node.runners.prediction import Prediction, predictions
from grid_node.runners.replays import requests
from grid_node.runners.tables import RunnerDelivery, RunnerDeliveryTry, RunnerEvent
from grid_node.statements import prepared
from grid_node.streams.tables import StreamEntry

REQUEST = "prediction"
"""Kind of the idempotency keys that stand for predictions."""

events = RunnerEvent.__table__
deliveries = RunnerDelivery.__table__
tries = RunnerDeliveryTry.__table__
entries = StreamEntry.__table__

_FORGET_EVENTS = prepared(delete(events).where(events.c.prediction == bindparam("row")))
_EMPTY_DELIVERIES = prepared(
    update(deliveries).where(deliveries.c.prediction == bindparam("row")).values(body="", claimed_until=None)
)
_DROP_DELIVERIES = prepared(
    update(deliveries)
    .where(deliveries.c.prediction == bindparam("row"), deliveries.c.state == "pending")
    .values(state="dropped")
)
_OF_ROW = select(deliveries.c.id).where(deliveries.c.prediction == bindparam("row"))
_FORGET_ANSWERS = prepared(update(tries).where(tries.c.delivery.in_(_OF_ROW)).values(answer=""))
_FORGET_TRIES = prepared(delete(tries).where(tries.c.delivery.in_(_OF_ROW)))
_FORGET_DELIVERIES = prepared(delete(deliveries).where(deliveries.c.prediction == bindparam("row")))
_FORGET_ROW = prepared(delete(predictions).where(predictions.c.number == bindparam("row")))
_FORGET_REQUESTS = prepared(
    delete(requests).where(
        requests.c.owner == bindparam("of"), requests.c.kind == bindparam("sort"), requests.c.made == bindparam("name")
    )
)
_FORGET_STREAM = prepared(
    delete(entries).where(
        entries.c.stream == bindparam("stream"), entries.c.id < select(func.max(entries.c.id)).scalar_subquery()
    )
)
"""The newest entry of all streams stays (see `Streams.purge`). Of an ended prediction that is its end, without data."""
_OLD = prepared(
    select(predictions.c.number)
    .where(predictions.c.finished_at < bindparam("before"))
    .order_by(predictions.c.finished_at)
    .limit(bindparam("limit"))
)


def without_data(prediction: Prediction) -> Prediction:
    """An ended prediction as it stays when its data were removed."""
    return replace(
        prediction,
        input={},
        output=None,
        logs="",
        logs_length=0,
        extra={},
        webhook=None,
        events=0,
        events_bytes=0,
        data_removed=True,
    )


def remove_records(tx: Transaction, prediction: Prediction) -> None:
    """Reports, updates and what webhooks said are gone; webhooks that wait are not sent any more."""
    row = {"row": prediction.number}
    tx.execute(_FORGET_EVENTS, row)
    tx.execute(_DROP_DELIVERIES, row)
    tx.execute(_EMPTY_DELIVERIES, row)
    tx.execute(_FORGET_ANSWERS, row)
    tx.execute(_FORGET_STREAM, {"stream": prediction.stream})


def remove_row(tx: Transaction, prediction: Prediction) -> None:
    """Nothing is left of it."""
    remove_records(tx, prediction)
    row = {"row": prediction.number}
    tx.execute(_FORGET_TRIES, row)
    tx.execute(_FORGET_DELIVERIES, row)
    tx.execute(_FORGET_REQUESTS, {"of": prediction.owner, "sort": REQUEST, "name": prediction.id})
    tx.execute(_FORGET_ROW, row)


def old(tx: Transaction, before: float, limit: int) -> list[int]:
    """Numbers of those that ended before then, oldest first."""
    return [row.number for row in tx.execute(_OLD, {"before": before, "limit": limit})]
