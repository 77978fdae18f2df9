"""What is forgotten, and when."""

import pytest

from grid_node.blobs.references import referred
from grid_node.errors import ResultExpired, TaskNotFound
from tests.grids import KEY

DAY = 86400


def test_assets_go_after_their_time_and_the_task_after_its_own(grid):
    task = grid.ask(copies=1)
    grid.hand_in("w1", grid.lease("w1"), "0.9")
    assert grid.tasks.result_file(KEY, task, "best").inline == b"0.9"
    grid.clock.advance(DAY + 1)
    assert grid.tending.purge() == 1
    with pytest.raises(ResultExpired):
        grid.tasks.result_file(KEY, task, "best")
    grid.clock.advance(6 * DAY)
    grid.tending.purge()
    with pytest.raises(TaskNotFound):
        grid.task(task)


def test_a_large_result_is_referred_to_until_its_assets_go(grid):
    task = grid.ask(copies=1, kind="slow")
    lease = grid.lease("w1")
    grid.hand_in("w1", lease, "large", inline=None, size=5_000_000, sha256="a" * 64, actual="a" * 64)
    grid.judge(lease, 0.9)
    assert referred(grid.store, ["a" * 64, "b" * 64]) == {"a" * 64}
    assert grid.tasks.result_file(KEY, task, "best").inline is None
    grid.clock.advance(DAY + 1)
    grid.tending.purge()
    assert referred(grid.store, ["a" * 64]) == set()


def test_purging_ends_though_there_is_more_than_one_batch(grid):
    for number in range(70):
        grid.ask(f"{number}", copies=1)
        grid.hand_in("w1", grid.lease("w1"), "0.9")
    grid.clock.advance(8 * DAY)
    assert grid.tending.purge() == 140
    assert grid.tending.purge() == 0
