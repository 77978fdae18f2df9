"""A small model of games for the example miner: what odds imply, corrected by what past games came to.

Bookmakers' decimal odds hold a margin: the inverses add up to more than 1. Divided by their sum they are the implied
probabilities. Of a decided game, team A then wins with `sigmoid(a + b * logit(p))`: `a` is an advantage of the team
named first that the odds leave out, `b` above 1 says that favourites win more often than the odds admit (the
favourite-longshot bias). Both are fitted by maximum likelihood. Draws keep their implied probability.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

TEAM_A, TEAM_B, DRAW = 0, 1, 2
PRIOR_WEIGHT = 4.0
"""One over the variance of the prior, which says that the odds are right (a = 0, b = 1) give or take a half: it
outweighs a handful of games, yields to a few hundred, and keeps a fit finite that has no games or only won ones."""
MOST_STEPS = 50
CLOSE_ENOUGH = 1e-9
FARTHEST_LOGIT = 12.0


class BadPastGames(ValueError):
    """A file of past games that cannot be read; the text names the line."""


@dataclass(frozen=True, slots=True)
class PastGame:
    """Odds before a game and what it came to. `tie_odds` is None where a draw could not be bet on."""

    team_a_odds: float
    team_b_odds: float
    tie_odds: float | None
    outcome: int


@dataclass(frozen=True, slots=True)
class Correction:
    """`sigmoid(a + b * logit(p))`; the default changes nothing."""

    a: float = 0.0
    b: float = 1.0

    def __call__(self, probability: float) -> float:
        return sigmoid(self.a + self.b * logit(probability))


@dataclass(frozen=True, slots=True)
class Choice:
    """What to bet on: `value` is the expected win for each unit wagered, 0.05 for 5 %."""

    outcome: int
    odds: float
    probability: float
    value: float


def implied(odds: Sequence[float]) -> list[float]:
    """Probabilities proportional to 1/odds. Raises ValueError unless all odds are finite and above 1."""
    if not odds or not all(math.isfinite(one) and one > 1.0 for one in odds):
        raise ValueError("odds must be finite and above 1")
    inverses = [1.0 / one for one in odds]
    total = math.fsum(inverses)
    return [one / total for one in inverses]


def probabilities(
    team_a_odds: float, team_b_odds: float, tie_odds: float | None, correction: Correction
) -> tuple[float, float, float]:
    """Of team A, of team B and of a draw (0 if there is none); they add up to 1. Raises ValueError."""
    shares = implied([team_a_odds, team_b_odds, *([] if tie_odds is None else [tie_odds])])
    draw = 0.0 if tie_odds is None else shares[DRAW]
    team_a = correction(shares[TEAM_A] / (shares[TEAM_A] + shares[TEAM_B]))
    return (1.0 - draw) * team_a, (1.0 - draw) * (1.0 - team_a), draw


def choose(game: Mapping[str, Any], correction: Correction) -> Choice:
    """The outcome with the best expected value at the game's odds. Raises ValueError or TypeError for bad odds."""
    tie = game.get("tie_odds")
    odds = [float(game["team_a_odds"]), float(game["team_b_odds"]), *([] if tie is None else [float(tie)])]
    chances = probabilities(odds[TEAM_A], odds[TEAM_B], None if tie is None else odds[DRAW], correction)
    choices = [
        Choice(outcome, price, chance, chance * price - 1.0)
        for outcome, (price, chance) in enumerate(zip(odds, chances, strict=False))
    ]
    return max(choices, key=lambda choice: choice.value)


def fit(games: Iterable[PastGame]) -> Correction:
    """The most likely correction under the prior, by Newton's method; draws are left out.

    Always returns finite numbers, and the default where the games say nothing.
    """
    samples = [(logit(_share_of_a(game)), 1.0 - game.outcome) for game in games if game.outcome in (TEAM_A, TEAM_B)]
    now = Correction()
    for _ in range(MOST_STEPS):
        following = _newton_step(samples, now)
        if max(abs(following.a - now.a), abs(following.b - now.b)) < CLOSE_ENOUGH:
            return following
        now = following
    return now


def _newton_step(samples: Sequence[tuple[float, float]], now: Correction) -> Correction:
    """One step on the penalised log-likelihood, halved until it is uphill: far out the plain step overshoots."""
    slope_a, slope_b = -PRIOR_WEIGHT * now.a, -PRIOR_WEIGHT * (now.b - 1.0)
    curve_aa, curve_ab, curve_bb = PRIOR_WEIGHT, 0.0, PRIOR_WEIGHT
    for x, won in samples:
        chance = sigmoid(now.a + now.b * x)
        spread = chance * (1.0 - chance)
        slope_a += won - chance
        slope_b += (won - chance) * x
        curve_aa += spread
        curve_ab += spread * x
        curve_bb += spread * x * x
    determinant = curve_aa * curve_bb - curve_ab * curve_ab
    step_a = (curve_bb * slope_a - curve_ab * slope_b) / determinant
    step_b = (curve_aa * slope_b - curve_ab * slope_a) / determinant
    return _uphill(samples, now, step_a, step_b)


def _uphill(samples: Sequence[tuple[float, float]], now: Correction, step_a: float, step_b: float) -> Correction:
    height, share = _likelihood(samples, now), 1.0
    while share > CLOSE_ENOUGH:
        following = Correction(now.a + share * step_a, now.b + share * step_b)
        if _likelihood(samples, following) >= height:
            return following
        share /= 2.0
    return now


def _likelihood(samples: Sequence[tuple[float, float]], at: Correction) -> float:
    """Log-likelihood less the prior's penalty: log sigmoid(z) = -softplus(-z)."""
    penalty = 0.5 * PRIOR_WEIGHT * (at.a**2 + (at.b - 1.0) ** 2)
    scores = (at.a + at.b * x for x, _ in samples)
    return math.fsum(won * z - _softplus(z) for z, (_, won) in zip(scores, samples, strict=True)) - penalty


def _share_of_a(game: PastGame) -> float:
    return implied([game.team_a_odds, game.team_b_odds])[TEAM_A]


def sigmoid(x: float) -> float:
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def logit(probability: float) -> float:
    """Finite for 0 and 1 too: cut at ±12, six in a million."""
    if probability <= 0.0 or probability >= 1.0:
        return math.copysign(FARTHEST_LOGIT, probability - 0.5)
    return max(-FARTHEST_LOGIT, min(FARTHEST_LOGIT, math.log(probability / (1.0 - probability))))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


# --- past games


def read_past_games(path: Path | None = None) -> list[PastGame]:
    """From a CSV file with the columns of PastGame; without a path the made-up games that come with the package.

    Lines that begin with `#` are comments. Raises BadPastGames or OSError.
    """
    source = path or files("grid_client").joinpath("data/past_games.csv")
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(_parsed(csv.DictReader(lines)))


def _parsed(rows: Iterable[Mapping[str, str | None]]) -> Iterator[PastGame]:
    for number, row in enumerate(rows, start=1):
        try:
            yield _past_game(row)
        except (KeyError, TypeError, ValueError) as error:
            raise BadPastGames(f"past game {number}: {error}") from None


def _past_game(row: Mapping[str, str | None]) -> PastGame:
    tie, outcome = row["tie_odds"], int(row["outcome"] or "")
    odds = [float(row["team_a_odds"] or ""), float(row["team_b_odds"] or ""), *([float(tie)] if tie else [])]
    implied(odds)
    if outcome not in (TEAM_A, TEAM_B) and not (outcome == DRAW and tie):
        raise ValueError(f"outcome {outcome} is not possible")
    return PastGame(odds[TEAM_A], odds[TEAM_B], odds[DRAW] if tie else None, outcome)
