"""The example miner: what it bets on, and that it does so once."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from grid_client.errors import GridError
from grid_client.odds_miner import LEAD, OddsMiner
from grid_client.odds_model import Correction

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FAVOURITES = Correction(0.0, 2.0)
"""Makes every favourite worth a bet."""


def game(**changes: Any) -> dict[str, Any]:
    return {
        "game_id": "nfl-17",
        "team_a": "Giants",
        "team_b": "Cowboys",
        "event_start_date": "2026-11-20T18:00:00.000Z",
        "active": True,
        "outcome": 3,
        "team_a_odds": "1.5000",
        "team_b_odds": "2.6000",
        "tie_odds": None,
        "can_tie": False,
        **changes,
    }


class Client:
    """A PredictionClient that keeps what it is given; `taken` are ids that its outbox knows with other bodies."""

    def __init__(self, *taken: str, **games: dict[str, Any]) -> None:
        self.games: Mapping[str, Mapping[str, Any]] = games
        self.submitted: list[dict[str, Any]] = []
        self.taken = set(taken)
        self.refusal: GridError | None = None

    def submit(self, prediction: Mapping[str, Any]) -> str:
        if self.refusal is not None:
            raise self.refusal
        if prediction["prediction_id"] in self.taken:
            raise GridError("conflict", "another body has this id")
        self.submitted.append(dict(prediction))
        return str(prediction["prediction_id"])


def miner(client: Client, correction: Correction = FAVOURITES, **options: Any) -> OddsMiner:
    return OddsMiner(client, correction, now=NOW.timestamp, **options)


def test_a_prediction_carries_the_odds_of_the_game_and_the_models_confidence() -> None:
    client = Client(**{"nfl-17": game()})

    assert miner(client).look() == ["odds-nfl-17"]

    (sent,) = client.submitted
    confidence = sent.pop("confidence_score")
    assert 0.73 < confidence < 0.78  # implied 0.634, squared odds
    assert sent == {
        "prediction_id": "odds-nfl-17",
        "game_id": "nfl-17",
        "team_a": "Giants",
        "team_b": "Cowboys",
        "wager": "10.00",
        "predicted_outcome": 0,
        "predicted_odds": "1.5000",
        "team_a_odds": "1.5000",
        "team_b_odds": "2.6000",
        "tie_odds": None,
        "model_name": "odds-implied-logistic",
    }


def test_each_game_gets_one_prediction() -> None:
    client = Client(a=game(), b=game(team_a="Jets"))
    one = miner(client)

    assert one.look() == ["odds-a", "odds-b"]
    assert one.look() == []
    client.games = {"a": game(team_a_odds="1.6000")}
    assert one.look() == []


def test_a_game_is_bet_on_once_its_odds_are_worth_it() -> None:
    client = Client(a=game(team_a_odds="1.9000", team_b_odds="1.9000"))
    one = miner(client)

    assert one.look() == []
    client.games = {"a": game()}
    assert one.look() == ["odds-a"]


def test_without_a_correction_nothing_is_worth_it_unless_a_loss_is_allowed() -> None:
    assert miner(Client(a=game()), Correction()).look() == []
    assert miner(Client(a=game()), Correction(), least_value=-0.2).look() == ["odds-a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"active": False},
        {"outcome": 0},
        {"event_start_date": (NOW + timedelta(seconds=LEAD - 1)).isoformat()},
        {"event_start_date": "2026-11-20T18:00:00"},
        {"event_start_date": "soon"},
        {"event_start_date": None},
        {"team_a_odds": "0.5"},
        {"team_a_odds": "nan"},
        {"team_a_odds": None},
        {"tie_odds": "x"},
    ],
    ids=str,
)
def test_a_game_that_cannot_be_bet_on_is_left_alone(changes: dict[str, Any]) -> None:
    client = Client(a=game(**changes), b=game())

    assert miner(client).look() == ["odds-b"]


def test_a_miner_that_starts_anew_bets_on_nothing_twice() -> None:
    client = Client("odds-a", a=game(), b=game())
    one = miner(client)

    assert one.look() == ["odds-b"]
    assert one.look() == []


def test_a_failed_submit_is_told_and_tried_again() -> None:
    client = Client(a=game())
    client.refusal = GridError("outbox_busy")
    one = miner(client)

    with pytest.raises(GridError, match="outbox_busy"):
        one.look()
    client.refusal = None
    assert one.look() == ["odds-a"]


def test_the_wager_is_whole_cents_of_the_budget() -> None:
    client = Client(a=game())
    miner(client, budget=Decimal("333.33"), fraction=Decimal("0.025")).look()

    assert client.submitted[0]["wager"] == "8.33"
    with pytest.raises(ValueError, match="a cent"):
        miner(client, budget=Decimal("0.50"))
