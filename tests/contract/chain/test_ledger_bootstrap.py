"""How an empty ledger begins."""

import threading
from typing import Any

from grid_node.chain.ledger import operating
from grid_node.chain.ports import (
    Block,
)
from grid_node.chain.pylon import PylonSettings
from grid_node.settings import Settings
from tests.ledgers import LedgerYard, NamedHotkeys, hotkey_of


def pylon_of(*identities: tuple[str, int], tempo: int = 360) -> PylonSettings:
    names = json_names(identities)
    environ = {"PYLON_IDENTITIES": names, "PYLON_TEMPO": str(tempo)}
    for name, netuid in identities:
        prefix = f"PYLON_ID_{name.upper()}_"
        environ |= {
            prefix + "WALLET_NAME": "wallet",
            prefix + "HOTKEY_NAME": name,
            prefix + "NETUID": str(netuid),
            prefix + "TOKEN": f"token of {name}",
        }
    return PylonSettings.load(environ)


def json_names(identities: tuple[tuple[str, int], ...]) -> str:
    return "[" + ",".join(f'"{name}"' for name, _ in identities) + "]"


def bootstrap(yard: LedgerYard, pylon: PylonSettings, **settings: Any) -> Block | None:
    return operating.bootstrap(yard.store, yard.clock, Settings(**settings), pylon, NamedHotkeys())


def test_without_identities_the_ledger_begins_with_subnet_1(ledger: LedgerYard) -> None:
    assert not ledger.store.read(operating.any_subnet)

    block = bootstrap(ledger, pylon_of())

    assert block == ledger.port.head()
    assert ledger.store.read(operating.any_subnet)
    assert ledger.port.neurons(1, block) == []


def test_identities_get_their_subnets_and_neurons_in_their_order(ledger: LedgerYard) -> None:
    block = bootstrap(ledger, pylon_of(("b", 5), ("a", 5), ("c", 2), tempo=99))

    assert block is not None
    neurons = ledger.port.neurons(5, block)
    assert [(neuron.uid, neuron.hotkey) for neuron in neurons] == [(0, hotkey_of("b")), (1, hotkey_of("a"))]
    assert [neuron.hotkey for neuron in ledger.port.neurons(2, block)] == [hotkey_of("c")]
    assert all(neuron.validator_permit and neuron.stake == operating.BOOTSTRAP_STAKE for neuron in neurons)
    assert ledger.port.hyperparams(5, block).tempo == 99


def test_identities_that_share_a_hotkey_share_its_neuron(ledger: LedgerYard) -> None:
    class OneHotkey:
        def hotkey(self, signer: Any) -> str:
            return hotkey_of("same")

    pylon = pylon_of(("a", 1), ("b", 1), ("c", 2))
    block = operating.bootstrap(ledger.store, ledger.clock, ledger.settings, pylon, OneHotkey())

    assert block is not None
    assert len(ledger.port.neurons(1, block)) == 1
    assert len(ledger.port.neurons(2, block)) == 1


def test_a_ledger_that_holds_something_is_left_alone(ledger: LedgerYard) -> None:
    ledger.add_subnet(9)
    before = ledger.port.head()

    assert bootstrap(ledger, pylon_of(("a", 1))) is None
    assert ledger.port.head() == before


def test_bootstrapping_may_be_off(ledger: LedgerYard) -> None:
    assert bootstrap(ledger, pylon_of(("a", 1)), chain_local_bootstrap=False) is None
    assert not ledger.store.read(operating.any_subnet)


def test_two_processes_bootstrap_once(ledger: LedgerYard) -> None:
    pylon = pylon_of(("a", 1), ("b", 2))
    made: list[Block | None] = []
    threads = [threading.Thread(target=lambda: made.append(bootstrap(ledger, pylon))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(one is not None for one in made) == 1
    assert len(ledger.port.neurons(1, ledger.port.head())) == 1
