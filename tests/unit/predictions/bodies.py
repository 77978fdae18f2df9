"""A prediction as a miner sends it."""

SENT = {
    "prediction_id": "nfl-17_9f2c",
    "game_id": "nfl-17",
    "team_a": "Giants",
    "team_b": "Cowboys",
    "wager": "10.00",
    "predicted_outcome": 1,
    "predicted_odds": "2.10",
    "team_a_odds": "1.80",
    "team_b_odds": "2.10",
    "tie_odds": None,
}
"""10.00 on team B of a game without a tie."""
