"""The agent beside a Cog worker: dials out to a node and passes on the few calls that it may make to the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grid_client.backoff import Backoff
from grid_client.errors import ConnectionLost, GridError, SessionClosed
from grid_client.node_address import check_url, tls_context
from grid_client.runner_calls import Worker
from grid_client.runner_identity import RunnerIdentity
from grid_client.runner_link import REPLACED, RunnerLink

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds: the first wait before a new connection, which doubles, and the last."""
REPLACED_MAX, SHORT_LIFE = 3, 60.0
"""How often an agent whose place is taken tries again, when it had it for less than so many seconds."""


class Refused(GridError):
    """The node does not want this agent, and would not the next time either."""


class RunnerAgent:
    """`run` in one thread; `stop` from any."""

    def __init__(
        self,
        node_url: str,
        local_url: str,
        identity: RunnerIdentity,
        instance: str,
        *,
        ca_file: Path | str | None = None,
        allow_insecure: bool = False,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`local_url` is the worker's origin. Raises GridError `bad_url`, `insecure_url`, `bad_ca_file`."""
        check_url(node_url, allow_insecure)
        self._node_url = node_url.rstrip("/")
        self._identity = identity
        self._instance = instance
        self._worker = Worker(local_url, clock=clock)
        self._tls = tls_context(node_url, True, ca_file)
        self._backoff = backoff or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._clock = clock
        self._stopping = threading.Event()
        self._link: RunnerLink | None = None
        self._times_replaced = 0

    def run(self) -> None:
        """Connected, again and again, until `stop`. Raises Refused."""
        try:
            while not self._stopping.is_set():
                began_at = self._clock()
                self._pause_after(self._connection(), self._clock() - began_at)
        finally:
            self._worker.close()

    def stop(self) -> None:
        self._stopping.set()
        link = self._link
        if link is not None:
            link.close()

    def _connection(self) -> GridError:
        """One from its beginning to its end, and why it ended."""
        link = self._link = RunnerLink(
            self._node_url, self._identity, self._instance, self._worker, tls=self._tls, clock=self._clock
        )
        try:
            if self._stopping.is_set():
                return ConnectionLost("the agent stops")
            link.open()
            self._backoff.reset()
            return link.live(self._stopping)
        except GridError as error:
            return error
        except Exception:  # the loop outlives a fault of ours
            log.exception("a connection failed")
            return GridError("client_fault", "see the log")
        finally:
            link.close()

    def _pause_after(self, error: GridError, lived: float) -> None:
        """`lived` in seconds: how long the connection was there."""
        if self._stopping.is_set():
            return
        if is_final(error) or self._is_crowded_out(error, lived):
            raise Refused(error.code, error.message, status=error.status, body=error.body)
        pause = self._backoff.next(error.retry_after)
        log.warning("%s; connecting again in %.1f s", error, pause)
        self._stopping.wait(pause)

    def _is_crowded_out(self, error: GridError, lived: float) -> bool:
        """Two agents of one instance push each other out until one gives up; a node that lost track does it once."""
        if error.code != REPLACED:
            return False
        self._times_replaced = self._times_replaced + 1 if lived < SHORT_LIFE else 1
        return self._times_replaced > REPLACED_MAX


def is_final(error: GridError) -> bool:
    """Whether the same agent would be refused again: an answer of 4xx that no waiting mends."""
    if isinstance(error, SessionClosed):
        return not error.retryable
    return 400 <= error.status < 500 and not error.retryable
