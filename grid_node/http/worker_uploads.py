"""Uploads of workers: results that are too large for one message, sent in pieces that can be resumed."""

from collections.abc import Mapping

from flask import Blueprint

from grid_node.errors import InvalidPayload, UploadTooLarge
from grid_node.http.auth import Doorkeeper
from grid_node.http.uploads import uploads_blueprint
from grid_node.services import Services
from grid_node.uploads.target import StoredTarget

UPLOAD_URL = "/worker/uploads"


class WorkerUploads:
    """The kind of upload that a lease is for: stored, and taken by the result that names it."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self.target = StoredTarget(
            "worker",
            max_bytes=settings.scoring_max_bytes,
            open_max=settings.uploads_open,
            ttl=settings.upload_ttl,
            check=self._check,
        )

    def blueprint(self, doorkeeper: Doorkeeper) -> Blueprint:
        return uploads_blueprint("worker_uploads", UPLOAD_URL, self._services.uploads, doorkeeper.uploader, self.target)

    def recover(self) -> None:
        """At the start: finish what was whole when the node died."""
        self._services.uploads.recover(self.target)

    def _check(self, owner: str, metadata: Mapping[str, str], length: int) -> None:
        """Only for a lease of the worker's own, and not above what its kind may have. Raises LeaseNotFound."""
        lease_id = metadata.get("lease_id")
        if not lease_id:
            raise InvalidPayload(fields={"Upload-Metadata": ["lease_id is required"]})
        leases = self._services.leases
        _, task = leases.expected(owner, lease_id)
        limit = leases.kind_of(task).max_bytes
        if length > limit:
            raise UploadTooLarge(limit=limit)
