"""Whatever happens to a ledger, and whatever the clock does: what was read once reads the same for ever."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grid_node.chain.ledger import operating
from grid_node.chain.ledger.chain import LedgerChain
from grid_node.chain.ports import WriteRefused
from tests.ledgers import LedgerYard, hotkey_of, memory_store, put_commitment, set_weights

NAMES = ("alice", "bob", "carol", "dave")
TEMPO = 7

STEPS = st.one_of(
    st.tuples(st.sampled_from(["register", "leave", "stake", "commit"]), st.sampled_from(NAMES), st.integers(1, 9)),
    st.tuples(st.just("weights"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.sampled_from(["wait", "clock back", "advance"]), st.just(""), st.integers(1, 20)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_every_block_reads_the_same_for_ever(steps: list[tuple[str, str, int]]) -> None:
    yard = LedgerYard(memory_store())
    yard.add_subnet(1, tempo=TEMPO)
    seen = [everything(yard.port, yard.port.head().number)]
    for step in steps:
        try:
            do(yard, *step)
        except WriteRefused:
            pass
        head = yard.port.head()
        assert head.number >= seen[-1]["block"].number
        assert head.timestamp >= seen[-1]["block"].timestamp
        seen.append(everything(yard.port, head.number))
    yard.advance(100)

    later = yard.another_port()
    words: dict[str, Any] = {}
    for before in reversed(seen):
        assert everything(later, before["block"].number) == before
        assert words.setdefault(before["state"], before["neurons"]) == before["neurons"]


def do(yard: LedgerYard, what: str, name: str, number: int) -> None:
    if what == "register":
        yard.add_neuron(1, hotkey_of(name), stake_alpha=number, validator_permit=number % 2 == 0)
    elif what == "leave":
        yard.remove_last_neuron(1, hotkey_of(name))
    elif what == "stake":
        operating.set_stake(yard.store, yard.clock, yard.settings, 1, hotkey_of(name), stake_tao=number)
    elif what == "commit":
        put_commitment(yard, bytes([number]), name)
    elif what == "weights":
        set_weights(yard, {number: 1, 0: 2}, name)
    elif what == "wait":
        yard.advance(number)
    elif what == "clock back":
        yard.clock.set_by(-number * yard.settings.chain_local_block_seconds)
    else:
        operating.advance(yard.store, yard.clock, yard.settings, number)


def everything(port: LedgerChain, number: int) -> dict[str, Any]:
    block = port.block(number)
    extrinsics = [port.extrinsic(block, index) for index in range(3)]
    return {
        "block": block,
        "state": port.state(1, block),
        "neurons": port.neurons(1, block),
        "commitments": port.commitments(1, block),
        "extrinsics": extrinsics,
    }
