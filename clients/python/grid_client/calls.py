"""A lasting connection to one node: events with their acks, again after a break or a passing refusal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from grid_client.backoff import Backoff, retry
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError
from grid_client.session import Session


class Calls:
    """Threads may share it. It connects with the first call."""

    def __init__(
        self,
        url: str,
        auth: Mapping[str, Any],
        *,
        backoff: Callable[[], Backoff] = Backoff,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._auth = auth
        self._backoff = backoff
        self._sleep = sleep
        self._clock = clock
        self._session: Session | None = None
        self._connecting = threading.Lock()

    def close(self) -> None:
        with self._connecting:
            if self._session:
                self._session.close()
            self._session = None

    def ask(self, event: str, data: object, timeout: float, *, repeatable: bool = True) -> Any:
        """The ack, unless it is a refusal. Raises GridError, ConnectionLost or DeadlineExceeded (after `timeout` s).

        What is not `repeatable` is sent again only if the node itself said that it did nothing.
        """
        deadline = self._clock() + timeout

        def attempt() -> Any:
            left = deadline - self._clock()
            if left <= 0:
                raise DeadlineExceeded(f"{event} got no answer in time")
            return accepted(self._answer(event, data, left))

        def again(error: GridError) -> bool:
            return error.retryable and (repeatable or error.status != 0)

        return retry(attempt, deadline, backoff=self._backoff(), sleep=self._sleep, clock=self._clock, retryable=again)

    def _answer(self, event: str, data: object, left: float) -> Any:
        try:
            return self._connected().ask(event, data, left)
        except DeadlineExceeded as error:  # a mute connection is as good as a broken one
            self.close()
            raise ConnectionLost(error.message) from None

    def _connected(self) -> Session:
        with self._connecting:
            if self._session is None or self._session.ended.is_set():
                session = Session(self._url)
                session.connect(self._auth)
                self._session = session
            return self._session


def accepted(body: Any) -> Any:
    """The ack. Raises GridError for one that is a refusal."""
    if isinstance(body, dict) and body.get("success") is False:
        raise GridError.from_body(body)
    return body
