"""Events of model owners, namespace `/pc`: who a socket is, then load, call, dump."""

from typing import Any

from events.key_sessions import KeySessions
from grid_node.fields import load
from grid_node.runners.model_requests import MODELS, NAMED_LOOK, NAMED_REMOVAL, taken
from grid_node.runners.replays import checked_key
from grid_node.services import Services
from grid_node.wire.events import Ack, Events

PC = "/pc"


class PcEvents:
    """`predict_signature.create`, `.get`, `.update`, `.patch`, `.delete`, and `models.list`. The ack is the body that
    HTTP would answer; what a request has in its address and headers (`id`, `if_match`, `idempotency_key`) stands
    beside the members of the document."""

    def __init__(self, services: Services) -> None:
        self._registration = services.running.registration
        self.sessions = KeySessions(services, "runner")

    def register(self, events: Events) -> None:
        events.on_connect(self.sessions.connect)
        events.on_disconnect(self.sessions.disconnect)
        events.on("predict_signature.create", self.create, waits=True)
        events.on("predict_signature.get", self.get, waits=True)
        events.on("predict_signature.update", self.update, waits=True)
        events.on("predict_signature.patch", self.patch, waits=True)
        events.on("predict_signature.delete", self.delete, waits=True)
        events.on("models.list", self.models, waits=True)

    def create(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        document, (key,) = taken(payload, "idempotency_key")
        return self._registration.create(caller, document, checked_key(key))

    def get(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        found, _etag = self._registration.get(caller, **load(NAMED_LOOK, payload))
        return found

    def update(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        document, (id, if_match) = taken(payload, "id", "if_match")
        return self._registration.replace(caller, id or "", document, if_match)

    def patch(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        patch, (id, if_match) = taken(payload, "id", "if_match")
        return self._registration.patch(caller, id or "", patch, if_match)

    def delete(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        return self._registration.delete(caller, **load(NAMED_REMOVAL, payload))

    def models(self, sid: str, payload: Any) -> Ack:
        caller = self.sessions.caller(sid)
        return self._registration.models(caller, **load(MODELS, payload))
