"""Routes of model owners below `/pc/client-api`: load, call, dump, over the same service as the events."""

from typing import Any

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from grid_node.errors import BodyTooLarge, Gone, GridError, JsonRequired, RunnerInvalidJson, UploadEndedEarly
from grid_node.fields import load
from grid_node.http.bodies import body_chunks, drain
from grid_node.http.documents import ERRORS, answers, body_of, header, query_of
from grid_node.http.payloads import query_payload
from grid_node.http.runner_door import RunnerDoor
from grid_node.runners.model_requests import (
    LOOK,
    MODELS,
    REMOVAL,
    LookSchema,
    ModelsSchema,
    RegistrationSchema,
    RemovalSchema,
)
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.replays import checked_key
from grid_node.services import Services
from grid_node.wire import strict_json

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
BASE = "/pc/client-api"
SIGNATURES = f"{BASE}/predict_signature"
SUCCESSOR = {"Deprecation": "true", "Link": f'<{SIGNATURES}>; rel="successor-version"'}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class PcRoutes:
    """`predict_signature`, `models`, and the addresses that came before them."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._services = services
        self._registration = services.running.registration
        self._door = door

    def blueprint(self) -> Blueprint:
        made = Blueprint("pc", __name__, description="Models behind tunnels: their owners register them.")
        document = body_of(RegistrationSchema)
        replay = {"parameters": [header("Idempotency-Key")]}
        match = {"parameters": [header("If-Match")]}
        one = f"{SIGNATURES}/<id>"
        rules: tuple[tuple[str, Any, tuple[str, ...], dict[str, Any]], ...] = (
            (SIGNATURES, self.create, ("POST",), {**replay, **document}),
            (one, self.replace, ("PUT", "POST"), {**match, **document}),
            (one, self.patch, ("PATCH",), {**match, **document}),
            (one, self.look, ("GET",), query_of(LookSchema)),
            (one, self.delete, ("DELETE",), query_of(RemovalSchema)),
            (f"{BASE}/models", self.models, ("GET", "POST"), query_of(ModelsSchema)),
            (f"{BASE}/upload/file", self.create_at_old_address, ("POST",), document),
            (f"{BASE}/upload/file", self.registration_moved, ("GET",), {}),
            (f"{BASE}/upload/credential", self.credential_moved, ("GET", "POST"), {}),
            (f"{BASE}/upload/output/<id>", self.output_moved, ("GET", "POST"), {}),
            (f"{BASE}/upload/progress/<id>", self.progress_moved, ("GET", "POST"), {}),
        )
        for rule, view, methods, documents in rules:
            documented = made.doc(**documents, responses={**answers(200), **ERRORS}, security=[{"key": []}])
            made.add_url_rule(rule, view.__name__, documented(view), methods=list(methods))
        return made

    # --- models -----------------------------------------------------------------------------------------------------

    def create(self) -> Response:
        """Register a model by its signature; the answer is what its tunnel's agent runs with."""
        caller = self._caller()
        key = checked_key(request.headers.get("Idempotency-Key"))
        return jsonify(self._registration.create(caller, self._json(), key))

    def replace(self, id: str) -> Response:
        """A whole new document; id and tunnel stay."""
        caller = self._caller()
        return jsonify(self._registration.replace(caller, id, self._json(), request.headers.get("If-Match")))

    def patch(self, id: str) -> Response:
        """Change the document by a JSON merge patch (RFC 7396)."""
        caller = self._caller()
        patch = self._json(JSON, MERGE_PATCH)
        return jsonify(self._registration.patch(caller, id, patch, request.headers.get("If-Match")))

    def look(self, id: str) -> Response:
        """The stored document, and what the node knows of the model."""
        caller = self._caller()
        found, etag = self._registration.get(caller, id, **load(LOOK, query_payload(request, LOOK)))
        answer = jsonify(found)
        answer.headers["ETag"] = etag
        return answer

    def delete(self, id: str) -> Response:
        """Remove the model and its tunnel."""
        caller = self._caller()
        given = query_payload(request, REMOVAL)
        given = {name: _TRUTHS.get(text, text) for name, text in given.items()}
        return jsonify(self._registration.delete(caller, id, **load(REMOVAL, given)))

    def models(self) -> Response:
        """The caller's models, oldest first."""
        caller = self._caller()
        given = query_payload(request, MODELS)
        if request.method == "POST" and request.mimetype == JSON:
            given |= _object(self._json())
        return jsonify(self._registration.models(caller, **load(MODELS, given)))

    # --- addresses that were replaced -----------------------------------------------------------------------------

    def create_at_old_address(self) -> Response:
        """The same as `POST /pc/client-api/predict_signature`, which took its place."""
        caller = self._caller()
        if request.mimetype != JSON:
            raise _unread(Gone(use=SIGNATURES))
        key = checked_key(request.headers.get("Idempotency-Key"))
        answer = jsonify(self._registration.create(caller, self._json(), key))
        answer.headers.update(SUCCESSOR)
        return answer

    def registration_moved(self) -> Response:
        """Replaced by `POST /pc/client-api/predict_signature`."""
        return self._gone(SIGNATURES)

    def credential_moved(self) -> Response:
        """Replaced: the answer to a registration has the credential."""
        return self._gone(SIGNATURES)

    def output_moved(self, id: str) -> Response:
        """Replaced by `PUT /pc/client-api/upload/{file_name}`."""
        return self._gone(f"{BASE}/upload/{{file_name}}")

    def progress_moved(self, id: str) -> Response:
        """Replaced by `POST /pc/client-api/webhook/prediction`."""
        return self._gone(f"{BASE}/webhook/prediction")

    # --- shared -----------------------------------------------------------------------------------------------------

    def _caller(self) -> RunnerCaller:
        return self._door.runner(request)

    def _gone(self, use: str) -> Response:
        self._caller()
        raise _unread(Gone(use=use))

    def _json(self, *types: str) -> Any:
        """The body. Raises JsonRequired, BodyTooLarge, UploadEndedEarly, RunnerInvalidJson."""
        if request.mimetype not in (types or (JSON,)):
            raise _unread(JsonRequired())
        limit, early = self._services.settings.signature_max_bytes, UploadEndedEarly
        try:
            chunks = body_chunks(request, limit, too_large=BodyTooLarge, incomplete=early, stalled=early)
            return strict_json.loads(b"".join(chunks))
        except BodyTooLarge as error:
            raise _unread(error) from None
        except strict_json.InvalidJSON:
            raise RunnerInvalidJson() from None


def _unread(refusal: GridError) -> GridError:
    """The refusal of a request whose body nobody needs: who is still sending may not hear it otherwise."""
    drain(request)
    return refusal


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RunnerInvalidJson()
    return value
