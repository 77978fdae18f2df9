"""What can be read of hosted models: lists, whether a copy is allowed, the bytes."""

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from grid_node.blobs.store import Blobs
from grid_node.clock import rfc3339
from grid_node.compute.port import Compute
from grid_node.database import Store
from grid_node.errors import DownloadNotAllowed, ModelNotFound, ModelTooLarge
from grid_node.hosting import lists, rows
from grid_node.hosting.encoding import encoded
from grid_node.hosting.rights import ModelCaller, exists_for, may_download, require_download
from grid_node.hosting.rows import VersionRow
from grid_node.hosting.schemas import known_id

RESTING = 500
"""Rows described between two moments in which others may run."""


@dataclass(frozen=True)
class Content:
    """Bytes that may be handed out."""

    row: VersionRow
    sha256: str


class Reading:
    """`/models`, `/detailed_models_list`, `/is_model_copy_allowed`, `/get_model` and the content routes."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    def models(self, limit: int | None = None, after: str | None = None) -> dict[str, Any]:
        """Ids, oldest first. With `limit` also `next`, the id to go on from. Raises ModelNotFound for `after`."""
        if limit is None and after is None:
            return {"success": True, "models": self._store.read(lists.ids)}
        size = limit or 2**31 - 2
        found = self._store.read(partial(lists.page_of_ids, limit=size + 1, after=after))
        return {"success": True, "models": found[:size], **_next(limit, found)}

    def detailed(
        self, caller: ModelCaller, limit: int | None = None, after: str | None = None, tag: str | None = None
    ) -> dict[str, Any]:
        size = None if limit is None else limit + 1
        read = partial(lists.page, owner=caller.key_id, limit=size, after=after, tag=tag)
        found = self._store.read(read)
        shown = []
        for number, (row, numbers) in enumerate(found[:limit], 1):
            shown.append(_described(caller, row, numbers))
            if number % RESTING == 0:
                time.sleep(0)
        return {"success": True, "models": shown, **_next(limit, [row.id for row, _ in found])}

    def copy_allowed(self, caller: ModelCaller, model_id: str) -> dict[str, Any]:
        """Never an error: `no` has two members, as the first clients know it."""
        try:
            require_download(caller, self.find(model_id))
        except (ModelNotFound, DownloadNotAllowed) as error:
            return {"success": False, "error": error.message}
        return {"success": True}

    def get(
        self, caller: ModelCaller, model_id: str, version: int | None, encoding: str | None, limit: int
    ) -> dict[str, Any]:
        """The bytes, as they are or as text. Raises ModelNotFound, DownloadNotAllowed, ModelTooLarge, ModelCorrupt."""
        content = self.content(caller, model_id, version)
        row = content.row
        if row.size > limit:
            raise ModelTooLarge(size=row.size, limit=limit, download_url=download_url(row, version))
        data = self._blobs.read_checked(content.sha256, limit)
        return {"serialized_model": data if encoding is None else encoded(data, encoding)}

    def content(self, caller: ModelCaller, model_id: str, version: int | None = None) -> Content:
        """What a download may send. Raises ModelNotFound, DownloadNotAllowed, ModelCorrupt."""
        row = self.find(model_id, version)
        require_download(caller, row)
        if row.sha256 is None:
            raise DownloadNotAllowed()
        return Content(row, row.sha256)

    def find(self, model_id: str, version: int | None = None) -> VersionRow:
        """Whoever asks; `rights` says for whom it exists. Raises ModelNotFound."""
        name = known_id(model_id)
        return self._store.read(lambda tx: rows.find(tx, name, version))


class Deleting:
    """`/delete_model`."""

    def __init__(self, store: Store, compute: Compute, placed: Any) -> None:
        self._store = store
        self._compute = compute
        self._placed = placed

    def delete(self, caller: ModelCaller, model_id: str, version: int | None = None) -> dict[str, Any]:
        """Raises ModelNotFound, Forbidden, MissingKey. Shares that this node placed are taken back later."""
        name = known_id(model_id)

        def unit(tx: Any) -> list[VersionRow]:
            self._placed.take_back_later(tx, name, version)
            return rows.remove(tx, caller, name, version)

        for row in self._store.write(unit):
            self._compute.forget(row.key)
        return {"success": True, "message": "Model deleted with success!"}


def download_url(row: VersionRow, version: int | None = None) -> str:
    """Path of the bytes."""
    middle = "" if version is None else f"/versions/{version}"
    return f"/models/{quote(row.id, safe='')}{middle}/content"


def _next(limit: int | None, ids: list[str]) -> dict[str, Any]:
    if limit is None:
        return {}
    return {"next": ids[limit - 1] if len(ids) > limit else None}


def _described(caller: ModelCaller, row: VersionRow, numbers: list[int]) -> dict[str, Any]:
    return {
        "id": row.id,
        "allow_download": row.allow_download,
        "allow_remote_inference": row.allow_remote_inference,
        "mpc": row.mpc,
        "model_size": f"{row.size / 1000:.15g}KB",
        "size": row.size,
        "sha256": row.sha256 if exists_for(caller, row) and may_download(caller, row) else None,
        "version": row.version,
        "versions": numbers,
        "format": row.format,
        "tags": json.loads(row.tags),
        "description": row.description,
        "created_at": rfc3339(row.created_at),
    }
