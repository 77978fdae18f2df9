"""Fixtures of every suite."""

import os
from collections.abc import Iterator

import pytest

from tests.nodes import ROOT, LiveNode

os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))  # compiled once, not once for each node
from tests.services import pytest_runtest_makereport
from tests.syft_files import syft_files
from tests.text_node import new_text_client, new_text_worker, text_node, text_worker_key

__all__ = [
    "live_node",
    "new_text_client",
    "new_text_worker",
    "pytest_runtest_makereport",
    "syft_files",
    "text_node",
    "text_worker_key",
]


@pytest.fixture(scope="module")
def live_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    """A running node with its job process; workers and keys as the test asks for them."""
    node = LiveNode(tmp_path_factory.mktemp("node"))
    node.start()
    try:
        yield node
    finally:
        node.stop()
