"""Blocks of the ledger: by the clock, by writes, by many writers."""

import threading

import pytest

from grid_node.chain.ledger.chain import LedgerChain
from grid_node.chain.ports import (
    Block,
    BlockUnknown,
    Landed,
    WriteRefused,
)
from grid_node.clock import ManualClock
from grid_node.settings import Settings
from tests.ledgers import LedgerYard, hotkey_of, memory_store, put_commitment


@pytest.fixture
def clock(ledger: LedgerYard) -> ManualClock:
    return ledger.clock


PACE = 12.0


def test_a_new_ledger_has_block_0_of_now(ledger: LedgerYard, clock: ManualClock) -> None:
    head = ledger.port.head()

    assert head.number == 0
    assert head.timestamp == int(clock.now())


def test_two_ledgers_have_two_genesis_blocks(ledger: LedgerYard, clock: ManualClock) -> None:
    other = LedgerYard(memory_store(), clock)

    assert other.port.head().hash != ledger.port.head().hash


def test_empty_blocks_come_with_the_clock(ledger: LedgerYard, clock: ManualClock) -> None:
    first = ledger.port.head()
    clock.advance(PACE * 2.5)

    head = ledger.port.head()

    assert head.number == first.number + 2
    assert head.timestamp == first.timestamp + 2 * PACE


def test_a_write_seals_a_block_at_once(ledger: LedgerYard, clock: ManualClock) -> None:
    ledger.add_subnet(1)
    clock.advance(5.0)
    before = ledger.port.head()

    uid = ledger.add_neuron(1, ledger.hotkey())

    head = ledger.port.head()
    assert uid == 0
    assert head == Block(before.number + 1, head.hash, int(clock.now()))
    assert len(ledger.port.neurons(1, head)) == 1


def test_the_next_block_is_counted_from_the_last_write(ledger: LedgerYard, clock: ManualClock) -> None:
    clock.advance(PACE - 1)
    ledger.add_subnet(1)
    sealed = ledger.port.head()

    clock.advance(PACE - 1)
    assert ledger.port.head() == sealed
    clock.advance(1)
    assert ledger.port.head().number == sealed.number + 1


def test_a_block_that_was_seen_empty_stays_so(ledger: LedgerYard, clock: ManualClock) -> None:
    ledger.add_subnet(1)
    clock.advance(PACE * 3)
    seen = ledger.port.head()

    other = ledger.another_port()
    ledger.add_neuron(1, ledger.hotkey())

    assert other.head().number == seen.number + 1
    assert other.block(seen.number) == seen
    assert ledger.port.block(seen.number) == seen


def test_the_head_never_goes_back(ledger: LedgerYard, clock: ManualClock) -> None:
    clock.advance(PACE * 10)
    seen = ledger.port.head()

    clock.set_by(-PACE * 5)

    assert ledger.port.head() == seen
    assert ledger.another_port().head() == seen
    ledger.add_subnet(1)
    assert ledger.port.head().number == seen.number + 1
    assert ledger.port.head().timestamp >= seen.timestamp
    clock.advance(PACE * 20)
    assert ledger.port.head().number > seen.number + 1


def test_another_pace_changes_no_block_that_was_seen(ledger: LedgerYard, clock: ManualClock) -> None:
    clock.advance(PACE * 4)
    seen = [ledger.port.block(number) for number in range(ledger.port.head().number + 1)]

    quick = LedgerYard(ledger.store, clock, Settings(chain_local_block_seconds=1.0))
    quick.add_subnet(1)
    clock.advance(7.0)

    assert quick.port.head().number == len(seen) + 7
    assert [quick.port.block(block.number) for block in seen] == seen


def test_a_write_is_seen_by_every_other_process_at_once(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, ledger.hotkey())
    other = ledger.another_port()
    other.head()

    landed = put_commitment(ledger, b"new")

    assert other.head() == landed.block
    assert other.commitment(1, ledger.hotkey(), other.head()).data == b"new"


def test_writers_take_turns(ledger: LedgerYard) -> None:
    """Each write has a block of its own, numbers without a gap, and each nonce is used once."""
    ledger.add_subnet(1)
    names = [f"writer {number}" for number in range(4)]
    for name in names:
        ledger.add_neuron(1, ledger.hotkey(name))
    first = ledger.port.head().number
    landed: list[Landed] = []

    def write(name: str) -> None:
        port = ledger.another_port()
        for number in range(5):
            landed.append(write_surely(ledger, port, name, bytes([number])))

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    numbers = sorted(one.block.number for one in landed)
    assert numbers == list(range(first + 1, first + 21))
    assert len({one.block.hash for one in landed}) == 20
    for one in landed:
        assert ledger.port.block(one.block.number) == one.block


def write_surely(yard: LedgerYard, port: LedgerChain, name: str, data: bytes) -> Landed:
    """A block of another writer each time may end an era of eight."""
    for _ in range(50):
        try:
            return put_commitment(yard, data, name, port)
        except WriteRefused:
            continue
    raise AssertionError("never landed")


def test_what_is_submitted_again_is_told_where_it_landed(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, ledger.hotkey())
    prepared = ledger.port.prepare_commitment(ledger.signer(1), b"x")
    landed = ledger.port.submit(prepared, 5.0)
    ledger.advance(100)

    assert ledger.another_port().submit(prepared, 5.0) == landed
    assert ledger.port.head().number == landed.block.number + 100


def test_commands_of_two_processes_get_two_uids(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    taken: list[int] = []

    def register(number: int) -> None:
        taken.append(ledger.add_neuron(1, hotkey_of(f"miner {number}")))

    threads = [threading.Thread(target=register, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == list(range(6))


def test_a_block_number_from_the_future_is_never_claimed_by_reading(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    head = ledger.port.head()

    with pytest.raises(BlockUnknown):
        ledger.port.block(head.number + 1)
    with pytest.raises(BlockUnknown):
        ledger.port.block(-1)
    assert ledger.port.head() == head
