"""Past games that never took place, for the example miner's first fit: `python -m grid_client.made_up_games`.

Team strengths are drawn at random, odds follow from them with a margin, and the outcome is drawn with a known
correction, so that it can be seen whether a fit finds it again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from grid_client.odds_model import DRAW, TEAM_A, TEAM_B, Correction, PastGame, sigmoid

SEED, COUNT = 20261120, 240
TRUTH = Correction(a=0.25, b=1.2)
MARGIN = 1.05
"""Sum of the inverse odds."""
TIE_SHARE = 0.26
SPREAD = 0.9
"""Standard deviation of the logit of a win."""


def made_up_games(count: int = COUNT, truth: Correction = TRUTH, seed: int = SEED) -> Iterator[PastGame]:
    """Every third game can end in a draw."""
    draws = random.Random(seed)
    for number in range(count):
        tie = TIE_SHARE if number % 3 == 0 else 0.0
        share = sigmoid(draws.gauss(0.0, SPREAD))
        chances = [(1.0 - tie) * share, (1.0 - tie) * (1.0 - share), *([tie] if tie else [])]
        odds = [max(1.01, round(1.0 / (MARGIN * chance), 2)) for chance in chances]
        outcome = DRAW if draws.random() < tie else TEAM_A if draws.random() < truth(share) else TEAM_B
        yield PastGame(odds[TEAM_A], odds[TEAM_B], odds[DRAW] if tie else None, outcome)


def as_csv(games: Iterator[PastGame]) -> str:
    """Text that `odds_model.read_past_games` reads."""
    lines = ["# Made up by grid_client.made_up_games: no game of this list ever took place."]
    lines.append("team_a_odds,team_b_odds,tie_odds,outcome")
    for game in games:
        tie = "" if game.tie_odds is None else f"{game.tie_odds:.2f}"
        lines.append(f"{game.team_a_odds:.2f},{game.team_b_odds:.2f},{tie},{game.outcome}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_csv(made_up_games()))
