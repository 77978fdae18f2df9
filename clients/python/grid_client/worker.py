"""The worker's side: pull tasks, keep their leases alive, deliver results, survive restarts of the node."""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from grid_client import __version__
from grid_client.backoff import Backoff
from grid_client.delivery import Delivery, Job, Output
from grid_client.errors import ConnectionLost, DeadlineExceeded, GridError
from grid_client.messages import Lease
from grid_client.session import Push, Session
from grid_client.signing import (
    Keypair,
    authenticate_message,
    check_authenticated,
    public_keypair,
    request_headers,
)
from grid_client.transfer import Http

log = logging.getLogger(__name__)

Handler = Callable[[Job], Output]

NAMESPACE = "/worker"
PULL_WAIT = 20
CALL_TIMEOUT = 15.0
CHALLENGE_TIMEOUT = 10.0
RENEW_TICK = 1.0
WAITED_FOR = frozenset({"not_registered", "blacklisted", "deregistered", "bad_answer"})
"""Refusals that an operator or the chain may lift, and answers that a later version may mend."""


class WorkerClient:
    """One worker identity at one node: an API key with a worker name (private grid), or a hotkey.

    `handler` turns a job into an output; it runs in a thread of its own, at most `max_parallel` at once.
    """

    def __init__(
        self,
        url: str,
        *,
        handler: Handler,
        api_key: str | None = None,
        name: str = "worker",
        keypair: Keypair | None = None,
        node_hotkey: str | None = None,
        kinds: Sequence[str] = ("text_to_3d",),
        formats: Sequence[str] = ("ply", "spz"),
        max_parallel: int = 1,
        on_feedback: Callable[[dict[str, Any]], None] | None = None,
        backoff: Callable[[], Backoff] = Backoff,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if (api_key is None) == (keypair is None):
            raise ValueError("a worker needs either an API key or a keypair")
        if keypair is not None and node_hotkey is None:
            raise ValueError("a worker with a keypair needs the node's hotkey")
        self._url = url.rstrip("/")
        self._handler = handler
        self._api_key = api_key
        self._name = name
        self._keypair = keypair
        self._node_hotkey = node_hotkey
        self._offer = {"kinds": list(kinds), "formats": list(formats)}
        self._max_parallel = max_parallel
        self._on_feedback = on_feedback or _log_feedback
        self._backoff = backoff
        self._clock = clock
        self._now = now
        self._http = Http(url, self._request_headers, clock=clock)
        self._session: Session | None = None
        self._connecting = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._jobs_lock = threading.Lock()
        self._free = threading.Semaphore(max_parallel)
        self._stopping = threading.Event()
        self._finished = threading.Event()

    def run(self) -> None:
        """Works until `stop`, then finishes the work in hand. Raises GridError if refused for good."""
        renewer = threading.Thread(target=self._keep_renewing, name="renew", daemon=True)
        renewer.start()
        try:
            with ThreadPoolExecutor(self._max_parallel, thread_name_prefix="job") as pool:
                self._keep_pulling(pool)
        finally:
            self._finished.set()
            renewer.join(CALL_TIMEOUT)
            self._drop_session()
            self._http.close()

    def stop(self) -> None:
        """Takes no more tasks. May be called from any thread, more than once."""
        self._stopping.set()
        self._free.release()
        self._leave_if_idle()

    def _keep_pulling(self, pool: ThreadPoolExecutor) -> None:
        backoff = self._backoff()
        while not self._stopping.is_set():
            self._free.acquire()
            if self._stopping.is_set():
                return
            job, pause = None, 0.0
            try:
                job, pause = self._pull()
                backoff.reset()
            except GridError as error:
                if self._stopping.is_set():
                    return
                pause = self._pause_after(error, backoff)
            if job:
                pool.submit(self._work, job)
                continue
            self._free.release()
            self._stopping.wait(pause)

    def _pause_after(self, error: GridError, backoff: Backoff) -> float:
        if not (error.retryable or error.code in WAITED_FOR):
            raise error
        pause = backoff.next(error.retry_after)
        log.warning("%s; next try in %.1f s", error, pause)
        return pause

    def _pull(self) -> tuple[Job | None, float]:
        """A job, or how long to wait before the next pull in seconds."""
        with self._jobs_lock:
            holding = list(self._jobs)
        request = {**self._offer, "wait_s": PULL_WAIT, "holding": holding}
        body = self._call("pull_task", request, PULL_WAIT + CALL_TIMEOUT)
        if body.get("superseded"):
            return None, 1.0
        if body.get("task") is None:
            return None, _pause_of(body)
        lease = Lease.read(body["task"])
        if self._stopping.is_set():
            self._skip(lease.lease_id, "the worker is stopping")
            return None, 0.0
        log.info("task %s: %s", lease.task_id, lease.kind)
        job = Job(lease, renew_at=self._clock() + lease.renew_every_s)
        with self._jobs_lock:
            known = lease.lease_id in self._jobs
            self._jobs.setdefault(lease.lease_id, job)
        return (None, 1.0) if known else (job, 0.0)

    def _work(self, job: Job) -> None:
        try:
            output = self._handler(job)
            if job.cancelled.is_set():
                log.info("task %s was cancelled, its work is dropped", job.lease.task_id)
            else:
                self._deliver(job, output)
        except GridError as error:
            log.warning("task %s: %s", job.lease.task_id, error)
        except Exception:  # the handler is foreign code: one bad task must not end the worker
            log.exception("task %s: the generator failed", job.lease.task_id)
            self._skip(job.lease.lease_id, "the generator failed")
        finally:
            with self._jobs_lock:
                self._jobs.pop(job.lease.lease_id, None)
            self._free.release()
            self._leave_if_idle()

    def _deliver(self, job: Job, output: Output) -> None:
        delivery = Delivery(
            job,
            output,
            self._call,
            self._http,
            keypair=self._keypair,
            node_hotkey=self._node_hotkey or job.lease.node_hotkey,
        )
        answer = delivery.run(self._backoff(), self._clock)
        log.info("task %s: result is %s", job.lease.task_id, answer.get("state") or answer.get("verdict"))

    def _skip(self, lease_id: str, reason: str) -> None:
        try:
            self._call("skip", {"lease_id": lease_id, "reason": reason}, CALL_TIMEOUT)
        except GridError as error:
            log.info("could not give lease %s back: %s", lease_id, error)

    def _keep_renewing(self) -> None:
        while not self._finished.wait(RENEW_TICK):
            now = self._clock()
            with self._jobs_lock:
                due = [job for job in self._jobs.values() if job.renew_at <= now]
            for job in due:
                self._renew(job)

    def _renew(self, job: Job) -> None:
        try:
            self._call("renew_lease", {"lease_id": job.lease.lease_id}, CALL_TIMEOUT)
            job.renew_at = self._clock() + job.lease.renew_every_s
        except GridError as error:
            log.info("lease %s not renewed: %s", job.lease.lease_id, error)
            if error.status in (404, 410):
                job.cancelled.set()

    def _call(self, event: str, data: dict[str, Any], timeout: float) -> dict[str, Any]:
        """One try over the authenticated session; a mute connection counts as a lost one."""
        session = self._connected()
        try:
            return session.call(event, data, timeout)
        except DeadlineExceeded as error:
            session.close()
            raise ConnectionLost(error.message) from None

    def _connected(self) -> Session:
        with self._connecting:
            last = self._session
            if last is None or last.ended.is_set():
                if last and last.closing and not last.closing.retryable:
                    raise last.closing
                last = self._session = self._authenticated()
            return last

    def _authenticated(self) -> Session:
        challenges: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pushes: dict[str, Push] = {
            "challenge": challenges.put,
            "feedback": self._receive_feedback,
            "lease_cancelled": self._cancel,
        }
        session = Session(self._url, NAMESPACE, pushes)
        session.connect()
        try:
            if self._keypair:
                self._answer_challenge(session, self._keypair, challenges)
            else:
                session.call("authenticate", self._introduction() | self._key(), CALL_TIMEOUT)
        except GridError:
            session.close()
            raise
        log.info("connected to %s as %s", self._url, self._identity())
        return session

    def _answer_challenge(self, session: Session, keypair: Keypair, challenges: queue.SimpleQueue[Any]) -> None:
        try:
            challenge = challenges.get(timeout=CHALLENGE_TIMEOUT)
        except queue.Empty:
            raise ConnectionLost("the node sent no challenge") from None
        nonce = challenge.get("nonce") if isinstance(challenge, Mapping) else None
        if not isinstance(nonce, str):
            raise GridError("bad_answer", "the node's challenge has no nonce")
        node_hotkey = str(self._node_hotkey)
        message = authenticate_message(keypair, node_hotkey, nonce, self._now(), **self._introduction())
        answer = session.call("authenticate", message, CALL_TIMEOUT)
        check_authenticated(answer, message, public_keypair(node_hotkey))

    def _introduction(self) -> dict[str, Any]:
        return {**self._offer, "max_parallel": self._max_parallel, "client": f"grid-client/{__version__}"}

    def _key(self) -> dict[str, Any]:
        return {"api_key": self._api_key, "name": self._name}

    def _identity(self) -> str:
        return self._keypair.ss58_address if self._keypair else self._name

    def _request_headers(self, method: str, target: str, body: bytes | None) -> dict[str, str]:
        if self._keypair is None:
            return {"Authorization": f"Bearer {self._api_key}", "X-Worker-Name": self._name}
        covered = body if body else f"{method} {target}".encode("ascii")
        digest = sha256(covered).hexdigest()
        return request_headers(self._keypair, str(self._node_hotkey), digest, self._now(), uuid.uuid4())

    def _receive_feedback(self, data: object = None) -> None:
        if isinstance(data, dict):
            self._on_feedback(data)

    def _cancel(self, data: object = None) -> None:
        lease_id = data.get("lease_id") if isinstance(data, Mapping) else None
        with self._jobs_lock:
            job = self._jobs.get(str(lease_id))
        if job:
            job.cancelled.set()

    def _leave_if_idle(self) -> None:
        """While stopping: ends the waiting pull by leaving, as soon as nothing is in hand."""
        with self._jobs_lock:
            busy = bool(self._jobs)
        if self._stopping.is_set() and not busy:
            self._drop_session()

    def _drop_session(self) -> None:
        session = self._session
        if session:
            session.close()


def _pause_of(body: Mapping[str, Any]) -> float:
    """Seconds to wait after an empty pull; in a cooldown the node says how long."""
    wait = body.get("retry_after")
    return float(wait) if isinstance(wait, int | float) and not isinstance(wait, bool) and wait > 0 else 0.0


def _log_feedback(feedback: Mapping[str, Any]) -> None:
    log.info(
        "task %s: %s, score %s%s",
        feedback.get("task_id"),
        feedback.get("verdict"),
        feedback.get("score"),
        f" ({', '.join(map(str, feedback.get('reasons') or ()))})" if feedback.get("reasons") else "",
    )
