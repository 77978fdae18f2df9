"""What a TeamGame may be: each wrong member is named."""

from typing import Any

import pytest

from grid_node.errors import InvalidGame
from grid_node.predictions.game_changes import Change, compare
from grid_node.predictions.game_schemas import load_put

GAME = {
    "team_a": "Giants",
    "team_b": "Cowboys",
    "event_start_date": "2027-01-15T09:00:00Z",
    "team_a_odds": "1.80",
    "team_b_odds": "2.10",
}


def made(game_id: str = "g", /, **members: Any) -> Change:
    given, force = load_put(game_id, members)
    change = compare(None, given, now=0.0, epsilon=10, force=force)
    assert change is not None
    return change


def wrong(game_id: str = "g", /, **members: Any) -> dict[str, Any]:
    """What is wrong with a new game that has these members."""
    with pytest.raises(InvalidGame) as refused:
        made(game_id, **members)
    return dict(refused.value.data["fields"])


def test_a_new_game_takes_what_it_must_have_and_defaults_for_the_rest() -> None:
    row = made(**GAME).row
    assert (row["sport"], row["league"], row["active"], row["outcome"]) == ("", "", True, 3)
    assert (row["tie_odds"], row["can_tie"], row["create_date"], row["settled"]) == (None, False, 0.0, True)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"team_a": None}, "team_a"),
        ({"team_a": ""}, "team_a"),
        ({"team_a": " Giants"}, "team_a"),
        ({"team_a": "Gi\nants"}, "team_a"),
        ({"team_a": "G" * 201}, "team_a"),
        ({"team_a": 7}, "team_a"),
        ({"team_a": "Tie"}, "team_a"),
        ({"team_b": "2"}, "team_b"),
        ({"team_b": "giants"}, "team_b"),
        ({"team_a_odds": 1}, "team_a_odds"),
        ({"team_a_odds": "1.00004"}, "team_a_odds"),
        ({"team_a_odds": "1000.01"}, "team_a_odds"),
        ({"team_a_odds": "NaN"}, "team_a_odds"),
        ({"team_a_odds": float("nan")}, "team_a_odds"),
        ({"team_a_odds": float("inf")}, "team_a_odds"),
        ({"team_a_odds": True}, "team_a_odds"),
        ({"team_a_odds": None}, "team_a_odds"),
        ({"team_b_odds": {}}, "team_b_odds"),
        ({"tie_odds": "3.00"}, "tie_odds"),
        ({"event_start_date": "2027-01-15T09:00:00"}, "event_start_date"),
        ({"event_start_date": "soon"}, "event_start_date"),
        ({"event_start_date": 1_800_000_000}, "event_start_date"),
        ({"event_start_date": "0001-01-01T00:00:00+23:59"}, "event_start_date"),
        ({"event_start_date": "9999-12-31T23:59:59-23:59"}, "event_start_date"),
        ({"active": 1}, "active"),
        ({"active": "true"}, "active"),
        ({"outcome": 4}, "outcome"),
        ({"outcome": True}, "outcome"),
        ({"outcome": "Draw"}, "outcome"),
        ({"can_tie": "yes"}, "can_tie"),
        ({"sport": "s" * 101}, "sport"),
        ({"league": "\0"}, "league"),
        ({"game_id": "h"}, "game_id"),
        ({"odds": "2.0"}, "odds"),
    ],
)
def test_a_wrong_member_is_named(members: dict[str, Any], field: str) -> None:
    assert list(wrong(**{**GAME, **members})) == [field]


@pytest.mark.parametrize("game_id", ["", "a b", "a/b", "ü", "g\n", "g" * 65])
def test_a_game_id_has_its_alphabet(game_id: str) -> None:
    assert list(wrong(game_id, **GAME)) == ["game_id"]


@pytest.mark.parametrize("payload", [None, [], "game", 7])
def test_a_game_is_an_object(payload: object) -> None:
    with pytest.raises(InvalidGame):
        load_put("g", payload)


def test_a_new_game_must_have_teams_odds_and_a_start() -> None:
    missing = {"team_a", "team_b", "event_start_date", "team_a_odds", "team_b_odds"}
    assert wrong().keys() == missing


@pytest.mark.parametrize("force", [1, "true", None])
def test_force_is_a_boolean(force: object) -> None:
    assert list(wrong(**GAME, force=force)) == ["force"]
