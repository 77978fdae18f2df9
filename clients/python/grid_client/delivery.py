"""How one result gets to the node: in the event if it is small, else over HTTP, again until acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from grid_client.backoff import Backoff, retry
from grid_client.errors import ConnectionLost, GridError
from grid_client.messages import Lease
from grid_client.signing import Keypair, result_signature
from grid_client.transfer import Http

EVENT_LIMIT = 1_000_000
"""Bytes of asset that are sent within the event; a message may have 1 MiB with everything around it."""
SUBMIT_TIMEOUT = 30.0
GIVE_UP = 600.0
"""Seconds; no lease lives longer."""
UPLOADS = "worker/uploads"
RETRIED_CODES = frozenset({"body_incomplete", "upload_busy"})

Route = Literal["event", "body", "upload"]
Call = Callable[[str, dict[str, Any], float], dict[str, Any]]
"""(event, payload, timeout) -> ack of the worker's authenticated session."""


@dataclass(frozen=True)
class Output:
    """What a generator made."""

    asset: bytes
    format: str


@dataclass
class Job:
    """One leased task in hand. `cancelled` is set once the work is pointless; long generators look at it."""

    lease: Lease
    cancelled: threading.Event = field(default_factory=threading.Event)
    renew_at: float = 0.0


class Delivery:
    """One result on its way. Sending it again is harmless: lease and sha256 identify it."""

    def __init__(
        self,
        job: Job,
        output: Output,
        call: Call,
        http: Http,
        *,
        keypair: Keypair | None = None,
        node_hotkey: str | None = None,
    ) -> None:
        self._job = job
        self._output = output
        self._call = call
        self._http = http
        self._route: Route = "event" if len(output.asset) <= EVENT_LIMIT else "body"
        self._upload_url = UPLOADS
        self._upload_id: str | None = None
        self._breaks = 0
        digest = sha256(output.asset).hexdigest()
        self._claim = {"format": output.format, "sha256": digest}
        if keypair and node_hotkey:
            task_id = job.lease.task_id
            self._claim["signature"] = result_signature(keypair, digest, task_id, node_hotkey)

    def run(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
        """The node's ack. Raises GridError if it refuses for good or the lease was cancelled meanwhile."""
        return retry(
            self._attempt,
            clock() + GIVE_UP,
            backoff=backoff,
            sleep=self._job.cancelled.wait,
            clock=clock,
            retryable=lambda error: error.retryable or error.code in RETRIED_CODES,
        )

    def _attempt(self) -> dict[str, Any]:
        if self._job.cancelled.is_set():
            raise GridError("lease_closed", "the task needs no result any more", status=410)
        try:
            return {"event": self._by_event, "body": self._by_body, "upload": self._by_upload}[self._route]()
        except GridError as error:
            if not self._next_route(error):
                raise
        return self._attempt()

    def _next_route(self, error: GridError) -> bool:
        """Whether another way is worth trying at once."""
        if self._route == "event" and error.code == "message_too_large":
            self._upload_url = str(error.body.get("upload_url") or UPLOADS)
            self._route = "body"
            return True
        too_large = self._route == "body" and error.code == "message_too_large"
        if self._route == "body" and isinstance(error, ConnectionLost):
            self._breaks += 1
        if too_large or self._breaks == 2:  # a body that breaks twice goes in pieces that can be resumed
            self._route = "upload"
        return too_large

    def _by_event(self) -> dict[str, Any]:
        return self._submit(asset=self._output.asset)

    def _by_body(self) -> dict[str, Any]:
        path = f"worker/leases/{self._job.lease.lease_id}/result"
        headers = {"Content-Type": "application/octet-stream"}
        return self._http.json("POST", path, body=self._output.asset, headers=headers, params=self._claim)

    def _by_upload(self) -> dict[str, Any]:
        if self._upload_id is None:
            self._upload_id = self._http.upload(
                self._upload_url,
                self._output.asset,
                {"lease_id": self._job.lease.lease_id},
                timeout=GIVE_UP,
                stop=self._job.cancelled.is_set,
            )
        return self._submit(upload_id=self._upload_id)

    def _submit(self, **content: object) -> dict[str, Any]:
        lease = self._job.lease
        payload = {"task_id": lease.task_id, "lease_id": lease.lease_id, **self._claim, **content}
        return self._call("submit_result", payload, SUBMIT_TIMEOUT)
