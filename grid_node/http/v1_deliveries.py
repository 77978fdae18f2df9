"""Routes for the receivers of webhooks: what was sent to them, sending it again, and the secret that signs it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from grid_node.http.documents import ERRORS, answers
from grid_node.http.runner_door import RunnerDoor
from grid_node.runners import delivery_rows
from grid_node.services import Services

_CURSOR = {"parameters": [{"in": "query", "name": "cursor", "schema": {"type": "string"}}]}


class V1DeliveryRoutes:
    """`/v1/predictions/{id}/deliveries`, `/v1/deliveries/{id}/redeliver` and `/v1/webhooks/default/secret`."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._deliveries = services.running.deliveries
        self._secrets = services.running.hook_secrets
        self._base_url = services.settings.public_url
        self._door = door

    def blueprint(self) -> Blueprint:
        made = Blueprint("v1-deliveries", __name__, url_prefix="/v1", description="Webhooks about predictions.")
        secret = "/webhooks/default/secret"
        rules: tuple[tuple[str, Callable[..., Response], str, int, dict[str, Any]], ...] = (
            ("/predictions/<prediction_id>/deliveries", self.deliveries, "GET", 200, _CURSOR),
            ("/deliveries/<delivery_id>/redeliver", self.redeliver, "POST", 202, {}),
            (secret, self.secret, "GET", 200, {}),
            (f"{secret}/rotate", self.rotate, "POST", 200, {}),
        )
        for rule, view, method, status, documents in rules:
            documented = made.doc(**documents, responses={**answers(status), **ERRORS}, security=[{"key": []}])
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def deliveries(self, prediction_id: str) -> Response:
        """The webhooks of a prediction with every try, newest first, 100 a page."""
        caller = self._door.client(request)
        found = self._deliveries.of_prediction(caller, prediction_id, request.args.get("cursor"))
        following = None
        if len(found) == delivery_rows.PAGE:
            place = f"{self._base_url}/v1/predictions/{quote(prediction_id, safe='')}/deliveries"
            following = f"{place}?cursor={found[-1]['id']}"
        return jsonify(previous=None, next=following, results=found)

    def redeliver(self, delivery_id: str) -> Response:
        """Send a webhook again, now."""
        answer = jsonify(self._deliveries.redeliver(self._door.client(request), delivery_id))
        answer.status_code = 202
        return answer

    def secret(self) -> Response:
        """The secret that signs the key's webhooks."""
        return _not_kept(self._secrets.key(self._door.client(request).owner))

    def rotate(self) -> Response:
        """A new secret; the one before signs beside it for 24 hours."""
        return _not_kept(self._secrets.rotate(self._door.client(request).owner))


def _not_kept(key: str) -> Response:
    answer = jsonify(key=key)
    answer.headers["Cache-Control"] = "no-store"
    return answer
