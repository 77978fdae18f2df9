"""Events of hosted models: load, call, dump."""

from typing import Any

from events.connection import ClientSessions
from events.paths import PathEvents
from grid_node.fields import load
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import DELETE, DETAILED_PAGE, FETCH, INFERENCE, PAGE, REFERENCE, load_serve
from grid_node.services import Services
from grid_node.wire.events import Ack

ELEMENT = 8
"""Bytes of a message that stand for one element of an output: an ack of so many elements fits into the transport."""


class ModelEvents:
    """`/models`, `/detailed_models_list`, `/is_model_copy_allowed`, `/get_model`, `/serve_model`, `/delete_model`,
    `/run_inference`, `/search-encrypted-models`."""

    def __init__(self, services: Services, sessions: ClientSessions) -> None:
        self._services = services
        self._hosting = services.hosting
        self._sessions = sessions

    def register(self, paths: PathEvents) -> None:
        paths.on("/models", self.models)
        paths.on("/detailed_models_list", self.detailed_models_list)
        paths.on("/is_model_copy_allowed", self.is_model_copy_allowed, with_id=True)
        paths.on("/get_model", self.get_model, with_id=True)
        paths.on("/serve_model", self.serve_model)
        paths.on("/delete_model", self.delete_model)
        paths.on("/run_inference", self.run_inference)
        paths.on("/search-encrypted-models", self.search_encrypted_models)

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
        most = self._services.settings.models_message_max // ELEMENT
        return self._hosting.inference.predict(caller, load(INFERENCE, payload), most)

    def search_encrypted_models(self, sid: str, payload: Any) -> Ack:
        return self._hosting.encrypted.search(self._caller(sid), payload)

    def _caller(self, sid: str, *, writes: bool = False, token: str | None = None) -> ModelCaller:
        return self._hosting.access.by_id(self._sessions.key_id(sid), writes=writes, token=token)
