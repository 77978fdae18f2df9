"""Structured logs on standard error: one JSON object a line, with the id of the request or task at hand.

No key, no signature and no prompt is ever passed to a logger below debug level.
"""

import logging
import sys
from typing import Any

import structlog

bind = structlog.contextvars.bind_contextvars
unbind = structlog.contextvars.clear_contextvars


def configure_logging(level: str) -> None:
    """Send everything, our own and the libraries', through one formatter."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("engineio", "socketio", "huey", "httpx", "numba"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
