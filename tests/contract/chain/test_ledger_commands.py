"""What an operator does to the ledger."""

from typing import Any

import pytest

from grid_node.chain.ledger import operating
from grid_node.chain.ports import (
    RAO,
    Certificate,
    WriteRefused,
)
from grid_node.clock import ManualClock
from tests.ledgers import LedgerYard, hotkey_of, memory_store, put_commitment, set_weights


@pytest.fixture
def clock(ledger: LedgerYard) -> ManualClock:
    return ledger.clock


def test_a_new_neuron_gets_the_lowest_free_uid(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    for number in range(4):
        ledger.add_neuron(1, hotkey_of(f"{number}"))

    ledger.remove_last_neuron(1, hotkey_of("1"))
    ledger.remove_last_neuron(1, hotkey_of("2"))

    assert ledger.add_neuron(1, hotkey_of("new")) == 1
    assert ledger.add_neuron(1, hotkey_of("newer")) == 2
    assert ledger.add_neuron(1, hotkey_of("1")) == 4
    uids = {neuron.hotkey: neuron.uid for neuron in ledger.port.neurons(1, ledger.port.head())}
    assert uids[hotkey_of("new")] == 1


def test_a_subnet_has_room_for_256(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    sealed = operating.seed(ledger.store, ledger.clock, ledger.settings, 1, 256)
    assert sealed.value == list(range(256))

    with pytest.raises(WriteRefused, match="room for 256"):
        ledger.add_neuron(1, hotkey_of("one too many"))


def test_a_hotkey_registers_once_on_a_subnet(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_subnet(2)
    ledger.add_neuron(1, hotkey_of("miner"))

    assert ledger.add_neuron(2, hotkey_of("miner")) == 0
    with pytest.raises(WriteRefused, match="registered on subnet 1 already"):
        ledger.add_neuron(1, hotkey_of("miner"))


def test_a_new_neuron_has_the_documented_fields(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, hotkey_of("miner"), stake_alpha=1.0, stake_tao=0.5)

    (neuron,) = ledger.port.neurons(1, ledger.port.head())

    body = neuron.body()
    assert body.pop("last_update") == ledger.port.head().number
    assert body == {
        "uid": 0,
        "coldkey": hotkey_of("miner"),
        "hotkey": hotkey_of("miner"),
        "active": True,
        "axon_info": {"ip": "0.0.0.0", "port": 0, "protocol": 0},
        "stake": 1.0,
        "rank": 0.0,
        "emission": 0.0,
        "incentive": 0.0,
        "consensus": 0.0,
        "trust": 0.0,
        "validator_trust": 0.0,
        "dividends": 0.0,
        "validator_permit": False,
        "pruning_score": 65535,
        "stakes": {"alpha": 1.0, "tao": 0.5, "total": 1.5},
    }


def test_stake_is_set_one_kind_at_a_time(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, hotkey_of("miner"), stake_alpha=1.0, stake_tao=0.5)
    before = ledger.port.head()

    done = operating.set_stake(ledger.store, ledger.clock, ledger.settings, 1, hotkey_of("miner"), stake_alpha=7.25)

    (neuron,) = ledger.port.neurons(1, ledger.port.head())
    assert (done.uid, done.block) == (0, ledger.port.head())
    assert (neuron.stake, neuron.stake_alpha, neuron.stake_tao, neuron.stake_total) == (7.25, 7.25, 0.5, 7.75)
    assert ledger.port.neurons(1, before)[0].stake_alpha == 1.0


def test_who_leaves_takes_weights_and_certificate_along(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, ledger.hotkey(), validator_permit=True, stake_alpha=1.0)
    set_weights(ledger, {0: 1})
    ledger.port.submit(ledger.port.prepare_certificate(ledger.signer(1), Certificate(1, bytes(32))), 5.0)
    before = ledger.port.head()

    ledger.remove_last_neuron(1, ledger.hotkey())
    ledger.add_neuron(1, hotkey_of("heir"))

    assert ledger.weights(1, hotkey_of("heir")) is None
    assert ledger.port.certificates(1, ledger.port.head()) == {}
    assert list(ledger.port.certificates(1, before)) == [ledger.hotkey()]


REFUSED: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("a subnet that is there", "create_subnet", (1,), {}),
    ("a netuid above u16", "create_subnet", (65536,), {}),
    ("a netuid below 0", "create_subnet", (-1,), {}),
    ("no tempo", "create_subnet", (2,), {"tempo": 0}),
    ("an unknown subnet", "register_neuron", (70, hotkey_of("x")), {}),
    ("no SS58", "register_neuron", (1, "5Grw"), {}),
    ("a coldkey that is none", "register_neuron", (1, hotkey_of("x")), {"coldkey": "nobody"}),
    ("stake below 0", "register_neuron", (1, hotkey_of("x")), {"stake_alpha": -1.0}),
    ("stake that is no number", "register_neuron", (1, hotkey_of("x")), {"stake_tao": float("nan")}),
    ("endless stake", "register_neuron", (1, hotkey_of("x")), {"stake_tao": float("inf")}),
    ("stake beyond what fits", "register_neuron", (1, hotkey_of("x")), {"stake_tao": 2.0**62 / RAO * 2}),
    ("an axon without a port", "register_neuron", (1, hotkey_of("x")), {"axon": "1.2.3.4"}),
    ("an axon at port 0", "register_neuron", (1, hotkey_of("x")), {"axon": "1.2.3.4:0"}),
    ("an axon at port 65536", "register_neuron", (1, hotkey_of("x")), {"axon": "1.2.3.4:65536"}),
    ("an axon with a name", "register_neuron", (1, hotkey_of("x")), {"axon": "example.org:80"}),
    ("a stranger's leave", "deregister_neuron", (1, hotkey_of("x")), {}),
    ("leaving an unknown subnet", "deregister_neuron", (70, hotkey_of("x")), {}),
    ("a stranger's stake", "set_stake", (1, hotkey_of("x")), {"stake_tao": 1.0}),
    ("no stake at all", "set_stake", (1, hotkey_of("miner")), {}),
    ("seeding an unknown subnet", "seed", (70, 5), {}),
    ("seeding 257", "seed", (1, 257), {}),
    ("going back", "advance", (-1,), {}),
    ("going nowhere", "advance", (0,), {}),
    ("going beyond the last block", "advance", (2**32 - 1,), {}),
]


@pytest.mark.parametrize(("command", "args", "fields"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_command_that_makes_no_sense_is_refused(
    ledger: LedgerYard, command: str, args: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, hotkey_of("miner"))
    before = ledger.port.head()

    with pytest.raises(WriteRefused) as caught:
        getattr(operating, command)(ledger.store, ledger.clock, ledger.settings, *args, **fields)

    assert str(caught.value)
    assert ledger.port.head() == before


def test_advancing_moves_the_head_at_once(ledger: LedgerYard, clock: ManualClock) -> None:
    ledger.add_subnet(1)
    before = ledger.port.head()

    block = operating.advance(ledger.store, clock, ledger.settings, 1000)

    assert ledger.port.head() == block
    assert block.number == before.number + 1000
    between = [ledger.port.block(before.number + step) for step in (1, 500, 999)]
    assert all(before.timestamp <= one.timestamp <= block.timestamp for one in between)
    assert len(ledger.port.neurons(1, between[0])) == 0


def test_seeding_is_the_same_each_time_and_fills_up(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    ledger.add_neuron(1, ledger.hotkey())
    start = ledger.port.head().number

    first = operating.seed(ledger.store, ledger.clock, ledger.settings, 1, 40)
    again = operating.seed(ledger.store, ledger.clock, ledger.settings, 1, 40)

    assert first.value == list(range(1, 40))
    assert again.value == []
    assert first.block.number == start + 1
    neurons = ledger.port.neurons(1, ledger.port.head())
    assert len({neuron.hotkey for neuron in neurons}) == 40
    assert sum(neuron.validator_permit for neuron in neurons) >= 2
    assert any(neuron.ip == "0.0.0.0" for neuron in neurons[1:])
    assert any(neuron.port for neuron in neurons)
    other = LedgerYard(memory_store())
    other.add_subnet(1)
    operating.seed(other.store, other.clock, other.settings, 1, 39)
    made = other.port.neurons(1, other.port.head())
    assert [neuron.hotkey for neuron in made] == [neuron.hotkey for neuron in neurons[1:]]


def test_a_command_is_an_extrinsic_without_a_signer(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)

    found = ledger.port.extrinsic(ledger.port.head(), 1)

    assert found is not None
    assert found["address"] is None
    assert found["call"] == {
        "call_module": "Ledger",
        "call_function": "create_subnet",
        "call_args": [
            {"name": "netuid", "type": "u64", "value": 1},
            {"name": "tempo", "type": "u64", "value": 360},
        ],
    }
    assert ledger.port.extrinsic(ledger.port.head(), 2) is None


def test_subnets_are_listed_with_their_neurons(ledger: LedgerYard) -> None:
    ledger.add_subnet(7, tempo=10)
    ledger.add_subnet(3)
    ledger.add_neuron(7, hotkey_of("miner"))

    assert ledger.store.read(operating.subnets) == [(3, 360, 0), (7, 10, 1)]


def test_a_refused_write_leaves_no_trace(ledger: LedgerYard) -> None:
    ledger.add_subnet(1)
    before = ledger.port.head()

    with pytest.raises(WriteRefused):
        ledger.add_subnet(1)
    with pytest.raises(WriteRefused):
        put_commitment(ledger, b"x", "stranger")

    assert ledger.port.head() == before
