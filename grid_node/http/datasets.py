"""Routes of datasets: load, call, dump, over the same schemas and service as the events."""

from collections.abc import Callable
from typing import Any

from flask import Response, jsonify, request
from flask_smorest import Blueprint

from grid_node.errors import BadQuery, InvalidPayload
from grid_node.fields import load
from grid_node.hosting import dataset_schemas as schemas
from grid_node.hosting.rights import ModelCaller
from grid_node.http.auth import address_of
from grid_node.http.documents import ERRORS, answers, body_of, query_of
from grid_node.http.payloads import json_payload, query_payload
from grid_node.services import Services
from grid_node.web import key_of_environ

BODY_MAX = 256 * 1024
"""Bytes of JSON: the longest description, URI and tags, should every character come as an escape."""

Rule = tuple[str, Callable[[], Response], str, dict[str, Any]]
"""Address, view, method, what the OpenAPI document says of its input."""


class DatasetRoutes:
    """`/dataset-tags`, `/search`, `/register_dataset`, `/tag_dataset`, `/delete_dataset`, `/datasets`."""

    def __init__(self, services: Services) -> None:
        self._access = services.hosting.access
        self._datasets = services.hosting.datasets

    def blueprint(self) -> Blueprint:
        made = Blueprint("datasets", __name__, description="Descriptions of data, found by id, tag or description.")
        rules: tuple[Rule, ...] = (
            ("/dataset-tags", self.tags, "GET", {}),
            ("/search", self.search, "POST", body_of(schemas.SearchSchema)),
            ("/register_dataset", self.register, "POST", body_of(schemas.RegisterSchema)),
            ("/tag_dataset", self.tag, "POST", body_of(schemas.TagSchema)),
            ("/delete_dataset", self.delete, "POST", body_of(schemas.DatasetSchema)),
            ("/datasets", self.page, "GET", query_of(schemas.PageSchema)),
        )
        for rule, view, method, documents in rules:
            documented = made.doc(**documents, responses={**answers(200), **ERRORS}, security=[{}, {"key": []}])
            made.add_url_rule(rule, view.__name__, documented(view), methods=[method])
        return made

    def tags(self) -> Response:
        """The distinct tags of datasets, sorted, as a bare list."""
        caller = self._caller()
        load(schemas.NOTHING, query_payload(request, schemas.NOTHING))
        return jsonify(self._datasets.tags(caller))

    def search(self) -> Response:
        """Whether one dataset matches every term. What is no search is answered 400 with an empty object."""
        caller = self._caller()
        try:
            payload = json_payload(request, BODY_MAX)
        except InvalidPayload:
            raise BadQuery() from None
        return jsonify(self._datasets.search(caller, schemas.load_terms(payload)))

    def register(self) -> Response:
        """Describe a dataset under an id of its own."""
        caller = self._caller(writes=True)
        return jsonify(self._datasets.register(caller, schemas.load_dataset(json_payload(request, BODY_MAX))))

    def tag(self) -> Response:
        """Add and remove tags; the answer has those that it has then."""
        caller = self._caller(writes=True)
        return jsonify(self._datasets.tag(caller, **load(schemas.TAG, json_payload(request, BODY_MAX))))

    def delete(self) -> Response:
        """Forget a dataset; the data itself was never here."""
        caller = self._caller(writes=True)
        return jsonify(self._datasets.delete(caller, **load(schemas.DATASET, json_payload(request))))

    def page(self) -> Response:
        """The datasets that the caller may see, oldest first."""
        caller = self._caller()
        given = load(schemas.DATASETS_PAGE, query_payload(request, schemas.DATASETS_PAGE))
        return jsonify(self._datasets.page(caller, **given))

    def _caller(self, *, writes: bool = False) -> ModelCaller:
        return self._access.by_key(key_of_environ(request.environ), address_of(request), writes=writes)
