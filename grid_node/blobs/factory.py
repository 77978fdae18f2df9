"""Which store a setting means."""

from pathlib import Path

from grid_node.blobs.local import LocalBlobs
from grid_node.blobs.remote import RemoteBlobs
from grid_node.blobs.store import Blobs, Offload


def make_blobs(url: str, cache: Path, offload: Offload) -> Blobs:
    """The store of GRID_BLOBS_URL: a folder, or an fsspec URL whose copies are cached in `cache`."""
    if "://" in url:
        return RemoteBlobs(url, cache, offload)
    return LocalBlobs(Path(url), offload)
