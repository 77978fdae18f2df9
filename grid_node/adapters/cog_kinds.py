"""Which kind of task a model does, and which format its file has there."""

from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath

from grid_node.adapters import cog_leases
from grid_node.database import Store
from grid_node.generation.leases import Kind

ANY_FILE = "file"
"""The format of a kind that takes every file."""
_ALSO = {"txt": "text"}
"""Formats by an extension that is not their name."""


class TaskKinds:
    """What models were registered for, read again when they were changed: it may stand in a long document."""

    def __init__(self, store: Store, kinds: Mapping[str, Kind]) -> None:
        self._store = store
        self._kinds = kinds
        self._read: dict[str, tuple[int, str]] = {}

    def of(self, revisions: Mapping[str, int]) -> dict[str, Kind]:
        """By model; without those whose kind is not known here (any more). `revisions`: of the models, by id."""
        kept = {id: read for id, read in self._read.items() if revisions.get(id) == read[0]}
        changed = revisions.keys() - kept.keys()
        if changed:
            kept |= self._store.read(partial(cog_leases.kinds_of, ids=changed))
        self._read = kept
        return {id: self._kinds[name] for id, (_, name) in kept.items() if name in self._kinds}

    def format_of(self, kind: str | None, filename: str) -> str | None:
        """None: a task of this kind has no use for the file."""
        known = self._kinds.get(kind or "")
        formats = known.formats if known is not None else ()
        if ANY_FILE in formats:
            return ANY_FILE
        extension = PurePosixPath(filename).suffix[1:].lower()
        named = _ALSO.get(extension, extension)
        return named if named in formats else None
