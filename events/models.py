"""Events of hosted models: load, call, dump. A name may end with a slash, and two carry an id in it."""

from typing import Any
from urllib.parse import unquote

from events.connection import ClientSessions
from grid_node.errors import InvalidPayload, UnknownEvent
from grid_node.fields import load
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import DELETE, DETAILED_PAGE, FETCH, INFERENCE, PAGE, REFERENCE, load_serve
from grid_node.services import Services
from grid_node.wire.events import Ack, Events

WITH_ID = ("/get_model", "/is_model_copy_allowed")
"""Events whose name may go on with `/<model_id>`."""


class ModelEvents:
    """`/models`, `/detailed_models_list`, `/is_model_copy_allowed`, `/get_model`, `/serve_model`, `/delete_model`,
    `/run_inference`, `/search-encrypted-models`."""

    def __init__(self, services: Services, sessions: ClientSessions) -> None:
        self._services = services
        self._hosting = services.hosting
        self._sessions = sessions
        self._named = {
            "/models": self.models,
            "/detailed_models_list": self.detailed_models_list,
            "/is_model_copy_allowed": self.is_model_copy_allowed,
            "/get_model": self.get_model,
            "/serve_model": self.serve_model,
            "/delete_model": self.delete_model,
            "/run_inference": self.run_inference,
            "/search-encrypted-models": self.search_encrypted_models,
        }

    def register(self, events: Events) -> None:
        for name, handler in self._named.items():
            events.on(name, handler, waits=True)
            events.on(name + "/", handler, waits=True)
        events.fallback(self.by_path, waits=True)

    def by_path(self, sid: str, name: str, payload: Any) -> Ack:
        """`/get_model/<id>` and `/is_model_copy_allowed/<id>`: the id is percent-decoded once."""
        for event in WITH_ID:
            if name.startswith(event + "/"):
                return self._named[event](sid, _with_id(name[len(event) + 1 :], payload))
        raise UnknownEvent()

    def models(self, sid: str, payload: Any) -> Ack:
        self._caller(sid)
        return self._hosting.reading.models(**load(PAGE, payload))

    def detailed_models_list(self, sid: str, payload: Any) -> Ack:
        return self._hosting.reading.detailed(self._caller(sid), **load(DETAILED_PAGE, payload))

    def is_model_copy_allowed(self, sid: str, payload: Any) -> Ack:
        caller = self._caller(sid)
        return self._hosting.reading.copy_allowed(caller, load(REFERENCE, payload)["model_id"])

    def get_model(self, sid: str, payload: Any) -> Ack:
        given = load(FETCH, payload)
        caller = self._caller(sid, token=given["share_token"])
        limit = self._services.settings.models_message_max
        return self._hosting.reading.get(caller, given["model_id"], given["version"], given["encoding"], limit)

    def serve_model(self, sid: str, payload: Any) -> Ack:
        caller = self._caller(sid, writes=True)
        return self._hosting.serving.serve(caller, load_serve(payload)).body()

    def delete_model(self, sid: str, payload: Any) -> Ack:
        caller = self._caller(sid, writes=True)
        return self._hosting.deleting.delete(caller, **load(DELETE, payload))

    def run_inference(self, sid: str, payload: Any) -> Ack:
        caller = self._caller(sid)
        return self._hosting.inference.predict(caller, load(INFERENCE, payload))

    def search_encrypted_models(self, sid: str, payload: Any) -> Ack:
        return self._hosting.encrypted.search(self._caller(sid), payload)

    def _caller(self, sid: str, *, writes: bool = False, token: str | None = None) -> ModelCaller:
        session = self._sessions.get(sid)
        key_id = None if session is None else session.key_id
        return self._hosting.access.by_id(key_id, writes=writes, token=token)


def _with_id(encoded: str, payload: Any) -> Any:
    """The payload with the id of the event's name; what cannot be decoded stays as it is and is not found."""
    if not isinstance(payload, dict):
        return payload
    if "model_id" in payload:
        raise InvalidPayload(fields={"model_id": ["is in the name of the event already"]})
    name = encoded.removesuffix("/") if encoded.count("/") == 1 else encoded
    return {**payload, "model_id": unquote(name, errors="replace")}
