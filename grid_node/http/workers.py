"""Routes of workers: load, call, dump, over the same schemas and service as the events of `/worker`."""

import base64
import binascii
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from grid_node.blobs.store import Blob
from grid_node.errors import InvalidPayload, MessageTooLarge
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
from grid_node.http.auth import Doorkeeper, target_of
from grid_node.http.bodies import announced_length, read_body, stream_to_blob
from grid_node.http.documents import ERRORS, answers, body_of, query_of
from grid_node.http.payloads import JSON_MAX, json_body, parse_json, query_payload
from grid_node.http.peer import watched_peer
from grid_node.http.worker_uploads import UPLOAD_URL
from grid_node.identity.epistula import body_digest
from grid_node.services import Services

PULL = PullSchema()
LEASE = LeaseIdSchema()
SKIP = SkipSchema()
SUBMIT = SubmitSchema()
FEEDBACK = FeedbackSchema()
EMPTY = EmptySchema()

SMALL = 64 * 1024
"""Bytes of a raw result that is taken into memory, so that results of inline kinds are judged at once."""


class WorkerRoutes:
    """`/worker` and everything below it but the uploads."""

    def __init__(self, services: Services, doorkeeper: Doorkeeper) -> None:
        self._services = services
        self._work = services.work
        self._doorkeeper = doorkeeper

    def blueprint(self) -> Blueprint:
        made = Blueprint("worker", __name__, url_prefix="/worker", description="Work for the node.")
        lease = "/leases/<lease_id>"
        rules: tuple[tuple[str, Callable[..., Response], str, dict[str, Any]], ...] = (
            ("/tasks/pull", self.pull, "POST", body_of(PullSchema)),
            (f"{lease}/renew", self.renew, "POST", {}),
            (f"{lease}/result", self.result, "POST", body_of(SubmitSchema)),
            (f"{lease}/skip", self.skip, "POST", body_of(SkipSchema)),
            ("/feedback", self.feedback, "GET", query_of(FeedbackSchema)),
            ("/status", self.status, "GET", {}),
        )
        for rule, view, method, documents in rules:
            documented = made.doc(
                **documents, responses={**answers(200), **ERRORS}, security=[{"key": [], "worker": []}]
            )
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def pull(self) -> Response:
        """A lease at once or within `wait_s`, or none. A peer that is gone by then is granted nothing."""
        worker, payload = self._json()
        given = load(PULL, payload)
        if not given["wait_s"]:
            return jsonify(self._work.pull(worker, given))
        with watched_peer(request.environ, lambda: self._work.leave(worker)):
            return jsonify(self._work.pull(worker, given))

    def renew(self, lease_id: str) -> Response:
        """Extend a lease; 410 once the work is pointless."""
        worker, payload = self._json()
        return jsonify(self._work.renew(worker, load(LEASE, _with_lease(payload, lease_id))["lease_id"]))

    def skip(self, lease_id: str) -> Response:
        """Give a lease back."""
        worker, payload = self._json()
        return jsonify(self._work.skip(worker, load(SKIP, _with_lease(payload, lease_id))["lease_id"]))

    def feedback(self) -> Response:
        """Verdicts above `after_seq`; with `wait_s` waits for the first one."""
        worker = self._doorkeeper.worker(request)
        given = load(FEEDBACK, query_payload(request, FEEDBACK))
        return jsonify(self._work.feedback(worker, given["after_seq"], given["wait_s"]))

    def status(self) -> Response:
        """Leases, cooldown, mean score, and how much work waits."""
        worker = self._doorkeeper.worker(request)
        load(EMPTY, query_payload(request, EMPTY))
        return jsonify(self._work.status(worker))

    # --- results ------------------------------------------------------------------------------------------------

    def result(self, lease_id: str) -> Response:
        """Hand a result in: JSON with `upload_id` or base64 `asset`, or the raw bytes with the rest in the query."""
        if "format" in request.args:
            return self._raw_result(lease_id)
        limit = self._services.settings.message_max
        room = limit * 4 // 3 + JSON_MAX
        worker, payload = self._json(room, limit=limit, upload_url=UPLOAD_URL)
        given = load(SUBMIT, _with_lease(payload, lease_id))
        return jsonify(self._work.submit(worker, given, self._asset(worker, given)))

    def _asset(self, worker: WorkerIdentity, given: dict[str, Any]) -> bytes | Blob:
        if (given["asset"] is None) == (given["upload_id"] is None):
            raise InvalidPayload(fields={"asset": ["send either asset or upload_id"]})
        if given["upload_id"] is not None:
            return self._work.uploaded(worker, given["upload_id"])
        asset = _decoded(given["asset"])
        limit = self._services.settings.message_max
        if len(asset) > limit:
            raise MessageTooLarge(limit=limit, upload_url=UPLOAD_URL)
        return asset

    def _raw_result(self, lease_id: str) -> Response:
        """The bytes are the body. Who sends them and what for is checked before they are read."""
        worker, signed = self._doorkeeper.claimed_worker(request)
        given = load(SUBMIT, _with_lease(query_payload(request, SUBMIT), lease_id))
        if given["asset"] is not None or given["upload_id"] is not None:
            raise InvalidPayload(fields={"asset": ["is the body"]})
        asset = self._raw_asset(self._work.limit_of(worker, lease_id))
        if signed is not None:
            digest = asset.sha256 if isinstance(asset, Blob) else body_digest("POST", target_of(request), asset)
            self._doorkeeper.confirm(request, signed, digest)
        with self._held(asset):
            return jsonify(self._work.submit(worker, given, asset))

    def _held(self, asset: bytes | Blob) -> AbstractContextManager[object]:
        """What is in the store already stays there until it is decided whether the result is taken."""
        return self._services.holds.hold(asset) if isinstance(asset, Blob) else nullcontext()

    def _raw_asset(self, limit: int) -> bytes | Blob:
        length = announced_length(request)
        if length is not None and length <= min(SMALL, limit):
            return read_body(request, SMALL)
        return stream_to_blob(request, self._services.blobs, limit)

    # --- shared -------------------------------------------------------------------------------------------------

    def _json(self, max_bytes: int = JSON_MAX, **too_large: Any) -> tuple[WorkerIdentity, Any]:
        """The worker and the payload that it sent (and signed). Without an identity no byte of the body is read."""
        worker, signed = self._doorkeeper.claimed_worker(request)
        body = json_body(request, max_bytes, **too_large)
        if signed is not None:
            self._doorkeeper.confirm(request, signed, body_digest("POST", target_of(request), body))
        return worker, parse_json(body)


def _with_lease(payload: Any, lease_id: str) -> Any:
    """The lease is named by the address; a payload that names another one is no valid payload."""
    if not isinstance(payload, dict):
        return payload
    if payload.get("lease_id", lease_id) != lease_id:
        raise InvalidPayload(fields={"lease_id": ["differs from the address"]})
    return {**payload, "lease_id": lease_id}


def _decoded(asset: Any) -> bytes:
    if not isinstance(asset, str):
        raise InvalidPayload(fields={"asset": ["must be base64"]})
    try:
        return base64.b64decode(asset, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPayload(fields={"asset": ["must be base64"]}) from None
