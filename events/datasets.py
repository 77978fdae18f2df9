"""Events of datasets: load, call, dump."""

from typing import Any

from events.connection import ClientSessions
from events.paths import PathEvents
from grid_node.fields import load
from grid_node.hosting.dataset_schemas import DATASET, DATASETS_PAGE, NOTHING, TAG, load_dataset, load_terms
from grid_node.hosting.rights import ModelCaller
from grid_node.services import Services
from grid_node.wire.events import Ack


class DatasetEvents:
    """`/dataset-tags`, `/search`, `/register_dataset`, `/tag_dataset`, `/delete_dataset`, `/datasets`."""

    def __init__(self, services: Services, sessions: ClientSessions) -> None:
        self._access = services.hosting.access
        self._datasets = services.hosting.datasets
        self._sessions = sessions

    def register(self, paths: PathEvents) -> None:
        paths.on("/dataset-tags", self.dataset_tags)
        paths.on("/search", self.search)
        paths.on("/register_dataset", self.register_dataset)
        paths.on("/tag_dataset", self.tag_dataset)
        paths.on("/delete_dataset", self.delete_dataset)
        paths.on("/datasets", self.datasets)

    def dataset_tags(self, sid: str, payload: Any) -> Ack:
        caller = self._caller(sid)
        load(NOTHING, payload)
        return self._datasets.tags(caller)

    def search(self, sid: str, payload: Any) -> Ack:
        return self._datasets.search(self._caller(sid), load_terms(payload))

    def register_dataset(self, sid: str, payload: Any) -> Ack:
        return self._datasets.register(self._caller(sid, writes=True), load_dataset(payload))

    def tag_dataset(self, sid: str, payload: Any) -> Ack:
        return self._datasets.tag(self._caller(sid, writes=True), **load(TAG, payload))

    def delete_dataset(self, sid: str, payload: Any) -> Ack:
        return self._datasets.delete(self._caller(sid, writes=True), **load(DATASET, payload))

    def datasets(self, sid: str, payload: Any) -> Ack:
        return self._datasets.page(self._caller(sid), **load(DATASETS_PAGE, payload))

    def _caller(self, sid: str, *, writes: bool = False) -> ModelCaller:
        return self._access.by_id(self._sessions.key_id(sid), writes=writes)
