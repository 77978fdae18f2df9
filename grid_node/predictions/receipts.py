"""ConfirmationMessages: the node's signed word on what it did with a prediction."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from grid_node.clock import rfc3339
from grid_node.predictions.messages import Prediction
from grid_node.predictions.money import money_text, odds_text
from grid_node.predictions.ports import Miner, Signer
from grid_node.predictions.rules import Offer, Verdict

REJECTED_STATUS = 422
_SECONDS_OF_A_DAY = 86400


class Day(NamedTuple):
    """What a miner has wagered in one UTC day, this prediction included if it was accepted."""

    utc_day: str
    wagered: int
    """Cents of accepted predictions."""
    accepted: int
    """Their number."""


def utc_day(at: float) -> str:
    """`2026-11-20` of seconds since 1970."""
    return _day(int(at // _SECONDS_OF_A_DAY))


@lru_cache(maxsize=16)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * _SECONDS_OF_A_DAY, UTC).date().isoformat()


def confirmation(
    signer: Signer,
    miner: Miner,
    prediction: Prediction,
    verdict: Verdict,
    *,
    seq: int,
    received_at: float,
    day: Day,
    daily_limit: int,
    offer: Offer | None,
    position: tuple[str, int] | None,
) -> dict[str, Any]:
    """The signed receipt. `seq` counts this miner's receipts; `daily_limit` is in cents.

    `offer` and `position` (epoch and seq of the update log) are what the prediction was judged by: a miner whose odds
    did not match finds them in `current`. There are no floats in it.
    """
    message = signer.base_fields("confirmation")
    message |= {
        "receiver_hotkey": miner.address,
        "prediction_id": prediction.prediction_id,
        "success": verdict.accepted,
        "message": verdict.message,
        "code": verdict.code,
        "body_sha256": prediction.body_sha256,
        "received_at": rfc3339(received_at),
        "seq": seq,
        "miner_stats": _stats(day, daily_limit),
    }
    if verdict.accepted_odds is not None:
        message["accepted_odds"] = odds_text(verdict.accepted_odds)
    else:
        message |= {"error": verdict.message, "status": REJECTED_STATUS}
    if verdict.code == "odds_mismatch" and offer is not None and position is not None:
        message["current"] = _current(offer, position)
    return signer.signed(message)


def _stats(day: Day, daily_limit: int) -> Mapping[str, Any]:
    return {
        "utc_day": day.utc_day,
        "wagered": money_text(day.wagered),
        "remaining": money_text(max(0, daily_limit - day.wagered)),
        "accepted": day.accepted,
    }


def _current(offer: Offer, position: tuple[str, int]) -> Mapping[str, Any]:
    epoch, seq = position
    return {
        "team_a_odds": odds_text(offer.team_a_odds),
        "team_b_odds": odds_text(offer.team_b_odds),
        "tie_odds": None if offer.tie_odds is None else odds_text(offer.tie_odds),
        "epoch": epoch,
        "seq": seq,
    }
