"""Predictions and reports of made-up runs."""

from dataclasses import dataclass

import orjson

from grid_node.runners.prediction import EXTERNAL, NODE, STARTING, Prediction
from grid_node.runners.report import Report, read_report

NOW = 1_800_000_000.0
STARTED, COMPLETED = "2026-11-21T10:00:00.5+00:00", "2026-11-21T10:00:09.25+00:00"


def prediction(**members) -> Prediction:
    given = {
        "id": "p1", "owner": "client", "runner_owner": "runner", "model_id": "m-1", "model": "a/b", "version": "0" * 64,
        "source": NODE, "state": STARTING, "input": {"prompt": "a cat"}, "due_at": NOW, "created_at": NOW,
    }  # fmt: skip
    return Prediction(**{**given, **members})


def external(**members) -> Prediction:
    return prediction(**{"source": EXTERNAL, "model_id": None, "input": {}, **members})


def body(**members) -> bytes:
    return orjson.dumps({"id": "p1", **members})


def report(**members) -> Report:
    return read_report(body(**members))


@dataclass(frozen=True)
class OurFile:
    index: int | None
    owner: str = "runner"
