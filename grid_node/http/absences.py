"""Raw WebSocket clients that left: their unfinished tasks are cancelled when nobody has come back in time.

Kept in the memory of this process. After a restart of the node such a task runs on to its own end, at the latest its
deadline.
"""

import logging
import time
from dataclasses import dataclass

from grid_node.errors import GridError
from grid_node.generation.lifecycle import task_stream
from grid_node.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Absence:
    key_id: str
    until: float
    """On the monotonic clock, in seconds."""


class Absences:
    """Tasks whose raw socket is gone. Whoever reads or follows such a task has come back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._grace = services.settings.public_api_ws_grace
        self._absent: dict[str, _Absence] = {}

    def gone(self, key_id: str, task_id: str) -> None:
        self._absent[task_id] = _Absence(key_id, time.monotonic() + self._grace)

    def seen(self, task_id: str) -> None:
        self._absent.pop(task_id, None)

    def tick(self) -> None:
        """Cancel what is overdue; called by the node twice a second."""
        now = time.monotonic()
        for task_id, absence in list(self._absent.items()):
            if self._services.streams.followed(task_stream(task_id)):
                self._absent.pop(task_id, None)
            elif absence.until <= now:
                self._absent.pop(task_id, None)
                self._cancel(task_id, absence)

    def _cancel(self, task_id: str, absence: _Absence) -> None:
        try:
            self._services.tasks.cancel(absence.key_id, task_id, "client_gone")
        except GridError as error:
            log.warning("task %s of a client that is gone was not cancelled: %s", task_id, error.code)
            if error.status >= 500:
                self._absent.setdefault(task_id, absence)
