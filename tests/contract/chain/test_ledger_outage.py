"""The ledger while its database is away."""

from typing import Any

import pytest

from grid_node.chain.ledger.chain import URI
from grid_node.chain.ports import (
    NodeUnreachable,
    WriteRefused,
    WriteUncertain,
)
from grid_node.database import Store
from grid_node.errors import StoreFull, StoreUnavailable
from tests.ledgers import LedgerYard


class BrokenStore:
    """Passes on until `error` is set. `reads`: whether reading fails too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.error: Exception | None = None
        self.reads = False

    def write(self, unit: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self._store.write(unit)

    def read(self, unit: Any) -> Any:
        if self.error is not None and self.reads:
            raise self.error
        return self._store.read(unit)

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def broken(store: Store) -> BrokenStore:
    return BrokenStore(store)


@pytest.fixture
def shaky(broken: BrokenStore) -> LedgerYard:
    yard = LedgerYard(broken)
    yard.add_subnet(1)
    yard.add_neuron(1, yard.hotkey())
    return yard


def test_a_database_that_takes_no_writes_still_reads(shaky: LedgerYard, broken: BrokenStore) -> None:
    seen = shaky.port.head()
    broken.error = StoreFull(retry_after=60)
    shaky.advance(5)

    assert shaky.port.head() == seen
    assert len(shaky.port.neurons(1, seen)) == 1
    broken.error = None
    assert shaky.port.head().number == seen.number + 5


def test_a_database_that_is_away_is_an_unreachable_node(shaky: LedgerYard, broken: BrokenStore) -> None:
    head = shaky.port.head()
    broken.error, broken.reads = StoreUnavailable(retry_after=1), True

    with pytest.raises(NodeUnreachable):
        shaky.port.head()
    with pytest.raises(NodeUnreachable):
        shaky.port.neurons(1, head)
    (endpoint,) = shaky.port.endpoints()
    assert (endpoint["uri"], endpoint["ok"]) == (URI, False)
    broken.error = None
    assert shaky.port.head() == head
    assert shaky.port.endpoints() == [{"uri": URI, "ok": True, "error": None}]


@pytest.mark.parametrize(
    ("error", "told"), [(StoreUnavailable(retry_after=1), WriteUncertain), (StoreFull(retry_after=60), WriteRefused)]
)
def test_a_write_that_the_database_did_not_answer_is_told_by_what_is_certain(
    shaky: LedgerYard, broken: BrokenStore, error: Exception, told: type[Exception]
) -> None:
    prepared = shaky.port.prepare_commitment(shaky.signer(1), b"x")
    broken.error = error

    with pytest.raises(told):
        shaky.port.submit(prepared, 5.0)
    broken.error = None
    assert shaky.port.find(prepared.extrinsic_hash, prepared.era_start, prepared.era_end) is None
    assert shaky.port.submit(prepared, 5.0).error is None
