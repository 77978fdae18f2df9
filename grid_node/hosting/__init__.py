"""Hosted models and datasets: serve, find, fetch, run, and know where the shares of an encrypted model are."""
