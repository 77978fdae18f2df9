"""Clients and workers of a grid node."""

__version__ = "0.1.0"
