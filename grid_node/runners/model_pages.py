"""Models and versions as clients of `/v1` see them, and lists of them, bounded in rows and in bytes."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, or_, select

from grid_node.clock import rfc3339
from grid_node.database import Store, Transaction
from grid_node.errors import UnknownVersion
from grid_node.runners.agents import standing
from grid_node.runners.cursors import cursor_of, place_of
from grid_node.runners.models import PUBLIC, READY, models, versions
from grid_node.runners.openapi_schema import openapi_schema
from grid_node.runners.ports import RunnerCaller
from grid_node.runners.references import VERSION, named
from grid_node.runners.signature import signature_of
from grid_node.statements import prepared

PAGE = 100
"""Entries of a page."""
PAGE_CHARACTERS = 2 * 1024 * 1024
"""Characters of signatures after which a page ends early; one entry may have more."""
_STEP = 5
"""Rows that are read at a time: a signature may have 256 KiB."""
NO_COG = "unknown"
"""Version of Cog where no worker has told it. The client would take any below 0.3.9 for one without lists."""
_FAR = (1e18, "")

_SHOWN = (
    models.c.id,
    models.c.account,
    models.c.name,
    models.c.visibility,
    models.c.run_count,
    models.c.cog_version,
    models.c.version,
    models.c.document,
    models.c.created_at,
    versions.c.signature,
    versions.c.created_at.label("version_at"),
)
_LATEST = and_(versions.c.model_id == models.c.id, versions.c.version == models.c.version)
_MODELS = prepared(
    select(*_SHOWN)
    .join(versions, _LATEST)
    .where(
        models.c.state == READY,
        or_(models.c.owner == bindparam("me"), models.c.visibility == PUBLIC),
        or_(
            models.c.created_at < bindparam("at"),
            and_(models.c.created_at == bindparam("at"), models.c.id < bindparam("id")),
        ),
    )
    .order_by(models.c.created_at.desc(), models.c.id.desc())
    .limit(_STEP)
)
_MODEL = prepared(select(*_SHOWN).join(versions, _LATEST).where(models.c.id == bindparam("id")))
_VERSION_COLUMNS = (versions.c.version, versions.c.signature, versions.c.created_at)
_VERSIONS = prepared(
    select(*_VERSION_COLUMNS)
    .where(
        versions.c.model_id == bindparam("model"),
        or_(
            versions.c.created_at < bindparam("at"),
            and_(versions.c.created_at == bindparam("at"), versions.c.version < bindparam("id")),
        ),
    )
    .order_by(versions.c.created_at.desc(), versions.c.version.desc())
    .limit(_STEP)
)
_VERSION = prepared(
    select(*_VERSION_COLUMNS).where(
        versions.c.model_id == bindparam("model"), versions.c.version == bindparam("version")
    )
)


class ModelPage(NamedTuple):
    """Newest first. `next` is a cursor."""

    results: list[dict[str, Any]]
    next: str | None


class ModelCatalog:
    """Models that a caller may run: his own and those that are public. All others raise ModelNotFound."""

    def __init__(self, store: Store, base_url: str) -> None:
        self._store = store
        self._base_url = base_url

    def models(self, caller: RunnerCaller, cursor: str | None = None) -> ModelPage:
        """Raises BadCursor."""
        at, id = _FAR if cursor is None else place_of("models", cursor, float, str)

        def read(tx: Transaction, at: float, id: str) -> list[Any]:
            return tx.execute(_MODELS, {"me": caller.owner, "at": at, "id": id}).all()

        def unit(tx: Transaction) -> tuple[list[Any], list[dict[str, Any]], bool]:
            rows, more = _bounded(lambda *edge: read(tx, *edge), at, id, _model_edge)
            return rows, [standing(tx, row.id) for row in rows], more

        rows, standings, more = self._store.read(unit)
        following = cursor_of("models", *_model_edge(rows[-1])) if more else None
        return ModelPage([self._model(*one) for one in zip(rows, standings, strict=True)], following)

    def model(self, caller: RunnerCaller, account: str, name_or_id: str) -> dict[str, Any]:
        def unit(tx: Transaction) -> tuple[Any, dict[str, Any]]:
            id = named(tx, caller, account, name_or_id).id
            return tx.execute(_MODEL, {"id": id}).one(), standing(tx, id)

        return self._model(*self._store.read(unit))

    def versions(self, caller: RunnerCaller, account: str, name_or_id: str, cursor: str | None = None) -> ModelPage:
        """Raises BadCursor."""
        at, id = _FAR if cursor is None else place_of("versions", cursor, float, str)

        def unit(tx: Transaction) -> tuple[Any, list[Any], bool]:
            model = named(tx, caller, account, name_or_id)

            def read(at: float, id: str) -> list[Any]:
                return tx.execute(_VERSIONS, {"model": model.id, "at": at, "id": id}).all()

            return model, *_bounded(read, at, id, _version_edge)

        model, rows, more = self._store.read(unit)
        following = cursor_of("versions", *_version_edge(rows[-1])) if more else None
        found = [_version(row.version, row.created_at, model.cog_version, row.signature) for row in rows]
        return ModelPage(found, following)

    def version(self, caller: RunnerCaller, account: str, name_or_id: str, version: str) -> dict[str, Any]:
        """Raises UnknownVersion."""

        def unit(tx: Transaction) -> tuple[Any, Any]:
            model = named(tx, caller, account, name_or_id)
            if not VERSION.fullmatch(version):
                raise UnknownVersion()
            return model, tx.execute(_VERSION, {"model": model.id, "version": version}).one_or_none()

        model, row = self._store.read(unit)
        if row is None:
            raise UnknownVersion()
        return _version(row.version, row.created_at, model.cog_version, row.signature)

    def _model(self, row: Any, runner: dict[str, Any]) -> dict[str, Any]:
        return {
            "url": f"{self._base_url}/v1/models/{row.account}/{row.name}",
            "id": row.id,
            "owner": row.account,
            "name": row.name,
            "description": _description(row.document),
            "visibility": row.visibility,
            "github_url": None,
            "paper_url": None,
            "license_url": None,
            "cover_image_url": None,
            "run_count": row.run_count,
            "runner": {"status": runner["status"], "connected": runner["connected"]},
            "default_example": None,
            "latest_version": _version(row.version, row.version_at, row.cog_version, row.signature),
            "created_at": rfc3339(row.created_at),
        }


def _version(version: str, at: float, cog_version: str | None, signature: str) -> dict[str, Any]:
    return {
        "id": version,
        "created_at": rfc3339(at),
        "cog_version": cog_version or NO_COG,
        "openapi_schema": openapi_schema(signature_of(signature)),
    }


def _bounded(
    read: Callable[[float, str], list[Any]], at: float, id: str, edge: Callable[[Any], tuple[float, str]]
) -> tuple[list[Any], bool]:
    """Rows from the edge on until the page is full, and whether there are more."""
    found: list[Any] = []
    size = 0
    while rows := read(at, id):
        for row in rows:
            size += len(row.signature)
            if len(found) == PAGE or (found and size > PAGE_CHARACTERS):
                return found, True
            found.append(row)
        at, id = edge(rows[-1])
    return found, False


def _model_edge(row: Any) -> tuple[float, str]:
    return float(row.created_at), row.id


def _version_edge(row: Any) -> tuple[float, str]:
    return float(row.created_at), row.version


def _description(document: str) -> str | None:
    """What the owner wrote of the model beside its signature."""
    text = json.loads(document).get("description")
    return text if isinstance(text, str) else None
