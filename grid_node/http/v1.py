"""`/v1/predictions`: predictions on the models of others, as Replicate's clients know them."""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, request
from flask_smorest import Blueprint
from marshmallow import EXCLUDE, Schema, validate

from grid_node.fields import StrictInt, StrictText, load
from grid_node.http.connections import Connections
from grid_node.http.documents import ERRORS, answers, body_of, header, query_of
from grid_node.http.following import Follower
from grid_node.http.payloads import query_payload
from grid_node.http.run_stream import RunStream, event_text
from grid_node.http.runner_door import RunnerDoor
from grid_node.http.v1_runs import Runs, told
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.prediction import Prediction
from grid_node.runners.run_events import Start, ended_meanwhile, start_of
from grid_node.runners.run_requests import NewRunSchema
from grid_node.services import Services

Rule = tuple[str, str, Callable[..., Response], dict[str, Any], int]
"""Address, method, view, what the OpenAPI document says of its input, status of success."""

EVENTS_PAGE = 100


class PageSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    cursor = StrictText(load_default=None)
    external_id = StrictText(load_default=None)


class ReportsSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    after = StrictInt(load_default=0, validate=validate.Range(min=0, max=2**31))
    limit = StrictInt(load_default=EVENTS_PAGE, validate=validate.Range(min=1, max=500))


PAGE = PageSchema()
REPORTS = ReportsSchema()


class V1Routes:
    """Predictions of the holder of an API key."""

    def __init__(self, services: Services, door: RunnerDoor, connections: Connections) -> None:
        self._services = services
        self._door = door
        self._connections = connections
        self._runs = Runs(services, door)

    def blueprint(self) -> Blueprint:
        made = Blueprint("v1-predictions", __name__, description="Predictions on the models of others.")
        one = "/v1/predictions/<id>"
        created = {"parameters": [header(name) for name in RUN_HEADERS], **body_of(NewRunSchema)}
        rules: tuple[Rule, ...] = (
            ("/v1/predictions", "POST", self.create, created, 201),
            ("/v1/predictions", "GET", self.page, query_of(PageSchema), 200),
            (one, "GET", self.get, {}, 200),
            (one, "DELETE", self.delete, {}, 204),
            (f"{one}/cancel", "POST", self.cancel, {}, 200),
            (f"{one}/stream", "GET", self.stream, {"parameters": [header("Last-Event-ID")]}, 200),
            (f"{one}/events", "GET", self.events, query_of(ReportsSchema), 200),
        )
        add_rules(made, rules)
        return made

    @property
    def _predictions(self) -> Any:
        return self._services.running.predictions

    def create(self) -> Response:
        """Run the model that `version` names. With `Prefer: wait=n` the answer waits for the end: 202 if in vain."""
        return self._runs.create()

    def page(self) -> Response:
        """The key's predictions, newest first; with `external_id` those that a worker calls so."""
        caller = self._door.client(request)
        found = self._predictions.page(caller, **load(PAGE, query_payload(request, PAGE)))
        return told(self._predictions.page_view(found))

    def get(self, id: str) -> Response:
        """The prediction as it stands."""
        caller = self._door.client(request)
        return told(self._predictions.view(self._predictions.get(caller, id)))

    def cancel(self, id: str) -> Response:
        """End it; one that has ended is returned as it is."""
        caller = self._door.client(request)
        return told(self._predictions.view(self._predictions.cancel(caller, id)))

    def delete(self, id: str) -> Response:
        """Remove its input, output, logs, reports and files; the row stays."""
        self._predictions.delete(self._door.client(request), id)
        return Response(status=204)

    def events(self, id: str) -> Response:
        """What its worker reported, as it came, oldest first."""
        caller = self._door.client(request)
        given = load(REPORTS, query_payload(request, REPORTS))
        found = self._services.running.webhooks.events(caller, id, given["after"], given["limit"])
        following = None
        if found.next is not None:
            more = urlencode({"after": found.next, "limit": given["limit"]})
            address = f"{self._services.settings.public_url}/v1/predictions/{quote(id, safe='')}/events"
            following = f"{address}?{more}"
        return told({"next": following, "results": found.results})

    # --- updates ----------------------------------------------------------------------------------------------

    def stream(self, id: str) -> Response:
        """Output, logs and end as server-sent events, from `Last-Event-ID` on; 204 behind the last."""
        caller = self._door.client(request)
        prediction, start = self._start(caller, id)
        if start.instead == []:
            return Response(status=204)
        answer = Response(mimetype="text/event-stream")
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Accel-Buffering"] = "no"
        if request.method != "GET":
            return answer
        if start.instead is not None:
            answer.response = [event_text(event) for event in start.instead]
        else:
            answer.response = self._stream(prediction, start.after)
        return answer

    def _start(self, caller: RunnerCaller, id: str) -> tuple[Prediction, Start]:
        grid = self._services
        prediction = self._predictions.get(caller, id)
        last = request.headers.get("Last-Event-ID")
        return prediction, grid.store.read(
            partial(start_of, streams=grid.streams, prediction=prediction, given=last.strip() if last else None)
        )

    def _stream(self, prediction: Prediction, after: int) -> RunStream:
        grid = self._services
        follower = Follower(grid.streams, prediction.stream, after)
        ended = partial(ended_meanwhile, grid.store, prediction)
        stall = grid.settings.public_api_ws_stall
        return RunStream(request.environ, prediction, follower, self._connections, stall, ended)


RUN_HEADERS = ("Prefer", "Cancel-After", "Idempotency-Key")


def add_rules(made: Blueprint, rules: tuple[Rule, ...]) -> None:
    for rule, method, view, documents, status in rules:
        documented = made.doc(**documents, responses={**answers(status), **ERRORS}, security=[{"key": []}])
        made.add_url_rule(rule, f"{view.__name__}", documented(view), methods=[method])
