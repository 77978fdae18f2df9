"""Routes of hosted models: load, call, dump, over the same schemas and services as the events."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from flask import Blueprint as FlaskBlueprint
from flask import Response, jsonify, request
from flask.blueprints import BlueprintSetupState
from flask_smorest import Blueprint
from werkzeug.routing import BaseConverter

from grid_node.errors import InferenceTooLarge, InvalidPayload
from grid_node.fields import load
from grid_node.hosting.encrypted import EncryptedSearchSchema
from grid_node.hosting.long_arrays import nested_text
from grid_node.hosting.schemas import (
    DELETE,
    DETAILED_PAGE,
    FETCH,
    INFERENCE,
    LATIN,
    PAGE,
    REFERENCE,
    DeleteSchema,
    DetailedPageSchema,
    FetchSchema,
    InferenceSchema,
    PageSchema,
    ReferenceSchema,
    ServeSchema,
    load_serve,
)
from grid_node.hosting.serving import Served
from grid_node.http.auth import Doorkeeper, target_of
from grid_node.http.bodies import body_chunks
from grid_node.http.documents import ERRORS, answers, body_of, header, query_of
from grid_node.http.files import sent
from grid_node.http.long_arrays import parse_with_arrays
from grid_node.http.model_content import content_answer, version_in_path
from grid_node.http.model_forms import REST_MAX, SentModel, check_inline, sent_model
from grid_node.http.payloads import json_payload, query_payload, with_idempotency_key
from grid_node.http.v2_door import BytesInHand
from grid_node.services import Services
from models_store.tensors import Tensor

Rule = tuple[str, Callable[..., Response], str, dict[str, Any]]
"""Address, view, method, what the OpenAPI document says of its input."""

SLICE = 256 * 1024
"""Characters of an answer that are made JSON at once."""
NO_ID = "/"
"""Stands for an id that cannot be one."""


class ModelIdConverter(BaseConverter):
    """Whatever stands in the place of an id: what is none is for the service to say, in words of ours."""

    regex = r"[\s\S]+"
    part_isolating = False


class ModelRoutes:
    """`/models`, `/detailed_models_list`, `/is_model_copy_allowed`, `/get_model`, `/serve_model`, `/delete_model`,
    `/run_inference`, `/search-encrypted-models`, and the content of models."""

    def __init__(self, services: Services, doorkeeper: Doorkeeper, in_hand: BytesInHand) -> None:
        self._services = services
        self._in_hand = in_hand
        self._settings = services.settings
        self._hosting = services.hosting
        self._doorkeeper = doorkeeper

    def blueprint(self) -> Blueprint:
        made = Blueprint("models", __name__, description="Hosted models: bytes that are kept, handed out and run.")
        made.record(_know_ids)
        fetched = query_of(FetchSchema)
        by_path = query_of(FetchSchema, without=("model_id",))
        served = {"parameters": [header("Idempotency-Key")], **_forms_of(ServeSchema)}
        token = {"parameters": [header("X-Share-Token")]}
        rules: tuple[Rule, ...] = (
            ("/models", self.models, "GET", query_of(PageSchema)),
            ("/detailed_models_list", self.detailed, "GET", query_of(DetailedPageSchema)),
            ("/is_model_copy_allowed", self.copy_allowed, "GET", query_of(ReferenceSchema)),
            ("/is_model_copy_allowed/<model_id:model_id>", self.copy_allowed, "GET", {}),
            ("/get_model", self.get, "GET", fetched),
            ("/get_model/<model_id:model_id>", self.get, "GET", by_path),
            ("/models/<model_id:model_id>/content", self.content, "GET", token),
            ("/models/<model_id:model_id>/versions/<version>/content", self.content, "GET", token),
            ("/serve_model", self.serve, "POST", served),
            ("/serve-model", self.serve, "POST", served),
            ("/delete_model", self.delete, "POST", body_of(DeleteSchema)),
            ("/run_inference", self.run_inference, "POST", body_of(InferenceSchema)),
            ("/search-encrypted-models", self.search_encrypted, "POST", body_of(EncryptedSearchSchema)),
        )
        for number, (rule, view, method, documents) in enumerate(rules):
            documented = made.doc(**documents, responses={**answers(200), **ERRORS}, security=[{}, {"key": []}])
            made.add_url_rule(rule, f"{view.__name__}_{number}", documented(view), methods=[method])
            if rule.endswith("/content"):  # of rules that go on behind an id, Werkzeug takes the slash only when told
                FlaskBlueprint.add_url_rule(made, rule + "/", f"content_slash_{number}", view, methods=[method])
        return made

    # --- reading

    def models(self) -> Response:
        """Ids of all models, oldest first; with `limit` that many from behind `after`."""
        self._doorkeeper.model_caller(request)
        return jsonify(self._hosting.reading.models(**load(PAGE, query_payload(request, PAGE))))

    def detailed(self) -> Response:
        """The newest version of each model, described; with `tag` those that carry it."""
        caller = self._doorkeeper.model_caller(request)
        given = load(DETAILED_PAGE, query_payload(request, DETAILED_PAGE))
        return jsonify(self._hosting.reading.detailed(caller, **given))

    def copy_allowed(self, model_id: str | None = None) -> Response:
        """Whether the bytes may be had; always 200."""
        caller = self._doorkeeper.model_caller(request)
        given = load(REFERENCE, _with_id(query_payload(request, REFERENCE), model_id))
        return jsonify(self._hosting.reading.copy_allowed(caller, given["model_id"]))

    def get(self, model_id: str | None = None) -> Response:
        """The bytes as text in JSON, by default ISO-8859-1: one character a byte."""
        given = load(FETCH, _with_id(query_payload(request, FETCH), model_id))
        caller = self._doorkeeper.model_caller(request, token=given["share_token"])
        encoding = given["encoding"] or LATIN[0]
        limit = self._settings.models_inline_max
        found = self._hosting.reading.get(caller, given["model_id"], given["version"], encoding, limit)
        return _text_answer("serialized_model", found["serialized_model"])

    def content(self, model_id: str, version: str | None = None) -> Response:
        """The bytes as they are, conditional and by range."""
        caller = self._doorkeeper.model_caller(request)
        number = version_in_path(version)
        found = self._hosting.reading.content(caller, _id_in_path(model_id), number)
        return content_answer(request, self._services.blobs, found)

    # --- changing

    def serve(self) -> Response:
        """Keep a model: JSON, a form, or a form with the bytes as file part `model`."""
        caller = self._doorkeeper.model_caller(request, writes=True)
        with sent_model(request, self._services.blobs, self._settings) as sent:
            served = self._serve(caller, sent)
        answer = jsonify(served.body())
        answer.headers["Model-Version"] = str(served.version)
        if served.sha256 is not None:
            answer.headers["ETag"] = f'"{served.sha256}"'
        return answer

    def _serve(self, caller: Any, sent: SentModel) -> Served:
        """Everything that can be refused before the bytes have a name is refused before: then nothing of them stays."""
        serving = self._hosting.serving
        wanted = load_serve(with_idempotency_key(request, sent.payload))
        if sent.writer is None:
            check_inline(wanted, self._settings.models_inline_max)
            return serving.serve(caller, wanted)
        serving.check(caller, wanted, sent.writer.size)
        return serving.publish(caller, wanted, sent.writer.commit())

    def delete(self) -> Response:
        """Forget a model, or with `version` that version of it."""
        caller = self._doorkeeper.model_caller(request, writes=True)
        return jsonify(self._hosting.deleting.delete(caller, **load(DELETE, json_payload(request))))

    # --- running, and where shares are

    def run_inference(self) -> Response:
        """Run a model on `data`: a nested list, an object of them, or safetensors as text."""
        caller = self._doorkeeper.model_caller(request)
        with self._in_hand.share() as take:
            payload = parse_with_arrays(self._inference_body(take), "data", REST_MAX)
            return _prediction(self._hosting.inference.predicted(caller, load(INFERENCE, payload)))

    def _inference_body(self, take: Callable[[int], None]) -> bytes:
        """Raises InferenceTooLarge, and QueueFull while too many bytes of others are in hand."""
        pieces = []
        for piece in body_chunks(request, self._settings.infer_max_bytes, too_large=InferenceTooLarge):
            take(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def search_encrypted(self) -> Response:
        """Where the shares of an encrypted model are."""
        caller = self._doorkeeper.model_caller(request)
        return jsonify(self._hosting.encrypted.search(caller, json_payload(request)))


def _know_ids(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["model_id"] = ModelIdConverter


def _forms_of(schema: type[ServeSchema]) -> dict[str, Any]:
    kinds = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def _with_id(query: dict[str, Any], model_id: str | None) -> dict[str, Any]:
    """The query, and the id of the address where it has one."""
    if model_id is None:
        return query
    if "model_id" in query:
        raise InvalidPayload(fields={"model_id": ["is in the address already"]})
    return {**query, "model_id": _id_in_path(model_id)}


def _id_in_path(model_id: str) -> str:
    """The id without one slash after it. The server decoded the address: a slash in it may have been an encoded one,
    which is part of no id."""
    if "%2f" in target_of(request).partition("?")[0].lower():
        return NO_ID
    return model_id.removesuffix("/") if model_id.count("/") == 1 else model_id


def _prediction(outputs: list[Tensor]) -> Response:
    """The first output; of several all of them too, by name."""
    texts = [nested_text(tensor) for tensor in outputs]
    body = [b'{"success":true,"prediction":', *texts[0]]
    for number, (tensor, text) in enumerate(zip(outputs, texts, strict=True) if len(outputs) > 1 else ()):
        body += [b"," if number else b',"outputs":{', orjson.dumps(tensor.name), b":", *text]
    return _json_answer([*body, b"}}\n" if len(outputs) > 1 else b"}\n"])


def _text_answer(name: str, text: str) -> Response:
    """`{name: text}`; a long text is made JSON in slices, and others run in between."""
    pieces = []
    for start in range(0, len(text), SLICE):
        pieces.append(orjson.dumps(text[start : start + SLICE])[1:-1])
        time.sleep(0)
    return _json_answer([b'{"%b":"' % name.encode(), *pieces, b'"}\n'])


def _json_answer(pieces: list[bytes]) -> Response:
    """A long answer, whose reader has a deadline."""
    answer = Response(sent(request.environ, iter(pieces)), content_type="application/json")
    answer.content_length = sum(map(len, pieces))
    return answer
