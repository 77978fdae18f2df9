"""What a miner sends, read into a Prediction. Shape alone: no signature, no clock, no rule.

Written out by hand: each message of each miner passes here, and a schema of marshmallow takes ten times as long.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from grid_node.canonical import canonical
from grid_node.clock import parse_rfc3339
from grid_node.errors import InvalidMessage, MissingData

PREDICTION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
GAME_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
TEAM_LENGTH = 200
MODEL_NAME_LENGTH = 128
DATE_LENGTH = 64
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
"""Missing or null, they are rule 1."""

_UUID4 = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")
_HOTKEY_LENGTH = 64
_MISSING = "Missing data for required field."
_NO_TEXT = "Not a string."


@dataclass(frozen=True, slots=True)
class Prediction:
    """One wager on a game. What a rule judges is the JSON value as it came, None where there was none."""

    prediction_id: str
    game_id: str
    team_a: str
    team_b: str
    wager: Any
    predicted_outcome: Any
    predicted_odds: Any
    team_a_odds: Any
    team_b_odds: Any
    tie_odds: Any
    confidence_score: Any
    model_name: str | None
    miner_uid: int | None
    body: str
    """The canonical JSON of all that was sent, members without a meaning too."""
    body_sha256: str
    """Lower hex, of the UTF-8 of `body`."""


def check_base(message: object, message_type: str) -> float:
    """When the message says that it was sent, in seconds since 1970.

    Raises InvalidMessage with `fields` unless it is an object with the base fields of this type. `receiver_hotkey`
    and `signature` are not looked at: without them a message is 401, which is not for its shape to say.
    """
    if not isinstance(message, dict):
        raise InvalidMessage(fields={"_schema": ["Not an object."]})
    wrong = _wrong(message, _BASE)
    if message.get("message_type") != message_type:
        wrong.setdefault("message_type", [f"Must be equal to {message_type}."])
    try:
        at = parse_rfc3339(message.get("timestamp"))  # type: ignore[arg-type]  # what is no text is a TypeError
    except (TypeError, ValueError):
        wrong["timestamp"] = ["Not a time with an offset." if "timestamp" in message else _MISSING]
    if wrong:
        raise InvalidMessage(fields=wrong)
    return at


def read_prediction(value: object) -> Prediction:
    """The member `prediction` of a message. Raises MissingData (rule 1), InvalidMessage; both say which `fields`."""
    if value is None:
        raise MissingData(fields=["prediction"])
    if not isinstance(value, dict):
        raise InvalidMessage(fields={"prediction": ["Not an object."]})
    get = value.get
    missing = [name for name in REQUIRED if get(name) is None]
    if missing:
        raise MissingData(fields=missing)
    wrong = _wrong(value, _MEMBERS)
    if wrong:
        raise InvalidMessage(fields={f"prediction.{name}": reasons for name, reasons in wrong.items()})
    body = _canonical(value)
    return Prediction(
        prediction_id=value["prediction_id"],
        game_id=value["game_id"],
        team_a=value["team_a"],
        team_b=value["team_b"],
        wager=value["wager"],
        predicted_outcome=value["predicted_outcome"],
        predicted_odds=get("predicted_odds"),
        team_a_odds=value["team_a_odds"],
        team_b_odds=value["team_b_odds"],
        tie_odds=get("tie_odds"),
        confidence_score=get("confidence_score"),
        model_name=get("model_name"),
        miner_uid=get("miner_uid"),
        body=body.decode(),
        body_sha256=sha256(body).hexdigest(),
    )


def _canonical(value: dict[str, Any]) -> bytes:
    try:
        return canonical(value)
    except ValueError as error:
        raise InvalidMessage(fields={"prediction": ["Has no canonical form."]}) from error


_Check = Callable[[Any], str | None]
"""What is wrong with a member, or None. An absent member is None."""


def _wrong(message: dict[str, Any], checks: Iterable[tuple[str, _Check]]) -> dict[str, list[str]]:
    """Reasons by member."""
    return {name: [reason] for name, check in checks if (reason := check(message.get(name))) is not None}


def _uuid4(value: Any) -> str | None:
    if not isinstance(value, str):
        return _MISSING if value is None else _NO_TEXT
    return None if _UUID4.fullmatch(value) else "Not a version 4 UUID."


def _hotkey(value: Any) -> str | None:
    if not isinstance(value, str):
        return _MISSING if value is None else _NO_TEXT
    return None if 0 < len(value) <= _HOTKEY_LENGTH else f"Length must be between 1 and {_HOTKEY_LENGTH}."


def _message_type(value: Any) -> str | None:
    if not isinstance(value, str):
        return _MISSING if value is None else _NO_TEXT
    return None


def _id(pattern: re.Pattern[str]) -> _Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return _NO_TEXT
        return None if pattern.fullmatch(value) else f"Does not match {pattern.pattern}."

    return check


def _text(most: int) -> _Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return None if value is None else _NO_TEXT
        if len(value) > most:
            return f"Longer than maximum length {most}."
        return "Must not contain NUL." if "\0" in value else None

    return check


def _uid(value: Any) -> str | None:
    return None if value is None or type(value) is int else "Not a whole number."


_BASE = (("message_id", _uuid4), ("sender_hotkey", _hotkey), ("message_type", _message_type))
_MEMBERS = (
    ("prediction_id", _id(PREDICTION_ID)),
    ("game_id", _id(GAME_ID)),
    ("team_a", _text(TEAM_LENGTH)),
    ("team_b", _text(TEAM_LENGTH)),
    ("model_name", _text(MODEL_NAME_LENGTH)),
    ("prediction_date", _text(DATE_LENGTH)),
    ("miner_uid", _uid),
)
