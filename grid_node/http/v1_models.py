"""`/v1/models` and `/v1/account`: what a key may run, as Replicate's clients know it."""

from typing import Any
from urllib.parse import urlencode

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import EXCLUDE, Schema

from grid_node.fields import StrictText, load
from grid_node.http.documents import body_of, header, query_of
from grid_node.http.payloads import query_payload
from grid_node.http.runner_door import RunnerDoor
from grid_node.http.v1 import RUN_HEADERS, Rule, add_rules
from grid_node.http.v1_runs import Runs, told
from grid_node.runners.model_pages import ModelCatalog, ModelPage
from grid_node.runners.run_requests import NewRunSchema
from grid_node.services import Services


class CursorSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    cursor = StrictText(load_default=None)


CURSOR = CursorSchema()


class V1ModelRoutes:
    """Models that are the caller's or public, their versions, and runs of the newest one."""

    def __init__(self, services: Services, door: RunnerDoor) -> None:
        self._base_url = services.settings.public_url
        self._door = door
        self._runs = Runs(services, door)
        self._catalog = ModelCatalog(services.store, self._base_url)

    def blueprint(self) -> Blueprint:
        made = Blueprint("v1-models", __name__, description="Models of others that may be run.")
        model = "/v1/models/<owner>/<name>"
        created = {"parameters": [header(name) for name in RUN_HEADERS], **body_of(NewRunSchema)}
        paged = query_of(CursorSchema)
        rules: tuple[Rule, ...] = (
            ("/v1/models", "GET", self.models, paged, 200),
            (model, "GET", self.model, {}, 200),
            (f"{model}/versions", "GET", self.versions, paged, 200),
            (f"{model}/versions/<version>", "GET", self.version, {}, 200),
            (f"{model}/predictions", "POST", self.create, created, 201),
            ("/v1/account", "GET", self.account, {}, 200),
        )
        add_rules(made, rules)
        return made

    def models(self) -> Response:
        """Newest first."""
        caller = self._door.client(request)
        return self._page("/v1/models", self._catalog.models(caller, _cursor()))

    def model(self, owner: str, name: str) -> Response:
        """The model with its newest version; `name` may be its id."""
        return told(self._catalog.model(self._door.client(request), owner, name))

    def versions(self, owner: str, name: str) -> Response:
        """Every version that the model has or had, newest first."""
        caller = self._door.client(request)
        found = self._catalog.versions(caller, owner, name, _cursor())
        return self._page(f"/v1/models/{owner}/{name}/versions", found)

    def version(self, owner: str, name: str, version: str) -> Response:
        """One version, with the schema of its input and output."""
        return told(self._catalog.version(self._door.client(request), owner, name, version))

    def create(self, owner: str, name: str) -> Response:
        """Run the newest version. With `Prefer: wait=n` the answer waits for the end: 202 if in vain."""
        return self._runs.create((owner, name))

    def account(self) -> Response:
        """Whose key this is."""
        account = self._door.client(request).account
        return told({"type": "user", "username": account, "name": account})

    def _page(self, path: str, found: ModelPage) -> Response:
        following: str | None = None
        if found.next is not None:
            following = f"{self._base_url}{path}?{urlencode({'cursor': found.next})}"
        body: dict[str, Any] = {"previous": None, "next": following, "results": found.results}
        return told(body)


def _cursor() -> str | None:
    cursor: str | None = load(CURSOR, query_payload(request, CURSOR))["cursor"]
    return cursor
