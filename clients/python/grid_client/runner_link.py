"""One connection of a runner's agent to its node: the node's calls to the worker, and the worker's health."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError
from grid_client.runner_calls import Call, CallRefused, Worker, too_large, too_many
from grid_client.runner_identity import RunnerIdentity
from grid_client.session import Push, Session

log = logging.getLogger(__name__)

NAMESPACE = "/runner"
REPLACED = "replaced"
MESSAGE_MAX = 8 * 1024 * 1024
"""Bytes of one message of the node: an input of 1 MiB, however it is escaped."""
REPORT_MAX = 1024 * 1024
"""Bytes of one message to a node that has not said what it takes."""
FRAME = 1024
"""Bytes of a message that are not its payload, at most."""
CALLS = 64
"""Calls at a time; a node that makes more is told to try again."""
HEALTH_EVERY = 15.0
"""Seconds between two reports of a worker whose health does not change."""
LOOK = 1.0
"""Seconds between two looks at it."""
ACK_TIMEOUT = 10.0

Timer = Callable[[], float]
Body = dict[str, Any]


class RunnerLink:
    """Used once: `open`, then `live` until it returns. `close` may come from any thread."""

    def __init__(
        self,
        url: str,
        identity: RunnerIdentity,
        instance: str,
        worker: Worker,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Timer = time.monotonic,
    ) -> None:
        self._auth = identity.auth(instance)
        self._worker = worker
        self._clock = clock
        self._bell = threading.Event()
        self._room = threading.BoundedSemaphore(CALLS)
        self._replaced = False
        self._message_max = REPORT_MAX
        self._told: Body | None = None
        self._told_at = 0.0
        pushes: dict[str, Push] = {"http": self._take_call, "ready": self._take_ready, REPLACED: self._take_replaced}
        self._session = Session(url, NAMESPACE, pushes, self._bell.set, tls, MESSAGE_MAX)

    def open(self) -> None:
        """Raises GridError with the node's refusal, ConnectionLost."""
        self._session.connect(self._auth)

    def live(self, stopping: threading.Event) -> GridError:
        """Report the worker's health until the connection ends or the agent stops; why it ended."""
        while not (self._session.ended.is_set() or stopping.is_set()):
            self._report(self._worker.health())
            self._bell.wait(LOOK)
            self._bell.clear()
        if self._replaced:
            return GridError(REPLACED, "another agent of the same instance took this one's place")
        return self._session.closing or ConnectionLost("the connection ended")

    def close(self) -> None:
        """The calls under way end with their answers unsent."""
        self._session.close()
        self._bell.set()

    # --- health

    def _report(self, health: Body) -> None:
        now = self._clock()
        if health == self._told and now - self._told_at < HEALTH_EVERY:
            return
        try:
            self._session.call("health", health, ACK_TIMEOUT)
        except DeadlineExceeded:
            log.warning("the node answers nothing, connecting anew")
            self._session.close()
            return
        except GridError as error:
            log.info("the health of the worker was not taken: %s", error)
        if self._told is None or self._told.get("status") != health.get("status"):
            log.info("worker: %s", health.get("status"))
        self._told, self._told_at = health, now

    # --- what the node says

    def _take_ready(self, *arguments: Any) -> None:
        body = _body_of(arguments)
        most = body.get("max_message_bytes")
        if isinstance(most, int) and not isinstance(most, bool) and most > FRAME:
            self._message_max = most
        log.info("connected: model %s, uploads go to %s", body.get("model_id"), body.get("upload_url"))

    def _take_replaced(self, *arguments: Any) -> None:
        self._replaced = True

    def _take_call(self, *arguments: Any) -> Future[Body] | Body:
        data = _body_of(arguments)
        if not self._room.acquire(blocking=False):
            return _refusal(data, too_many(), 0)
        answer: Future[Body] = Future()
        threading.Thread(target=self._settle, args=(answer, data, self._clock()), name="call", daemon=True).start()
        return answer

    def _settle(self, answer: Future[Body], data: Mapping[str, Any], came_at: float) -> None:
        try:
            answer.set_result(self._answer(data, came_at))
        finally:
            self._room.release()
            self._bell.set()  # the call may have changed the worker's health

    def _answer(self, data: Mapping[str, Any], came_at: float) -> Body:
        """The ack of a call: what the worker answered, or an error body whose code stands beside it too."""
        try:
            status, found = self._worker.call(Call.read(data))
            answer = {"call_id": data.get("call_id"), "status": status, "json": found, "ms": self._ms(came_at)}
            if len(json.dumps(answer)) > self._message_max - FRAME:
                raise too_large()
            return answer
        except CallRefused as error:
            log.info("a call of the node brought no answer of the worker: %s", error)
            return _refusal(data, error, self._ms(came_at))
        except Exception:  # one bad call must not take the link down
            log.exception("a call failed")
            return _refusal(data, CallRefused("internal_error", "Internal error", 500), self._ms(came_at))

    def _ms(self, came_at: float) -> int:
        return round((self._clock() - came_at) * 1000)


def _refusal(data: Mapping[str, Any], error: CallRefused, ms: int) -> Body:
    """`code` tells it from an answer of the worker itself that has the same status."""
    answer = {"call_id": data.get("call_id"), "status": error.status, "code": error.code}
    return {**answer, "json": error.body, "ms": ms}


def _body_of(arguments: tuple[Any, ...]) -> Mapping[str, Any]:
    return arguments[0] if arguments and isinstance(arguments[0], Mapping) else {}
