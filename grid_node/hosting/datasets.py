"""Datasets: descriptions of data that lies elsewhere, found by id, tag or part of their description."""

from typing import Any

from grid_node.clock import Clock, rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import DatasetNotFound, Forbidden, InvalidPayload, MissingKey
from grid_node.hosting import dataset_rows, dataset_search
from grid_node.hosting.dataset_schemas import NewDataset
from grid_node.hosting.rights import ModelCaller, owns
from grid_node.hosting.schemas import checked_id
from grid_node.hosting.tables import EVERYBODY
from grid_node.settings import Settings


class Datasets:
    """`/register_dataset`, `/tag_dataset`, `/delete_dataset`, `/datasets`, `/dataset-tags` and `/search`.

    A private dataset exists for its owner alone: to everybody else it is not found, not listed and not searched, and
    its id is free.
    """

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    def register(self, caller: ModelCaller, new: NewDataset) -> dict[str, Any]:
        """Raises DatasetExists, QuotaExceeded, and MissingKey for a private dataset that nobody would own."""
        if new.private and caller.is_anonymous:
            raise MissingKey()
        limit, now = self._limit(caller), self._clock.now()
        self._store.write(lambda tx: dataset_rows.add(tx, caller.key_id, new, limit, now))
        return {"success": True, "message": f"Dataset saved with id: {new.dataset_id}"}

    def tag(self, caller: ModelCaller, dataset_id: str, add: list[str], remove: list[str]) -> dict[str, Any]:
        """The tags afterwards. Raises DatasetNotFound, MissingKey, Forbidden, InvalidPayload."""
        if set(add) & set(remove):
            raise InvalidPayload(fields={"remove": ["has tags that are in add too"]})

        def unit(tx: Transaction) -> list[str]:
            return dataset_rows.retag(tx, _owned(tx, caller, dataset_id), tuple(add), tuple(remove))

        return {"success": True, "tags": self._store.write(unit)}

    def delete(self, caller: ModelCaller, dataset_id: str) -> dict[str, Any]:
        """Raises DatasetNotFound, MissingKey, Forbidden."""
        self._store.write(lambda tx: dataset_rows.remove(tx, _owned(tx, caller, dataset_id)))
        return {"success": True, "message": "Dataset deleted with success!"}

    def page(self, caller: ModelCaller, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        """Oldest first. With `limit` also `next`, the id to go on from. Raises DatasetNotFound for `after`."""
        wanted = None if limit is None else limit + 1
        found = dataset_rows.page(self._store, caller.key_id, wanted, after and _known_id(after))
        shown = [described(row, words) for row, words in found[:limit]]
        following = {} if limit is None else {"next": shown[-1]["id"] if len(found) > limit else None}
        return {"success": True, "datasets": shown, **following}

    def tags(self, caller: ModelCaller) -> list[str]:
        """Every tag of a dataset, once, sorted by code points. Tags of models are not in it."""
        return self._store.read(lambda tx: dataset_rows.all_tags(tx, caller.key_id))

    def search(self, caller: ModelCaller, terms: tuple[str, ...]) -> dict[str, Any]:
        """Whether one dataset matches all terms; case-sensitive."""
        return {"content": dataset_search.matches(self._store, caller.key_id, terms)}

    def _limit(self, caller: ModelCaller) -> int:
        settings = self._settings
        return settings.models_anonymous_quota_count if caller.is_anonymous else settings.models_quota_count


def _owned(tx: Transaction, caller: ModelCaller, dataset_id: str) -> Any:
    """The row, if the caller may change it. Raises DatasetNotFound, MissingKey, Forbidden."""
    row = dataset_rows.find(tx, caller.key_id, _known_id(dataset_id))
    if not owns(caller, row.owner) and not caller.is_admin:
        raise MissingKey() if caller.is_anonymous else Forbidden("Only its owner may change this")
    return row


def _known_id(text: str) -> str:
    name = checked_id(text)
    if name is None:
        raise DatasetNotFound()
    return name


def described(row: Any, words: list[str]) -> dict[str, Any]:
    """A row with its tags as clients see it."""
    return {
        "id": row.id,
        "description": row.description,
        "tags": words,
        "uri": row.uri,
        "sha256": row.sha256,
        "size": row.size,
        "private": row.space != EVERYBODY,
        "created_at": rfc3339(row.created_at),
    }
