"""Where workers report: `POST /pc/client-api/webhook/prediction`, with a token of one prediction or with a key.

The answer is 200, or 503 for whatever may pass: of all refusals only that lets a worker send the end of its run again.
"""

from typing import Any

from flask import Blueprint, jsonify, request

from grid_node.errors import BodyTooLarge, StoreFull, TryAgain, UploadEndedEarly
from grid_node.http.bodies import body_chunks, drain
from grid_node.http.runner_door import RunnerDoor, transient
from grid_node.runners.calls import WEBHOOK_PATH
from grid_node.services import Services


class WebhookRoutes:
    """Reports of workers. Who sends is known before a byte of the body is read, whatever its Content-Type."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._services = services
        self._door = door

    def blueprint(self) -> Blueprint:
        blueprint = Blueprint("runner_webhook", __name__)

        @blueprint.post(WEBHOOK_PATH, strict_slashes=False)
        def report() -> Any:
            """A worker's report in Cog's form."""
            try:
                with transient():
                    self._take(request.args.get("token"))
            except StoreFull as error:  # nobody sends again after a 507
                raise TryAgain(retry_after=error.retry_after) from error
            return jsonify(success=True)

        return blueprint

    def _take(self, token: str | None) -> None:
        if token is None:
            self._with_key()
        else:
            self._with_token(token)

    def _with_token(self, token: str) -> None:
        webhooks = self._services.running.webhooks
        webhooks.admitted(token)
        try:
            raw = self._body()
        except BodyTooLarge:
            webhooks.too_large(token)
            raise
        webhooks.by_token(token, raw)

    def _with_key(self) -> None:
        caller = self._door.runner(request, basic=True)
        self._services.running.webhooks.by_key(caller, self._body())

    def _body(self) -> bytes:
        most = self._services.settings.webhook_in_max_bytes
        try:
            early = UploadEndedEarly
            chunks = body_chunks(request, most, too_large=BodyTooLarge, incomplete=early, stalled=early)
            return b"".join(chunks)
        except BodyTooLarge:
            drain(request)
            raise
