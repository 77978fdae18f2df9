"""Predictions of miners: games and their updates, wagers, signed receipts, settlement."""
