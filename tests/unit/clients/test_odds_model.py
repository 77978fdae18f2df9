"""The example miner's model: what odds imply, and what past games correct."""

import math
from pathlib import Path

import pytest
from grid_client import made_up_games, odds_model
from grid_client.odds_model import BadPastGames, Correction, PastGame, choose, fit, implied, probabilities

NO_CORRECTION = Correction()


def test_the_margin_of_the_bookmaker_is_taken_out() -> None:
    assert implied([1.8, 1.8]) == [0.5, 0.5]
    assert math.fsum(implied([1.5, 4.2, 6.5])) == pytest.approx(1.0)
    assert implied([2.0, 4.0]) == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("odds", [[], [1.0, 2.0], [0.5, 2.0], [math.nan, 2.0], [math.inf, 2.0], [-3.0, 2.0]])
def test_odds_that_are_none_are_refused(odds: list[float]) -> None:
    with pytest.raises(ValueError):
        implied(odds)


@pytest.mark.parametrize("tie_odds", [None, 3.4])
@pytest.mark.parametrize("correction", [NO_CORRECTION, Correction(0.4, 1.3), Correction(-5.0, 0.0)])
def test_probabilities_add_up_to_one(tie_odds: float | None, correction: Correction) -> None:
    chances = probabilities(1.7, 5.2, tie_odds, correction)

    assert math.fsum(chances) == pytest.approx(1.0)
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert (chances[2] == 0.0) is (tie_odds is None)


def test_without_a_correction_the_probabilities_are_the_implied_ones() -> None:
    assert probabilities(1.8, 4.5, 3.6, NO_CORRECTION) == pytest.approx(implied([1.8, 4.5, 3.6]))


def test_a_correction_moves_the_teams_and_leaves_the_draw() -> None:
    plain = probabilities(2.0, 3.6, 3.4, NO_CORRECTION)
    moved = probabilities(2.0, 3.6, 3.4, Correction(0.5, 1.0))

    assert moved[0] > plain[0]
    assert moved[1] < plain[1]
    assert moved[2] == pytest.approx(plain[2])


def test_the_fit_finds_the_parameters_that_made_the_games() -> None:
    """Standard errors for so many games: 0.016 of a, 0.02 of b; four of them are allowed."""
    found = fit(made_up_games.made_up_games(20_000, Correction(a=-0.4, b=0.7), seed=5))

    assert found.a == pytest.approx(-0.4, abs=0.065)
    assert found.b == pytest.approx(0.7, abs=0.08)


def test_a_fit_does_not_depend_on_which_team_is_named_first() -> None:
    games = list(made_up_games.made_up_games(400, Correction(a=0.5, b=1.2), seed=7))
    turned = [PastGame(one.team_b_odds, one.team_a_odds, one.tie_odds, (1, 0, 2)[one.outcome]) for one in games]

    here, there = fit(games), fit(turned)
    assert there.a == pytest.approx(-here.a, abs=1e-6)
    assert there.b == pytest.approx(here.b, abs=1e-6)


def test_no_games_correct_nothing() -> None:
    assert fit([]) == NO_CORRECTION
    assert fit([PastGame(2.0, 3.5, 3.1, odds_model.DRAW)] * 10) == NO_CORRECTION


@pytest.mark.parametrize(
    "games",
    [
        [PastGame(1.9, 1.9, None, 0)],
        [PastGame(1.9, 1.9, None, 0)] * 5000,
        [PastGame(1.01, 1000.0, None, 0), PastGame(1000.0, 1.01, None, 1)] * 500,
        [PastGame(1.01, 1000.0, None, 1), PastGame(1000.0, 1.01, None, 0)] * 500,
        [PastGame(1.01, 1000.0, None, 1)] * 1000,
    ],
    ids=["one game", "always won at even odds", "favourites always win", "favourites never win", "one game over again"],
)
def test_games_that_leave_a_parameter_open_give_a_finite_fit(games: list[PastGame]) -> None:
    found = fit(games)

    assert math.isfinite(found.a)
    assert math.isfinite(found.b)
    assert 0.0 < found(0.5) < 1.0
    assert found != NO_CORRECTION


def test_one_game_says_little() -> None:
    assert fit([PastGame(1.9, 1.9, None, 0)]).a < 0.2


def test_a_probability_stays_one_at_the_ends() -> None:
    for certain in (0.0, 1.0, 5e-324, 1.0 - 1e-16):
        assert 0.0 <= Correction(3.0, 40.0)(certain) <= 1.0


def test_the_best_value_is_chosen_and_not_the_likeliest_outcome() -> None:
    game = {"team_a_odds": "1.5000", "team_b_odds": "3.2000", "tie_odds": None}

    favourite = choose(game, Correction(0.0, 1.5))
    underdog = choose(game, Correction(0.0, 0.2))

    assert favourite.outcome == odds_model.TEAM_A
    assert (underdog.outcome, underdog.odds) == (odds_model.TEAM_B, 3.2)
    assert 0.3 < underdog.probability < 0.5
    assert underdog.value == pytest.approx(underdog.probability * 3.2 - 1.0)


def test_a_draw_is_no_better_than_the_better_team() -> None:
    """Its probability is the implied one, so a bet on it loses the margin, and one of the teams loses no more."""
    game = {"team_a_odds": "2.0000", "team_b_odds": "4.0000", "tie_odds": "11.0000"}

    for a in (-1.0, -0.01, 0.01, 1.0):
        assert choose(game, Correction(a, 1.0)).outcome == (odds_model.TEAM_A if a > 0 else odds_model.TEAM_B)


def test_without_a_correction_no_bet_is_worth_its_wager() -> None:
    """The margin is what every bet then loses on average."""
    game = {"team_a_odds": "1.80", "team_b_odds": "2.05", "tie_odds": None}

    assert choose(game, NO_CORRECTION).value == pytest.approx(1.0 / (1 / 1.8 + 1 / 2.05) - 1.0)


def test_the_games_of_the_package_are_the_ones_that_their_program_makes_up() -> None:
    file = Path(odds_model.__file__).with_name("data") / "past_games.csv"

    assert file.read_text() == made_up_games.as_csv(made_up_games.made_up_games())


def test_the_games_of_the_package_give_a_correction_like_the_one_that_made_them() -> None:
    games = odds_model.read_past_games()

    found = fit(games)
    assert len(games) == made_up_games.COUNT
    assert found.a == pytest.approx(made_up_games.TRUTH.a, abs=0.3)
    assert found.b == pytest.approx(made_up_games.TRUTH.b, abs=0.4)


def test_past_games_come_back_as_they_were_written(tmp_path: Path) -> None:
    games = list(made_up_games.made_up_games(30, seed=1))
    file = tmp_path / "past.csv"
    file.write_text(made_up_games.as_csv(iter(games)))

    assert odds_model.read_past_games(file) == games


@pytest.mark.parametrize("row", ["x,2,,0", "2,2,,2", "2,2,,7", "2,2,,", "1,2,,0", "nan,2,,0", "2", "2,2,0.5,2"])
def test_a_bad_past_game_is_named_by_its_number(tmp_path: Path, row: str) -> None:
    file = tmp_path / "past.csv"
    file.write_text(f"team_a_odds,team_b_odds,tie_odds,outcome\n1.9,1.9,,0\n{row}\n")

    with pytest.raises(BadPastGames, match="past game 2"):
        odds_model.read_past_games(file)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "past.csv"
    file.write_text("home,away\n1.9,2.1\n")

    with pytest.raises(BadPastGames, match="past game 1"):
        odds_model.read_past_games(file)
