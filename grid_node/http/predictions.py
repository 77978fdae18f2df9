"""Routes of miners: their predictions and receipts, and how the sockets are."""

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Response, current_app, jsonify, request
from flask_smorest import Blueprint
from marshmallow import Schema, validate

from grid_node.canonical import canonical
from grid_node.errors import CommitTimeout
from grid_node.fields import StrictInt
from grid_node.http.documents import ERRORS, answers, query_of
from grid_node.http.errors import retry_header
from grid_node.http.json_answers import json_answer
from grid_node.http.miner_door import MinerDoor
from grid_node.http.payloads import checked_query, strict_body
from grid_node.http.prediction_documents import SECURITY, SUBMISSION
from grid_node.predictions.pending import Answer
from grid_node.services import Services

log = logging.getLogger(__name__)

SPARE = 0.5
"""Seconds above GRID_PREDICTION_COMMIT_TIMEOUT that a request waits: the service itself says first that it is late."""


class ReceiptsSchema(Schema):
    """Which receipts of a miner."""

    after_seq = StrictInt(load_default=0, validate=validate.Range(0))
    limit = StrictInt(load_default=100, validate=validate.Range(1, 500))


RECEIPTS = ReceiptsSchema()


class PredictionRoutes:
    """`/predictions` and everything below it, and `/ws/health`."""

    def __init__(self, services: Services, door: MinerDoor) -> None:
        self._services = services
        self._predictions = services.predicting.predictions
        self._door = door
        self._started = time.monotonic()

    def blueprint(self) -> Blueprint:
        made = Blueprint("predictions", __name__, description="Predictions of miners, and their signed receipts.")
        rules: tuple[tuple[str, Callable[..., Response], str, dict[str, Any]], ...] = (
            ("/predictions", self.submit, "POST", {**SUBMISSION, "security": SECURITY}),
            ("/predictions", self.receipts, "GET", {**query_of(ReceiptsSchema), "security": SECURITY}),
            ("/predictions/<prediction_id>", self.receipt, "GET", {"security": SECURITY}),
            ("/ws/health", self.health, "GET", {"security": [{}]}),
        )
        for rule, view, method, documents in rules:
            documented = made.doc(**documents, responses={**answers(200), **ERRORS})
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def submit(self) -> Response:
        """One PredictionMessage or `{"messages": [...]}`; the answer is the signed receipt, after its commit."""
        claimed = self._door.claimed(request)
        body = strict_body(request, self._services.settings.prediction_max_batch_bytes)
        sender = self._door.proven(request, claimed, body.raw)
        miner = self._door.admitted(sender.miner)
        pending = self._predictions.submit(miner, body.parsed(), "http", guard=sender.guard)
        answer = pending.wait(self._services.settings.prediction_commit_timeout + SPARE)
        if answer is None:
            raise CommitTimeout(retry_after=1)
        return self._sent(miner.address, answer)

    def _sent(self, hotkey: str, answer: Answer) -> Response:
        """The text as it is: a receipt is signed, and a repeat gets the same bytes."""
        made = Response(answer.text, answer.status, content_type="application/json")
        if answer.replayed:
            made.headers["Grid-Replayed"] = "1"
        retry_header(made, answer.retry_after)
        for prediction_id in answer.ids:
            log.info("Sent confirmation for prediction %s to %s via HTTP", prediction_id, hotkey)
        return made

    def receipts(self) -> Response:
        """The miner's receipts above `after_seq`, oldest first, whether it is still registered or not."""
        miner = self._door.owner(request)
        return _exact(self._predictions.list(miner, **checked_query(request, RECEIPTS)))

    def receipt(self, prediction_id: str) -> Response:
        """A prediction of the miner: its state, its receipt, and its settlement once there is one."""
        miner = self._door.owner(request)
        return _exact(self._predictions.status(miner, prediction_id))

    def health(self) -> Response:
        """How many miners' sockets this process holds. Asks for no signature."""
        grid = self._services
        status = "draining" if grid.draining else "online" if grid.settings.websocket_enabled else "disabled"
        counts = current_app.extensions["grid_node"].sockets.predictions.counts()
        answer = jsonify(
            status=status,
            connections=counts["connections"],
            active_connections=counts["active"],
            pending=counts["pending"],
            uptime=round(time.monotonic() - self._started, 3),
            node_hotkey=grid.node_key.hotkey,
        )
        if grid.draining:
            answer.status_code = 503
            retry_header(answer, None)
        return answer


def _exact(body: dict[str, Any]) -> Response:
    """In canonical form: the receipts in it have the bytes that were signed."""
    return json_answer(request, canonical(body))
