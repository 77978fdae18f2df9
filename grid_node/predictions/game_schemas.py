"""TeamGame as it comes in: by PUT, from a file, and as a filter. What is wrong is named member by member."""

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from grid_node.clock import parse_rfc3339
from grid_node.errors import InvalidGame, InvalidMessage
from grid_node.fields import StrictBool, StrictInt, StrictText, no_control_characters
from grid_node.predictions.game_rows import DATES
from grid_node.predictions.messages import GAME_ID
from grid_node.predictions.money import odds
from grid_node.predictions.rules import UNFINISHED

OUTCOMES = {"TeamAWin": 0, "TeamBWin": 1, "Draw": 2, "Unfinished": UNFINISHED}
"""Names that an import takes for the codes."""
LATEST = 253_402_300_800
"""Seconds from 1970 to the year 10000, which RFC 3339 cannot write."""
GAME_ID_TEXT = "must be 1 to 64 letters, digits and _ . : -"
REQUIRED = "Missing data for required field."
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_NAIVE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)?")
_OUTCOME_WORDS = frozenset({"tie", "0", "1", "2"})


class Time(fields.Field[float]):
    """RFC 3339 with an offset, between 1970 and 9999; seconds since 1970, to the millisecond that the wire has."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        try:
            at = round(parse_rfc3339(value), 3)
        except (TypeError, ValueError):
            raise ValidationError("must be an RFC 3339 time with an offset") from None
        if not 0 <= at < LATEST:
            raise ValidationError("must lie between 1970 and 9999")
        return at


class Odds(fields.Field[int]):
    """Decimal odds as text or number; ten-thousandths."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        try:
            return odds(value)
        except ValueError:
            raise ValidationError("must be odds above 1 and not above 1000") from None


def _team_name(name: str) -> None:
    """A prediction may name a team as its outcome: no team is called as another outcome is."""
    if name != name.strip() or name.casefold() in _OUTCOME_WORDS:
        raise ValidationError("must not begin or end with space, nor be tie, 0, 1 or 2")


def _text(longest: int, *checks: Any, shortest: int = 0) -> StrictText:
    return StrictText(validate=[validate.Length(shortest, longest), no_control_characters, *checks])


class GameSchema(Schema):
    """Any members of a TeamGame; which of them must be there is a matter of the game that is there already."""

    class Meta:
        unknown = RAISE

    game_id = StrictText(validate=validate.Regexp(f"{GAME_ID.pattern}\\Z", error=GAME_ID_TEXT))
    team_a = _text(200, _team_name, shortest=1)
    team_b = _text(200, _team_name, shortest=1)
    sport = _text(100)
    league = _text(100)
    create_date = Time()
    last_update_date = Time()
    event_start_date = Time()
    active = StrictBool()
    outcome = StrictInt(validate=validate.Range(0, UNFINISHED))
    team_a_odds = Odds()
    team_b_odds = Odds()
    tie_odds = Odds(allow_none=True)
    can_tie = StrictBool()


class PutSchema(GameSchema):
    """The body of PUT /games/<id>."""

    force = StrictBool()


class FilterSchema(Schema):
    """What GET /games and the event `games` take. `active` is true or false, as JSON or as a word in a query."""

    class Meta:
        unknown = RAISE

    sport = StrictText(validate=validate.Length(0, 100))
    league = StrictText(validate=validate.Length(0, 100))
    active = StrictBool()


_GAME, _PUT, _FILTER = GameSchema(), PutSchema(), FilterSchema()


def load_put(game_id: object, payload: object) -> tuple[dict[str, Any], bool]:
    """Members of the game in the units of its row, and `force`. Raises InvalidGame with `fields`."""
    members = _load(_PUT, payload)
    if members.setdefault("game_id", game_id) != game_id:
        raise InvalidGame(fields={"game_id": ["must be the id that the request names"]})
    _load(_GAME, {"game_id": game_id})
    return members, members.pop("force", False)


def load_row(row: object, *, assume_utc: bool) -> dict[str, Any]:
    """Members of one game of a file in the units of its row. Raises InvalidGame with `fields`.

    Outcomes may be named, booleans be words or 0 and 1. With `assume_utc` a time without an offset is UTC.
    """
    members = _load(_GAME, _plain(row, assume_utc) if isinstance(row, dict) else row)
    if "game_id" not in members:
        raise InvalidGame(fields={"game_id": [REQUIRED]})
    return members


def load_filter(filters: object) -> dict[str, Any]:
    """Raises InvalidMessage with `fields`."""
    if isinstance(filters, dict) and isinstance(filters.get("active"), str):
        filters = {**filters, "active": _word(filters["active"])}
    try:
        return dict(_FILTER.load(filters))  # type: ignore[arg-type]  # what is no object is an error of the schema
    except ValidationError as error:
        raise InvalidMessage(fields=error.normalized_messages()) from None


def _load(schema: Schema, payload: object) -> dict[str, Any]:
    try:
        return dict(schema.load(payload))  # type: ignore[arg-type]  # what is no object is an error of the schema
    except ValidationError as error:
        raise InvalidGame(fields=error.normalized_messages()) from None


def _plain(row: dict[Any, Any], assume_utc: bool) -> dict[Any, Any]:
    plain = dict(row)
    for name in ("active", "can_tie"):
        if name in plain:
            plain[name] = _word(plain[name])
    if isinstance(plain.get("outcome"), str):
        plain["outcome"] = _outcome(plain["outcome"])
    if assume_utc:
        plain |= {name: _as_utc(plain[name]) for name in DATES if isinstance(plain.get(name), str)}
    return plain


def _word(value: Any) -> Any:
    """A boolean from its word; what is none stays, for the schema to refuse."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower(), value)
    return bool(value) if type(value) is int and value in (0, 1) else value


def _outcome(text: str) -> Any:
    return int(text) if re.fullmatch("[0-3]", text) else OUTCOMES.get(text, text)


def _as_utc(text: str) -> str:
    match = _NAIVE.fullmatch(text)
    return text if match is None else f"{match[1]}T{match[2]}{match[3] or ':00'}Z"
