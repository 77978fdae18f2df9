"""The port's contract, for the adapter to a subtensor."""

from collections.abc import Iterator

import pytest

from tests.contract.chain.subtensor_yard import SubtensorYard
from tests.contract.chain.test_port import *  # noqa: F403 - every test of it, in another yard
from tests.subtensor import FakeSubtensor


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Iterator[SubtensorYard]:
    monkeypatch.setattr("grid_node.chain.subtensor.node.settle", lambda: None)  # full collections, one a test
    with FakeSubtensor(instant=True) as fake:
        yard = SubtensorYard(fake)
        yield yard
        yard.port.close()
