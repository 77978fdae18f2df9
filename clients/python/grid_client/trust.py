"""How far a node's signatures can be relied on: every bad one is counted, three of a kind in a row end a connection."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from grid_client.errors import GridError

log = logging.getLogger(__name__)

IN_A_ROW = 3
RECEIPT, UPDATE, AUTHENTICATED = "receipt", "game update", "authenticated"


class Trust:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row: Counter[str] = Counter()
        self.bad_signatures = 0
        """Messages of the node that did not pass, ever."""

    def doubt(self, kind: str, error: GridError, of: str = "") -> bool:
        """Counts a message that did not pass; true for the third of its kind in a row."""
        log.error("a bad %s%s was dropped: %s", kind, f" of {of}" if of else "", error.message)
        with self._lock:
            self.bad_signatures += 1
            self._in_a_row[kind] += 1
            is_enough = self._in_a_row[kind] >= IN_A_ROW
            if is_enough:
                self._in_a_row[kind] = 0
            return is_enough

    def restore(self, kind: str) -> None:
        """A message of this kind passed."""
        with self._lock:
            self._in_a_row[kind] = 0
