"""A prediction as the node knows it: its row with everything parsed, and the statements that find and keep it."""

import json
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import bindparam, insert, select, update

from grid_node.database import Transaction
from grid_node.runners.ids import PREDICTION_ID
from grid_node.runners.tables import RunnerPrediction
from grid_node.statements import Prepared, prepared

QUEUED, DISPATCHING, STARTING, PROCESSING = "queued", "dispatching", "starting", "processing"
SUCCEEDED, FAILED, CANCELED = "succeeded", "failed", "canceled"
ORDER = {QUEUED: 0, DISPATCHING: 1, STARTING: 2, PROCESSING: 3, SUCCEEDED: 4, FAILED: 4, CANCELED: 4}
"""States never go back in this order."""
ENDED = frozenset({SUCCEEDED, FAILED, CANCELED})
WORKING = frozenset({DISPATCHING, STARTING, PROCESSING})
NODE, EXTERNAL = "node", "external"
START, OUTPUT, LOGS, COMPLETED = HOOK_EVENTS = ("start", "output", "logs", "completed")
"""What workers report, and what clients may have webhooks of: the words of Cog's `webhook_events_filter`."""
HIDDEN = "hidden"
"""Version of a prediction whose model is not known."""

predictions = RunnerPrediction.__table__
_JSON = ("input", "output", "metrics", "extra", "warnings", "times")
_HELD = prepared(select(predictions).where(predictions.c.number == bindparam("number")).with_for_update())
_BY_NUMBER = prepared(select(predictions).where(predictions.c.number == bindparam("number")))
_OF_RUNNER = prepared(
    select(predictions)
    .where(predictions.c.runner_owner == bindparam("runner_owner"), predictions.c.id == bindparam("id"))
    .with_for_update()
)
_OF_OWNER = prepared(
    select(predictions).where(predictions.c.owner == bindparam("owner"), predictions.c.id == bindparam("id"))
)
_BY_ID = prepared(
    select(predictions).where(predictions.c.id == bindparam("id"), predictions.c.source == NODE).with_for_update()
)
_INSERT = prepared(insert(predictions).returning(predictions.c.number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """See `tables.RunnerPrediction` for the members. Changed with `dataclasses.replace`, written by `Changes`."""

    number: int = 0
    id: str
    owner: str
    runner_owner: str
    model_id: str | None
    model: str
    version: str
    source: str
    state: str
    input: Any
    output: Any = None
    logs: str = ""
    logs_length: int = 0
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    times: dict[str, str] = field(default_factory=dict)
    seen_items: int = 0
    webhook: str | None = None
    webhook_events: str = ""
    seq: int = 0
    attempts: int = 0
    runner: str | None = None
    claimed_until: float | None = None
    dispatched_at: float | None = None
    reported_at: float | None = None
    cancel_at: float | None = None
    deadline: float | None = None
    due_at: float
    events: int = 0
    events_bytes: int = 0
    files: int = 0
    files_bytes: int = 0
    data_removed: bool = False
    created_at: float
    finished_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def stream(self) -> str:
        """Name of its stream of updates."""
        return f"run:{self.number}"

    @property
    def epoch(self) -> str:
        """What the offsets of its stream belong to."""
        return f"{int(self.created_at * 1000):x}"


_NAMES = tuple(member.name for member in fields(Prediction))


def of_row(row: Any) -> Prediction:
    values = {name: getattr(row, name) for name in _NAMES}
    for name in _JSON:
        values[name] = json.loads(values[name])
    return Prediction(**values)


def column(name: str, value: Any) -> Any:
    """A member as its column holds it."""
    return orjson.dumps(value).decode() if name in _JSON else value


def insert_prediction(tx: Transaction, prediction: Prediction) -> int:
    """The number of the new row."""
    members = asdict(prediction)
    del members["number"]
    values = {name: column(name, value) for name, value in members.items()}
    return int(tx.execute(_INSERT, values).scalar_one())


def write_changed(tx: Transaction, before: Prediction, after: Prediction) -> None:
    """Write the columns that differ."""
    changed = {name: getattr(after, name) for name in _NAMES if getattr(after, name) != getattr(before, name)}
    if changed:
        values = {_new(name): column(name, value) for name, value in changed.items()}
        tx.execute(_update_of(tuple(changed)), values | {"row": before.number})


def _new(name: str) -> str:
    return f"new_{name}"


@lru_cache(maxsize=256)
def _update_of(names: tuple[str, ...]) -> Prepared:
    """Few sets of columns change together, and each is written thousands of times."""
    values: dict[str, Any] = {name: bindparam(_new(name)) for name in names}
    return prepared(update(predictions).where(predictions.c.number == bindparam("row")).values(**values))


def held(tx: Transaction, number: int) -> Prediction | None:
    """The prediction, which nobody else changes until the transaction ends."""
    row = tx.execute(_HELD, {"number": number}).one_or_none()
    return None if row is None else of_row(row)


def by_number(tx: Transaction, number: int) -> Prediction | None:
    row = tx.execute(_BY_NUMBER, {"number": number}).one_or_none()
    return None if row is None else of_row(row)


def held_of_runner(tx: Transaction, runner_owner: str, id: str) -> Prediction | None:
    """What the workers of this owner call `id`, held."""
    row = tx.execute(_OF_RUNNER, {"runner_owner": runner_owner, "id": id}).one_or_none()
    return None if row is None else of_row(row)


def held_by_id(tx: Transaction, id: str) -> Prediction | None:
    """A prediction that this node made, by its id, held."""
    row = tx.execute(_BY_ID, {"id": id}).one_or_none()
    return None if row is None else of_row(row)


def of_owner(tx: Transaction, owner: str, id: str) -> Prediction | None:
    """The prediction that this key asked for; the newest, where two of its workers use one id."""
    if not PREDICTION_ID.fullmatch(id):  # NUL is an error to PostgreSQL
        return None
    rows = tx.execute(_OF_OWNER, {"owner": owner, "id": id}).all()
    return of_row(max(rows, key=lambda row: row.number)) if rows else None
