"""Uploads of models: too large for one message, sent in pieces that can be resumed, published by the last one."""

from collections.abc import Mapping
from string import printable
from urllib.parse import quote

from flask import Blueprint, Request

from grid_node.blobs.store import Blob
from grid_node.errors import InvalidPayload
from grid_node.hosting.forms import form_payload
from grid_node.hosting.rights import ModelCaller
from grid_node.hosting.schemas import SERVE, ServeRequest, load_serve
from grid_node.hosting.serving import Served
from grid_node.http.auth import address_of
from grid_node.http.uploads import uploads_blueprint
from grid_node.services import Services
from grid_node.uploads.tables import PUBLISHED
from grid_node.uploads.target import Completion, FinishedUpload
from grid_node.web import key_of_environ

UPLOAD_URL = "/uploads"
KEPT = 86400.0
"""Seconds for which a finished upload tells its outcome: as long as an idempotency key does."""


class ModelTarget:
    """The kind of upload that is published as a model. Its owner is a key's id, or ANONYMOUS."""

    kind = "model"
    done = PUBLISHED
    kept = KEPT
    told = ("model_id", "version")
    secrets = ("share_token",)

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self.max_bytes = settings.models_max_bytes
        self.open_max = settings.models_uploads_open
        self.ttl = settings.models_upload_ttl
        self.patience: float | None = settings.models_check_timeout

    def room(self, owner: str) -> int | None:
        """What is not whole yet takes no more of the disk than what is."""
        settings = self._services.settings
        return settings.models_quota_bytes if owner else settings.models_anonymous_quota_bytes

    def check(self, owner: str, metadata: Mapping[str, str], length: int) -> None:
        """Everything that `/serve_model` would refuse before it saw the bytes."""
        self._services.hosting.serving.check(self._caller(owner), serve_request(metadata), length)

    def completed(self, upload: FinishedUpload, blob: Blob) -> Completion:
        request = serve_request(upload.metadata)
        served = self._services.hosting.serving.publish(self._caller(upload.owner), request, blob, upload.id)
        return Completion(fields={"model_id": served.model_id, "version": served.version}, headers=headers_of(served))

    def _caller(self, owner: str) -> ModelCaller:
        """The key as it is now: one that was revoked since publishes nothing. Raises InvalidKey, Forbidden."""
        return self._services.hosting.access.by_id(owner or None, writes=True)


class ModelUploads:
    """tus at `/uploads`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.target = ModelTarget(services)

    def blueprint(self) -> Blueprint:
        return uploads_blueprint("model_uploads", UPLOAD_URL, self._services.uploads, self._identify, self.target)

    def recover(self) -> None:
        """Publish what was whole when a node died, or when a check failed through a fault of ours."""
        self._services.uploads.recover(self.target)

    def _identify(self, request: Request) -> str:
        """Raises MissingKey, InvalidKey, Forbidden, TooManyBadKeys."""
        key, address = key_of_environ(request.environ), address_of(request)
        return self._services.hosting.access.by_key(key, address, writes=True).key_id


def serve_request(metadata: Mapping[str, str]) -> ServeRequest:
    """The fields of `/serve_model` in Upload-Metadata; lists and objects are JSON text. Raises InvalidPayload."""
    if "model" in metadata:
        raise InvalidPayload(fields={"model": ["comes as the bytes of the upload"]})
    return load_serve(form_payload(metadata.items(), SERVE))


def headers_of(served: Served) -> dict[str, str]:
    """What is not ASCII in an id is percent-coded; `%` itself is never part of one."""
    return {"Model-Id": quote(served.model_id, safe=printable), "Model-Version": str(served.version)}
