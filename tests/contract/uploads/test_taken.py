"""What a worker handed in by upload is out of its hands."""

from pathlib import Path

import pytest

from grid_node.adapters.generation import StoredUploads
from grid_node.blobs.local import LocalBlobs
from grid_node.clock import ManualClock
from grid_node.database import Store
from grid_node.errors import RateLimited
from grid_node.uploads.service import UploadService
from grid_node.uploads.target import StoredTarget
from tests.stores import call, postgres_tables, sqlite_template, store

__all__ = ["postgres_tables", "sqlite_template", "store"]

OWNER = "5Worker"


def test_a_taken_upload_leaves_room_for_the_next_one(store: Store, tmp_path: Path) -> None:
    uploads = UploadService(store, LocalBlobs(tmp_path / "blobs", call), ManualClock(), tmp_path / "uploads", call)
    target = StoredTarget("worker", max_bytes=100, open_max=1, ttl=1000.0)
    for number in range(3):
        upload_id = uploads.create(OWNER, target, 1, "").id
        with pytest.raises(RateLimited):
            uploads.create(OWNER, target, 1, "")
        uploads.append(OWNER, target, upload_id, 0, lambda _most, byte=b"abc"[number : number + 1]: iter([byte]))
        assert StoredUploads(store, uploads).take(OWNER, upload_id).size == 1
