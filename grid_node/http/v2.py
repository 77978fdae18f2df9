"""The Open Inference Protocol v2 but for the infer route: what the node is, what it runs, and whether it is ready.

https://github.com/kserve/open-inference-protocol, "HTTP/REST"; the repository index is Triton Inference Server's
"Model Repository Extension".
"""

from importlib import metadata
from typing import Any

import orjson
from flask import Response, jsonify, request
from flask_smorest import Blueprint
from werkzeug.exceptions import MethodNotAllowed

from grid_node.errors import GridError, InvalidPayload, ModelNotFound, ShuttingDown
from grid_node.hosting.inference import Described, Inference, Standing
from grid_node.hosting.rights import ModelCaller
from grid_node.http.documents import ERRORS, answers
from grid_node.http.payloads import json_payload
from grid_node.http.v2_door import InferDoor, caller_of, version_number
from grid_node.services import Services

NAME = "grid-node"
EXTENSIONS = ["binary_tensor_data"]


class V2Routes:
    """Each view identifies the caller, calls the service once, and dumps."""

    def __init__(self, services: Services, door: InferDoor) -> None:
        self._services = services
        self._inference: Inference = services.hosting.inference
        self._door = door
        self._version = metadata.version(NAME)

    def blueprint(self) -> Blueprint:
        made = Blueprint("v2", __name__, description="Open Inference Protocol v2")
        model = "/v2/models/<name>"
        version = f"{model}/versions/<version>"
        rules: tuple[tuple[str, Any, str], ...] = (
            ("/v2", self.server, "GET"),
            ("/v2/health/live", self.live, "GET"),
            ("/v2/health/ready", self.ready, "GET"),
            ("/v2/repository/index", self.index, "POST"),
            (model, self.model, "GET"),
            (version, self.model, "GET"),
            (f"{model}/ready", self.model_ready, "GET"),
            (f"{version}/ready", self.model_ready, "GET"),
            (f"{model}/infer", self.infer, "POST"),
            (f"{version}/infer", self.infer, "POST"),
        )
        for number, (rule, view, method) in enumerate(rules):
            documented = made.doc(responses={**answers(200), **ERRORS}, security=[{}, {"key": []}])
            made.add_url_rule(rule, f"{view.__name__}_{number}", documented(view), methods=[method])
        made.record(lambda state: state.app.add_url_rule("/v2/models/<path:name>", "v2.no_model", self.no_model))
        return made

    def server(self) -> Response:
        """What this server is and which extensions it speaks."""
        self._caller()
        return jsonify(name=NAME, version=self._version, extensions=EXTENSIONS)

    def live(self) -> Response:
        """The process answers. Asks for no key."""
        return jsonify(live=True)

    def ready(self) -> Response:
        """200 when inference requests may come. Asks for no key."""
        try:
            if self._services.draining:
                raise ShuttingDown()
            self._services.census.check_writable()
        except GridError as error:
            error.data |= {"live": True, "ready": False}
            raise
        return jsonify(live=True, ready=True)

    def model(self, name: str, version: str | None = None) -> Response:
        """Inputs, outputs and versions of a model."""
        caller = self._caller()
        return jsonify(_described(self._inference.describe(caller, name, version_number(version))))

    def no_model(self, name: str) -> Response:
        """A name with a slash belongs to no model."""
        if name.removesuffix("/").endswith("/infer"):
            raise MethodNotAllowed(["OPTIONS", "POST"])
        raise ModelNotFound()

    def model_ready(self, name: str, version: str | None = None) -> Response:
        """200 when a request of this model would be run."""
        caller = self._caller()
        return jsonify(name=self._inference.check_ready(caller, name, version_number(version)), ready=True)

    def index(self) -> Response:
        """Every version that may be run; with `{"ready": true}` only those that are ready."""
        self._caller()
        found = self._inference.standings()
        if _only_ready(json_payload(request)):
            found = [one for one in found if not one.reason]
        return Response(orjson.dumps([_standing(one) for one in found]), content_type="application/json")

    def infer(self, name: str, version: str | None = None) -> Response:
        """Run a model. Answered in front of Flask, see `v2_door`; this stands for it in the documents."""
        answer = self._door.answer(request.environ, name.encode().decode("latin-1"), version)
        return Response(b"".join(answer.body), answer.status, answer.headers)

    def _caller(self) -> ModelCaller:
        return caller_of(self._services.hosting.access, request.environ)


def _only_ready(asked: Any) -> bool:
    if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool) or asked.keys() - {"ready"}:
        raise InvalidPayload(fields={"ready": ["must be true or false"]})
    return bool(asked.get("ready"))


def _described(found: Described) -> dict[str, Any]:
    signature = found.signature
    return {
        "name": found.row.id,
        "versions": [str(number) for number in found.versions],
        "platform": found.platform,
        "inputs": [spec.body() for spec in signature.inputs],
        "outputs": [spec.body() for spec in signature.outputs],
    }


def _standing(one: Standing) -> dict[str, str]:
    state = "UNAVAILABLE" if one.reason else "READY"
    return {"name": one.model_id, "version": str(one.version), "state": state, "reason": one.reason}
