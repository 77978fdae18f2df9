"""Events of `/v1`: predictions on the models of others. Acks are the bodies that HTTP answers."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate

from events.key_sessions import KeySessions
from events.publisher import RUNS, Publisher
from grid_node.errors import InvalidPayload
from grid_node.fields import StrictText, load
from grid_node.runners.prediction import Prediction
from grid_node.runners.problems import as_problems
from grid_node.runners.run_events import DONE, RunEvent, Start, run_event, start_of
from grid_node.runners.run_requests import BESIDE_INPUT, new_run
from grid_node.services import Services
from grid_node.streams.service import Entry, Subscription
from grid_node.wire.events import Ack, Answer, Events, Handler, Later
from grid_node.wire.server import WireServer

SCOPE = "client"


class IdSchema(Schema):
    id = StrictText(required=True, validate=validate.Length(min=1, max=128))


class SubscribeSchema(IdSchema):
    after = StrictText(load_default=None, allow_none=True, validate=validate.Length(max=64))


class ListSchema(Schema):
    cursor = StrictText(load_default=None, allow_none=True)
    external_id = StrictText(load_default=None, allow_none=True)


class CreateSchema(Schema):
    """What HTTP says by address and headers; the rest is the body."""

    class Meta:
        unknown = EXCLUDE

    model = StrictText(load_default=None, allow_none=True, validate=validate.Length(max=140))
    cancel_after = StrictText(load_default=None, allow_none=True)
    idempotency_key = StrictText(load_default=None, allow_none=True)
    input = fields.Raw(allow_none=True)


ID, SUBSCRIBE, LIST, CREATE = IdSchema(), SubscribeSchema(), ListSchema(), CreateSchema()


class V1Events:
    """`predictions.create|get|list|cancel|delete|subscribe`; pushes `prediction.event`."""

    def __init__(self, services: Services, server: WireServer, publisher: Publisher) -> None:
        self._services = services
        self._publisher = publisher
        self.sessions = KeySessions(services, SCOPE)
        self._followed: dict[str, dict[str, Subscription]] = {}
        server.message_limits[RUNS] = services.settings.input_max_bytes + BESIDE_INPUT

    def register(self, events: Events) -> None:
        events.on_connect(self.connect)
        events.on_disconnect(self.disconnect)
        handlers: dict[str, Handler] = {
            "create": self.create,
            "get": self.get,
            "list": self.list,
            "cancel": self.cancel,
            "delete": self.delete,
            "subscribe": self.subscribe,
        }
        for name, handler in handlers.items():
            events.on(f"predictions.{name}", _telling_problems(handler), waits=True)

    # --- sockets ----------------------------------------------------------------------------------------------

    def connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        with as_problems():
            self.sessions.connect(sid, environ, auth)
        self._followed[sid] = {}

    def disconnect(self, sid: str, reason: str) -> None:
        self.sessions.disconnect(sid, reason)
        for subscription in self._followed.pop(sid, {}).values():
            subscription.close()

    # --- events -----------------------------------------------------------------------------------------------

    @property
    def _predictions(self) -> Any:
        return self._services.running.predictions

    def create(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        given = load(CREATE, payload)
        new = new_run(
            payload,
            model=None if given["model"] is None else _model(given["model"]),
            cancel_after=given["cancel_after"],
            idempotency_key=given["idempotency_key"],
        )
        return self._view(self._predictions.create(caller, new))

    def get(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        return self._view(self._predictions.get(caller, load(ID, payload)["id"]))

    def list(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        page: dict[str, Any] = self._predictions.page_view(self._predictions.page(caller, **load(LIST, payload)))
        return page

    def cancel(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        return self._view(self._predictions.cancel(caller, load(ID, payload)["id"]))

    def delete(self, sid: str, payload: Any) -> None:
        caller = self.sessions.caller(sid)
        self._predictions.delete(caller, load(ID, payload)["id"])

    def subscribe(self, sid: str, payload: Any) -> Answer:
        """The prediction, then every update behind `after`, from the first on if that is null or no place of it."""
        caller, grid = self.sessions.caller(sid), self._services
        given = load(SUBSCRIBE, payload)
        found = self._predictions.get(caller, given["id"])
        start = grid.store.read(partial(start_of, streams=grid.streams, prediction=found, given=given["after"]))
        answer = {"success": True, "prediction": self._view(found), "recovered": start.recovered}
        later = Later()
        later.finish(answer, partial(self._follow, sid, found, start))
        return later

    def _view(self, prediction: Prediction) -> dict[str, Any]:
        view: dict[str, Any] = self._predictions.view(prediction)
        return view

    # --- updates ----------------------------------------------------------------------------------------------

    def _follow(self, sid: str, prediction: Prediction, start: Start) -> None:
        """Push what is there; later updates as they come."""
        if start.instead is not None:
            for event in start.instead:
                self._push(sid, prediction, event)
            return
        over = threading.Event()
        deliver = partial(self._deliver, sid, prediction, over)
        subscription = self._services.streams.subscribe(prediction.stream, start.after, deliver)
        followed = self._followed.get(sid)
        if followed is None:  # gone meanwhile
            subscription.close()
            return
        older = followed.pop(prediction.stream, None)
        if older is not None:
            older.close()
        followed[prediction.stream] = subscription
        reached = -1
        while reached != subscription.seq:
            reached = subscription.seq
            subscription.catch_up()
        if over.is_set():  # perhaps before it was kept
            self._drop(sid, prediction)

    def _deliver(self, sid: str, prediction: Prediction, over: threading.Event, entry: Entry) -> None:
        self._push(sid, prediction, run_event(prediction, entry))
        if entry.body["event"] == DONE:
            over.set()
            self._drop(sid, prediction)

    def _drop(self, sid: str, prediction: Prediction) -> None:
        subscription = self._followed.get(sid, {}).pop(prediction.stream, None)
        if subscription is not None:
            subscription.close()

    def _push(self, sid: str, prediction: Prediction, event: RunEvent) -> None:
        self._publisher.prediction_event(sid, {"id": prediction.id, **event._asdict()})


def _telling_problems(handler: Handler) -> Callable[[str, Any], Answer]:
    """Refusals have the members that HTTP has below `/v1/`."""

    def told(sid: str, payload: Any) -> Answer:
        with as_problems():
            return handler(sid, payload)

    return told


def _model(text: str) -> tuple[str, str]:
    """Account and name of `account/name`. Raises InvalidPayload."""
    account, _, name = text.partition("/")
    if not account or not name:
        raise InvalidPayload(fields={"model": ["Must be owner/name."]})
    return account, name
