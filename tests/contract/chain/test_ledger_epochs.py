"""Incentives of the ledger, epoch by epoch, and what reading them costs."""

from typing import Any

import pytest

from grid_node.chain.epochs import epoch_of
from grid_node.chain.ledger import operating
from grid_node.chain.ports import (
    U16,
)
from grid_node.database import Store, Transaction
from tests.ledgers import LedgerYard, hotkey_of, set_weights

TEMPO = 19


@pytest.fixture
def market(ledger: LedgerYard) -> LedgerYard:
    """Two validators with 3 and 1 tokens at uids 0 and 1, two miners at 2 and 3; nobody has set weights."""
    ledger.add_subnet(1, tempo=TEMPO)
    ledger.add_neuron(1, hotkey_of("alice"), stake_alpha=2.0, stake_tao=1.0, validator_permit=True)
    ledger.add_neuron(1, hotkey_of("bob"), stake_alpha=1.0, validator_permit=True)
    ledger.add_neuron(1, hotkey_of("carol"))
    ledger.add_neuron(1, hotkey_of("dave"))
    end_epoch(ledger)
    return ledger


def end_epoch(yard: LedgerYard) -> int:
    """Move the head to the next end of an epoch, which is returned."""
    head = yard.port.head().number
    end = epoch_of(head, 1, TEMPO).end
    yard.advance(end - head)
    assert yard.port.head().number == end
    return end


def earned(yard: LedgerYard, number: int | None = None) -> dict[int, int]:
    block = yard.port.head() if number is None else yard.port.block(number)
    neurons = yard.port.neurons(1, block)
    assert all(neuron.incentive == neuron.rank for neuron in neurons)
    return {neuron.uid: round(neuron.incentive * U16) for neuron in neurons if neuron.incentive}


def test_incentives_come_at_the_end_of_the_epoch(market: LedgerYard) -> None:
    set_weights(market, {2: 65535, 3: 65535})
    set_weights(market, {3: 9}, "bob")
    assert earned(market) == {}

    end = end_epoch(market)

    assert earned(market, end - 1) == {}
    assert earned(market) == {2: round(1.5 / 4 * U16), 3: round(2.5 / 4 * U16)}


def test_proportions_are_whole_steps_of_u16(market: LedgerYard) -> None:
    set_weights(market, {2: 1, 3: 65534})
    end_epoch(market)

    assert market.port.neurons(1, market.port.head())[2].incentive == 0.000015259021896696422


def test_without_new_weights_later_epochs_bring_the_same(market: LedgerYard) -> None:
    set_weights(market, {2: 1})
    end_epoch(market)
    word = market.port.state(1, market.port.head())
    market.advance(TEMPO * 5)

    assert earned(market) == {2: U16}
    assert market.port.state(1, market.port.head()) == word


def test_weights_that_land_at_the_end_count_for_the_next_epoch(market: LedgerYard) -> None:
    set_weights(market, {2: 1})
    end = epoch_of(market.port.head().number, 1, TEMPO).end
    market.advance(end - 1 - market.port.head().number)

    landed = set_weights(market, {3: 1})

    assert landed.block.number == end
    assert earned(market) == {2: U16}
    end_epoch(market)
    assert earned(market) == {3: U16}


def test_stake_counts_as_it_is_when_the_epoch_ends(market: LedgerYard) -> None:
    set_weights(market, {2: 1})
    set_weights(market, {3: 1}, "bob")
    end_epoch(market)
    assert earned(market) == {2: round(0.75 * U16), 3: round(0.25 * U16)}

    operating.set_stake(market.store, market.clock, market.settings, 1, hotkey_of("bob"), stake_alpha=9.0)
    assert earned(market) == {2: round(0.75 * U16), 3: round(0.25 * U16)}
    end_epoch(market)
    assert earned(market) == {2: round(0.25 * U16), 3: round(0.75 * U16)}


def test_another_hotkey_at_the_uid_begins_with_nothing(market: LedgerYard) -> None:
    set_weights(market, {2: 1, 3: 1})
    end_epoch(market)
    market.remove_last_neuron(1, hotkey_of("carol"))
    assert market.add_neuron(1, hotkey_of("erin")) == 2

    assert earned(market) == {3: 32768}
    end_epoch(market)
    assert earned(market) == {3: U16}
    set_weights(market, {2: 1, 3: 1})
    end_epoch(market)
    assert earned(market) == {2: 32768, 3: 32768}


def test_a_validator_that_left_counts_no_more(market: LedgerYard) -> None:
    set_weights(market, {2: 1})
    set_weights(market, {3: 1}, "bob")
    market.remove_last_neuron(1, hotkey_of("alice"))
    end_epoch(market)

    assert earned(market) == {3: U16}


def test_incentives_are_the_same_whenever_and_by_whomever_they_are_read(market: LedgerYard) -> None:
    """One reader looks at every block as it comes, another for the first time at the end."""
    seen = []
    for step in range(8):
        set_weights(market, {2: step + 1, 3: 9 - step}, "alice" if step % 2 else "bob")
        if step == 4:
            market.remove_last_neuron(1, hotkey_of("carol"))
            market.add_neuron(1, hotkey_of("erin"))
        for _ in range(3):
            head = market.port.head()
            seen.append((head, market.port.state(1, head), market.port.neurons(1, head)))
            market.advance(9)

    later = market.another_port()
    words: dict[str, Any] = {}
    for block, word, neurons in reversed(seen):
        assert later.block(block.number) == block
        assert later.state(1, block) == word
        assert later.neurons(1, block) == neurons
        assert words.setdefault(word, neurons) == neurons
    assert len({str(neurons) for neurons in words.values()}) > 8


def test_every_number_of_every_epoch_is_known_to_its_state(market: LedgerYard) -> None:
    """Equal words mean equal neurons at each block, also where an epoch ends in the very block of a change."""
    words: dict[str, Any] = {}
    for step in range(2 * TEMPO):
        set_weights(market, {2 + step % 2: 1}, "bob")
        head = market.port.head()
        neurons = market.port.neurons(1, head)
        assert words.setdefault(market.port.state(1, head), neurons) == neurons
        if step % 3 == 0:
            market.advance(1)
            head = market.port.head()
            neurons = market.port.neurons(1, head)
            assert words.setdefault(market.port.state(1, head), neurons) == neurons


class CountingStore:
    """Counts statements."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.statements = 0

    def read(self, unit: Any) -> Any:
        def counted(tx: Transaction) -> Any:
            return unit(_Counting(self, tx))

        return self._store.read(counted)

    def write(self, unit: Any) -> Any:
        return self._store.write(unit)

    def close(self) -> None:
        self._store.close()


class _Counting:
    def __init__(self, store: CountingStore, tx: Transaction) -> None:
        self._store, self._tx = store, tx

    def execute(self, *args: Any) -> Any:
        self._store.statements += 1
        return self._tx.execute(*args)


def test_the_number_of_statements_does_not_grow_with_neurons_or_history(store: Store) -> None:
    counting = CountingStore(store)
    yard = LedgerYard(counting)
    yard.add_subnet(1)
    yard.add_neuron(1, yard.hotkey(), validator_permit=True, stake_alpha=1.0)
    few = cost(yard, counting)

    operating.seed(yard.store, yard.clock, yard.settings, 1, 256)
    for number in range(20):
        set_weights(yard, {number: 1})
        yard.advance(400)

    assert len(yard.port.neurons(1, yard.port.head())) == 256
    assert cost(yard, counting) <= few + 2  # the last epoch: stakes and weights


def cost(yard: LedgerYard, counting: CountingStore) -> int:
    port = yard.another_port()
    head = port.head()
    counting.statements = 0
    port.neurons(1, head)
    return counting.statements
