"""Structured logs on standard error: one JSON object a line, with the id of the request or task at hand.

No key, no signature and no prompt is ever passed to a logger below debug level.
"""

import logging
import sys
from typing import Any

import structlog

bind = structlog.contextvars.bind_contextvars
bound = structlog.contextvars.bound_contextvars
bindings = structlog.contextvars.get_contextvars
unbind_all = structlog.contextvars.clear_contextvars

NOISY = ("engineio", "socketio", "huey", "httpx", "httpcore", "numba", "alembic", "websockets")
"""Libraries whose lines below a warning tell an operator nothing, or a token in an address."""


def configure_logging(level: str) -> None:
    """Send everything, our own and the libraries', through one formatter."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(json_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def json_formatter() -> logging.Formatter:
    """Time in UTC, level, logger, message, what is bound, and a traceback if there is one."""
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
