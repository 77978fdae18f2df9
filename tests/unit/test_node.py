"""What a node clears up from time to time."""

from unittest.mock import MagicMock

import pytest

from grid_node.errors import StoreUnavailable
from grid_node.node import Node


def test_a_store_of_blobs_that_fails_keeps_nothing_else_from_being_cleared_up():
    grid = MagicMock()
    grid.store.write.side_effect = lambda unit: unit(None)
    grid.clock.now.return_value = 100_000.0
    grid.settings.blob_gc_grace = 1000.0
    grid.settings.public_api_task_ttl = 10.0
    grid.predicting.settling.purge.return_value = 0
    grid.running.predictions.purge.return_value = 0
    grid.blobs.sweep.side_effect = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        Node(grid, MagicMock(), MagicMock())._purge()
    grid.hosting.serving.purge.assert_called_once_with(None, 100_000.0)
    grid.streams.purge.assert_called_once()
    grid.running.files.expire.assert_called_once()
    grid.running.predictions.forget_requests.assert_called_once()
    grid.hosting.checks.sweep.assert_called_once_with(99_000.0)
