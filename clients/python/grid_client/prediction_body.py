"""The body of a prediction, as far as it can be judged without the node."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from grid_client.errors import GridError
from grid_client.receipts import PREDICTION_ID

REQUIRED = (
    "prediction_id",
    "game_id",
    "team_a",
    "team_b",
    "wager",
    "predicted_outcome",
    "team_a_odds",
    "team_b_odds",
)
"""Missing or null, no node stores it."""


def complete(prediction: object) -> dict[str, Any]:
    """A copy, with a fresh id where there is none. Raises GridError `invalid_prediction`."""
    if not isinstance(prediction, Mapping):
        raise GridError("invalid_prediction", "a prediction is an object")
    body = dict(prediction)
    if body.get("prediction_id") is None:
        body["prediction_id"] = _new_id(body.get("game_id"))
    missing = [name for name in REQUIRED if body.get(name) is None]
    if missing:
        raise GridError("invalid_prediction", f"a prediction needs {', '.join(missing)}", body={"fields": missing})
    prediction_id = body["prediction_id"]
    if not isinstance(prediction_id, str) or not PREDICTION_ID.fullmatch(prediction_id):
        raise GridError("invalid_prediction", "prediction_id must be 1 to 128 of the characters A-Z a-z 0-9 _.:-")
    return body


def _new_id(game_id: object) -> str:
    """An id that nobody else takes: the game for people to read, and 64 random bits."""
    prefix = re.sub(r"[^A-Za-z0-9_.:-]", "_", game_id)[:64] + "_" if isinstance(game_id, str) else ""
    return prefix + secrets.token_hex(8)
