"""What becomes of a prediction: rules 3 to 12, in their order, the first failure wins. Pure.

Rule 1 is the shape of the message (`messages.read_prediction`), rule 2 the id (the service).
"""

from dataclasses import dataclass
from typing import Any

from grid_node.canonical import canonical
from grid_node.predictions.messages import Prediction
from grid_node.predictions.money import TOLERANCE, cents, money_text, odds, odds_text

UNFINISHED = 3
"""The outcome of a game that is not over; 0 is team A, 1 team B, 2 a draw."""
DRAW = 2
ECHO_LENGTH = 64
"""Characters of a miner's own value that a message repeats."""
_NUMBERS = (0, 1, 2, "0", "1", "2")
_NUMBERS_WITHOUT_TIE = (0, 1, "0", "1")

ACCEPTED = "successful"
VERDICTS: dict[str, tuple[str, ...]] = {
    ACCEPTED: ("Prediction accepted",),
    "invalid_wager": (
        "Invalid wager value",
        "Prediction with non-positive wager - nice try",
        "Wager is below the minimum of ${minimum}",
    ),
    "daily_limit_exceeded": ("Would exceed daily limit (Current: ${current}, Attempted: ${attempted})",),
    "game_not_found": ("Game not found in validator game_data",),
    "game_started": ("Game has already started",),
    "team_mismatch": ("Submitted team names do not match game data",),
    "invalid_odds": ("Invalid odds value", "No odds available for the predicted outcome"),
    "odds_mismatch": (
        "Submitted team odds do not match current game odds",
        "Submitted tie odds do not match current game odds",
        "Submitted tie odds for game that doesn't support ties",
        "Predicted odds {sent} do not match current game odds {current}",
    ),
    "invalid_outcome": ("Invalid numeric predicted_outcome: {value}", "Invalid predicted_outcome: {value}"),
    "missing_odds": ("Missing predicted_odds",),
    "invalid_confidence": (
        "Invalid confidence score format",
        "If provided, confidence score must be between 0 and 1",
    ),
}
"""Every verdict's code and its texts, in the order of the rules."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the node offers on a game. Odds are in ten-thousandths; `tie_odds` is None if there is no draw."""

    game_id: str
    team_a: str
    team_b: str
    event_start_date: float
    active: bool
    outcome: int
    team_a_odds: int
    team_b_odds: int
    tie_odds: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Whole cents."""

    min_wager: int
    daily_limit: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wager` (cents), `outcome` and `accepted_odds` (ten-thousandths, the node's) are None in a rejection."""

    accepted: bool
    code: str
    message: str
    wager: int | None = None
    outcome: int | None = None
    accepted_odds: int | None = None


class _Rejected(Exception):
    """The first rule that failed; never leaves this module."""

    def __init__(self, code: str, which: int = 0, **values: str) -> None:
        self.verdict = Verdict(False, code, VERDICTS[code][which].format(**values))
        super().__init__(self.verdict.message)


def judge(prediction: Prediction, offer: Offer | None, wagered: int, limits: Limits, received_at: float) -> Verdict:
    """The verdict.

    `offer` is the game's, None if it is unknown. `wagered` is the cents of the miner's accepted predictions in the
    UTC day of `received_at`, which is the node's time in seconds since 1970.
    """
    try:
        wager = _wager(prediction.wager, limits)
        if wagered + wager > limits.daily_limit:
            raise _Rejected("daily_limit_exceeded", current=money_text(wagered), attempted=money_text(wager))
        offer = _open(offer, received_at)
        if (prediction.team_a, prediction.team_b) != (offer.team_a, offer.team_b):
            raise _Rejected("team_mismatch")
        _check_offer(prediction, offer)
        outcome = _outcome(prediction.predicted_outcome, offer)
        accepted_odds = _accepted_odds(prediction.predicted_odds, outcome, offer)
        _check_confidence(prediction.confidence_score)
    except _Rejected as rejected:
        return rejected.verdict
    return Verdict(True, ACCEPTED, VERDICTS[ACCEPTED][0], wager, outcome, accepted_odds)


def _wager(value: Any, limits: Limits) -> int:
    """Rule 3: cents."""
    try:
        wager = cents(value)
    except ValueError:
        raise _Rejected("invalid_wager", 0) from None
    if wager <= 0:
        raise _Rejected("invalid_wager", 1)
    if wager < limits.min_wager:
        raise _Rejected("invalid_wager", 2, minimum=money_text(limits.min_wager))
    return wager


def _open(offer: Offer | None, received_at: float) -> Offer:
    """Rules 5 and 6."""
    if offer is None or not offer.active:
        raise _Rejected("game_not_found")
    if received_at >= offer.event_start_date or offer.outcome != UNFINISHED:
        raise _Rejected("game_started")
    return offer


def _check_offer(prediction: Prediction, offer: Offer) -> None:
    """Rules 8 and 9. All odds that were sent are read first. A game's tie odds left out are tie odds that differ."""
    team_a, team_b = _odds(prediction.team_a_odds), _odds(prediction.team_b_odds)
    tie = None if prediction.tie_odds is None else _odds(prediction.tie_odds)
    if not (_close(team_a, offer.team_a_odds) and _close(team_b, offer.team_b_odds)):
        raise _Rejected("odds_mismatch", 0)
    if offer.tie_odds is None:
        if tie is not None:
            raise _Rejected("odds_mismatch", 2)
    elif tie is None or not _close(tie, offer.tie_odds):
        raise _Rejected("odds_mismatch", 1)


def _outcome(value: Any, offer: Offer) -> int:
    """Rule 10: 0, 1 or 2. 1.0 is 1, for both have one canonical form."""
    if isinstance(value, str) and not _is_digits(value):
        return _named_outcome(value, offer)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Rejected("invalid_outcome", 1, value=_echo(value))
    possible = _NUMBERS if offer.tie_odds is not None else _NUMBERS_WITHOUT_TIE
    if value not in possible:
        raise _Rejected("invalid_outcome", 0, value=_echo(value))
    return int(value)


def _named_outcome(name: str, offer: Offer) -> int:
    if name == offer.team_a:
        return 0
    if name == offer.team_b:
        return 1
    if name.lower() == "tie":
        return DRAW
    raise _Rejected("invalid_outcome", 1, value=_echo(name))


def _accepted_odds(value: Any, outcome: int, offer: Offer) -> int:
    """Rule 11: the node's odds of this outcome, in ten-thousandths."""
    if value is None:
        raise _Rejected("missing_odds")
    current = (offer.team_a_odds, offer.team_b_odds, offer.tie_odds)[outcome]
    if current is None:
        raise _Rejected("invalid_odds", 1)
    sent = _odds(value)
    if not _close(sent, current):
        raise _Rejected("odds_mismatch", 3, sent=odds_text(sent), current=odds_text(current))
    return current


def _check_confidence(value: Any) -> None:
    """Rule 12."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Rejected("invalid_confidence", 0)
    if not 0 <= value <= 1:
        raise _Rejected("invalid_confidence", 1)


def _odds(value: Any) -> int:
    try:
        return odds(value)
    except ValueError:
        raise _Rejected("invalid_odds", 0) from None


def _close(sent: int, stored: int) -> bool:
    return abs(sent - stored) <= TOLERANCE


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _echo(value: Any) -> str:
    """What the miner sent, in short."""
    text = value if isinstance(value, str) else canonical(value).decode()
    return text[:ECHO_LENGTH]
