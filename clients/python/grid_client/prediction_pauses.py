"""How long a node that refused is left alone."""

from __future__ import annotations

from grid_client.backoff import Backoff
from grid_client.errors import GridError

BARRED = frozenset({"not_registered", "blacklisted", "deregistered", "replaced"})
"""What waiting briefly does not mend: an operator or the chain lifts it. `replaced`: another process has this identity,
and would be replaced in turn."""


def pause_after(error: GridError, backoff: Backoff, longest: float) -> float:
    """Seconds to the next try: at least what the node asks for; `longest`, and no more, for who is barred."""
    pause = backoff.next(error.retry_after)
    return longest if error.code in BARRED else pause
