"""Events of workers, namespace `/worker`: who a worker is, then load, call, dump."""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from events.publisher import AUTH_FAILED, AUTH_TIMEOUT, REPLACED, WORKERS, Publisher
from grid_node.errors import (
    AlreadyAuthenticated,
    AuthFailed,
    GridError,
    InvalidPayload,
    MessageTooLarge,
    NotAuthenticated,
)
from grid_node.fields import load
from grid_node.generation.schemas import (
    EmptySchema,
    FeedbackSchema,
    LeaseIdSchema,
    PullSchema,
    SkipSchema,
    SubmitSchema,
)
from grid_node.generation.work import WorkerIdentity
from grid_node.generation.workers import feedback_stream, notice_stream
from grid_node.identity.challenge import Challenge
from grid_node.services import Services
from grid_node.streams.service import Subscription
from grid_node.wire.events import Events
from grid_node.wire.server import WireServer

log = logging.getLogger(__name__)

PULL = PullSchema()
LEASE = LeaseIdSchema()
SUBMIT = SubmitSchema()
SKIP = SkipSchema()
FEEDBACK = FeedbackSchema()
EMPTY = EmptySchema()
UPLOAD_URL = "/worker/uploads"
ACK_FIRST = 0.1
"""Seconds that the answer to a failed authentication gets before its connection ends."""


@dataclass(eq=False)
class WorkerSession:
    """A socket of `/worker`; `worker` is None until it has authenticated."""

    sid: str
    address: str
    challenge: Challenge
    worker: WorkerIdentity | None = None
    tried: bool = False
    subscriptions: list[Subscription] = field(default_factory=list)

    def close(self) -> None:
        for subscription in self.subscriptions:
            subscription.close()
        self.subscriptions.clear()


class WorkerEvents:
    """`authenticate`, `pull_task`, `renew_lease`, `submit_result`, `skip`, `feedback`, `worker_status`."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher) -> None:
        self._services = services
        self._work = services.work
        self._server = server
        self._publisher = publisher
        self._sessions: dict[str, WorkerSession] = {}
        self._by_identity: dict[str, str] = {}
        self._by_key: dict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._sessions)

    def register(self, events: Events) -> None:
        events.on_connect(self.connect)
        events.on_joined(self.greet)
        events.on_disconnect(self.disconnect)
        events.on("authenticate", self.authenticate, waits=True)
        events.on("pull_task", self.pull_task, waits=True)
        events.on("renew_lease", self.renew_lease, waits=True)
        events.on("submit_result", self.submit_result, waits=True)
        events.on("skip", self.skip, waits=True)
        events.on("feedback", self.feedback, waits=True)
        events.on("worker_status", self.worker_status, waits=True)

    # --- connection -------------------------------------------------------------------------------------------

    def connect(self, sid: str, environ: dict[str, Any], _auth: Any) -> None:
        challenge = self._services.authentication.challenge()
        self._sessions[sid] = WorkerSession(sid, environ.get("REMOTE_ADDR", ""), challenge)

    def greet(self, sid: str) -> None:
        """Push the challenge once the socket is in."""
        self._publisher.challenge(sid, self._session(sid).challenge.message)
        self._server.start_background_task(self._cut_if_silent, sid)

    def _cut_if_silent(self, sid: str) -> None:
        self._server.sleep(self._services.settings.websocket_auth_timeout)
        session = self._sessions.get(sid)
        if session is not None and session.worker is None:
            self._publisher.closing(sid, WORKERS, AUTH_TIMEOUT)

    def disconnect(self, sid: str, _reason: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is None:
            return
        session.close()
        worker = session.worker
        if worker is None:
            return
        if worker.key_id is not None:
            self._by_key[worker.key_id].discard(sid)
        if self._by_identity.get(worker.identity) == sid:
            del self._by_identity[worker.identity]
            self._work.leave(worker)

    def authenticate(self, sid: str, payload: Any) -> dict[str, Any]:
        """Once per socket. A failure is answered, then the connection ends."""
        session = self._session(sid)
        if session.worker is not None:
            raise AlreadyAuthenticated()
        if session.tried:
            raise AuthFailed()
        session.tried = True
        try:
            worker, reply = self._services.authentication.identify(session.challenge, payload, session.address)
        except GridError:
            self._server.start_background_task(self._turn_away, sid)
            raise
        return reply(last_seq=self._admit(session, worker))

    def _turn_away(self, sid: str) -> None:
        self._server.sleep(ACK_FIRST)
        self._publisher.closing(sid, WORKERS, AUTH_FAILED)

    def _admit(self, session: WorkerSession, worker: WorkerIdentity) -> int:
        """Let the worker in; returns the seq of its newest feedback."""
        session.worker = worker
        older = self._by_identity.get(worker.identity)
        self._by_identity[worker.identity] = session.sid
        if worker.key_id is not None:
            self._by_key[worker.key_id].add(session.sid)
        if older is not None:
            self._publisher.closing(older, WORKERS, REPLACED)
        return self._follow(session, worker)

    def _follow(self, session: WorkerSession, worker: WorkerIdentity) -> int:
        feedback, notices = self._work.places(worker)
        streams = self._services.streams
        session.subscriptions = [
            streams.subscribe(
                feedback_stream(worker.identity), feedback, partial(self._publisher.feedback, session.sid)
            ),
            streams.subscribe(
                notice_stream(worker.identity), notices, partial(self._publisher.lease_cancelled, session.sid)
            ),
        ]
        return feedback

    # --- work -------------------------------------------------------------------------------------------------

    def pull_task(self, sid: str, payload: Any) -> dict[str, Any]:
        return self._work.pull(self._worker(sid), load(PULL, payload))

    def renew_lease(self, sid: str, payload: Any) -> dict[str, Any]:
        return self._work.renew(self._worker(sid), load(LEASE, payload)["lease_id"])

    def submit_result(self, sid: str, payload: Any) -> dict[str, Any]:
        worker = self._worker(sid)
        given = load(SUBMIT, payload)
        return self._work.submit(worker, given, self._asset(worker, given))

    def _asset(self, worker: WorkerIdentity, given: dict[str, Any]) -> Any:
        """The bytes in the event, or the blob of an upload."""
        if (given["asset"] is None) == (given["upload_id"] is None):
            raise InvalidPayload(fields={"asset": ["send either asset or upload_id"]})
        if given["upload_id"] is not None:
            return self._work.uploaded(worker, given["upload_id"])
        if not isinstance(given["asset"], bytes):
            raise InvalidPayload(fields={"asset": ["must be binary"]})
        if len(given["asset"]) > self._services.settings.message_max:
            raise MessageTooLarge(limit=self._services.settings.message_max, upload_url=UPLOAD_URL)
        return given["asset"]

    def skip(self, sid: str, payload: Any) -> dict[str, Any]:
        return self._work.skip(self._worker(sid), load(SKIP, payload)["lease_id"])

    def feedback(self, sid: str, payload: Any) -> dict[str, Any]:
        worker = self._worker(sid)
        given = load(FEEDBACK, payload)
        return self._work.feedback(worker, given["after_seq"], given["wait_s"])

    def worker_status(self, sid: str, payload: Any) -> dict[str, Any]:
        load(EMPTY, payload)
        return self._work.status(self._worker(sid))

    # --- shared -----------------------------------------------------------------------------------------------

    def _session(self, sid: str) -> WorkerSession:
        session = self._sessions.get(sid)
        if session is None:
            raise NotAuthenticated()
        return session

    def _worker(self, sid: str) -> WorkerIdentity:
        worker = self._session(sid).worker
        if worker is None:
            raise NotAuthenticated()
        return worker

    def sids(self) -> list[str]:
        return list(self._sessions)

    def of_key(self, key_id: str) -> list[str]:
        return list(self._by_key.get(key_id, ()))

    def keys(self) -> set[str]:
        return {key for key, sids in self._by_key.items() if sids}

    def hotkeys(self) -> dict[str, WorkerIdentity]:
        """Workers that came by hotkey, by sid."""
        found = {sid: session.worker for sid, session in self._sessions.items()}
        return {sid: worker for sid, worker in found.items() if worker is not None and worker.public_key is not None}
