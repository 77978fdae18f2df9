"""The double of a subtensor answers the published client library as a node would: blocks, subnets, storage."""

import json
import sys
from collections.abc import Iterator
from subprocess import PIPE, Popen

import pytest
from async_substrate_interface.errors import StateDiscardedError, SubstrateRequestException
from async_substrate_interface.sync_substrate import SubstrateInterface
from hypothesis import given
from hypothesis import strategies as st
from scalecodec.base import RuntimeConfigurationObject
from websockets.sync.client import connect

from grid_node import ss58
from tests.subtensor import FakeSubtensor
from tests.subtensor.__main__ import key, populate
from tests.subtensor.clients import ALICE, BOB, OLD_CONNECT, STRANGER, connected
from tests.subtensor.scale import BadScale, Cursor, compact

NEURONS = 256

pytestmark = pytest.mark.filterwarnings(OLD_CONNECT)


@pytest.fixture
def double() -> Iterator[FakeSubtensor]:
    with FakeSubtensor() as one:
        one.chain.add_subnet(1, tempo=99, weights_version=7)
        one.chain.add_neuron(1, ALICE.ss58_address, BOB.ss58_address, ip="1.2.3.4", port=8091, protocol=4)
        one.chain.add_neuron(1, BOB.ss58_address, alpha_stake=3, tao_stake=4, total_stake=7, incentive=1)
        one.chain.advance(5)
        yield one


@pytest.fixture
def client(double: FakeSubtensor) -> Iterator[SubstrateInterface]:
    with connected(double) as one:
        yield one


def neurons(client: SubstrateInterface, netuid: int = 1, at: str | None = None) -> list[dict]:
    return client.runtime_call("NeuronInfoRuntimeApi", "get_neurons_lite", [netuid], at)


def test_blocks_name_their_parents_and_are_found_by_number(double: FakeSubtensor, client: SubstrateInterface) -> None:
    hashes = [client.get_block_hash(number) for number in range(6)]
    headers = [client.get_block_header(one)["header"] for one in hashes]
    assert [header["number"] for header in headers] == list(range(6))
    assert [header["parentHash"] for header in headers[1:]] == hashes[:-1]
    assert client.get_chain_head() == hashes[5]
    assert client.rpc_request("chain_getBlockHash", [6])["result"] is None


def test_parameters_may_come_by_name(double: FakeSubtensor) -> None:
    """As turbobt sends them."""
    block = double.chain.block(3)
    assert block is not None
    with connect(double.uri) as one:
        for number, (method, params) in enumerate(
            [("chain_getBlockHash", {"hash": 3}), ("chain_getHeader", {"hash": "0x" + block.hash.hex()})]
        ):
            one.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        hashed, header = (json.loads(one.recv())["result"] for _ in range(2))
    assert hashed == "0x" + block.hash.hex()
    assert header["number"] == "0x3"


def test_every_block_begins_with_its_time(client: SubstrateInterface) -> None:
    head = client.get_chain_head()
    opening = client.get_block(head)["extrinsics"][0].value
    now = client.query("Timestamp", "Now", block_hash=head).value
    assert (opening["call"]["call_module"], opening["call"]["call_function"]) == ("Timestamp", "set")
    assert opening["call"]["call_args"] == [{"name": "now", "type": "Compact<u64>", "value": now}]
    assert now == client.query("Timestamp", "Now", block_hash=client.get_block_hash(4)).value + 12_000


def test_finality_lags_as_told() -> None:
    with FakeSubtensor(finality_lag=3) as double, connected(double) as client:
        double.chain.advance(10)
        assert client.get_block_number(client.get_chain_finalised_head()) == 7


def test_neurons_carry_what_was_given(client: SubstrateInterface) -> None:
    alice, bob = neurons(client)
    assert (alice["uid"], alice["hotkey"], alice["coldkey"]) == (0, ALICE.ss58_address, BOB.ss58_address)
    axon = alice["axon_info"]
    assert (axon["ip"], axon["port"], axon["protocol"]) == (0x01020304, 8091, 4)
    assert (bob["uid"], bob["incentive"], bob["pruning_score"]) == (1, 1, 65535)
    assert bob["stake"] == [(bob["coldkey"], 3)]


def test_subnet_state_goes_by_uid(client: SubstrateInterface) -> None:
    state = client.runtime_call("SubnetInfoRuntimeApi", "get_subnet_state", [1])
    assert state["hotkeys"] == [ALICE.ss58_address, BOB.ss58_address]
    assert (state["alpha_stake"], state["tao_stake"], state["total_stake"]) == ([0, 3], [0, 4], [0, 7])


def test_a_subnet_that_is_not_there_has_no_state_and_no_neurons(client: SubstrateInterface) -> None:
    assert neurons(client, 2) == []
    assert client.runtime_call("SubnetInfoRuntimeApi", "get_subnet_state", [2]) is None
    assert client.runtime_call("SubnetInfoRuntimeApi", "get_subnet_hyperparams_v2", [2]) is None
    assert client.query("SubtensorModule", "NetworksAdded", [2]).value is False


@pytest.mark.parametrize("method", ["get_subnet_hyperparams", "get_subnet_hyperparams_v2"])
def test_hyperparams_are_the_subnets(method: str, double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.chain.set_subnet(1, commit_reveal=True, reveal_period=2)
    double.chain.advance()
    told = client.runtime_call("SubnetInfoRuntimeApi", method, [1])
    assert (told["tempo"], told["weights_version"]) == (99, 7)
    assert (told["commit_reveal_weights_enabled"], told["commit_reveal_period"]) == (True, 2)


def test_a_whole_subnet_of_256_is_read(client: SubstrateInterface, double: FakeSubtensor) -> None:
    populate(double.chain, 2, NEURONS)
    double.chain.advance()
    told = neurons(client, 2)
    assert [one["uid"] for one in told] == list(range(NEURONS))
    assert told[200]["hotkey"] == ss58.encode(key(2, 200))
    assert told[200]["rank"] == 65535 * 201 // 256


def test_old_blocks_keep_what_they_had(double: FakeSubtensor, client: SubstrateInterface) -> None:
    before = client.get_chain_head()
    double.chain.remove_neuron(1, ALICE.ss58_address)
    assert len(neurons(client)) == 2
    double.chain.advance()
    assert [(one["uid"], one["hotkey"]) for one in neurons(client)] == [(0, BOB.ss58_address)]
    assert len(neurons(client, at=before)) == 2


def test_storage_is_read_by_key_and_as_a_map(client: SubstrateInterface) -> None:
    assert client.query("SubtensorModule", "Uids", [1, BOB.ss58_address]).value == 1
    assert client.query("SubtensorModule", "Keys", [1, 0]).value == ALICE.ss58_address
    assert client.query("SubtensorModule", "Uids", [1, STRANGER.ss58_address]).value is None
    assert client.query("SubtensorModule", "Axons", [1, BOB.ss58_address]).value is None
    assert dict(client.query_map("SubtensorModule", "Uids", [1])) == {ALICE.ss58_address: 0, BOB.ss58_address: 1}


def test_commitments_come_page_by_page(double: FakeSubtensor, client: SubstrateInterface) -> None:
    populate(double.chain, 3, 25, commitments=25)
    double.chain.advance()
    rows = list(client.query_map("Commitments", "CommitmentOf", [3], page_size=10))
    said = {who: bytes.fromhex(next(iter(one["info"]["fields"][0].values()))[2:]).decode() for who, one in rows}
    assert said == {ss58.encode(key(3, uid)): f"commitment of {uid}" for uid in range(25)}
    assert {one["block"] for _, one in rows} == {6}
    assert double.calls["state_getKeysPaged"] == 3


def test_a_certificate_is_there_with_its_bytes(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.chain.set_certificate(1, BOB.ss58_address, b"\xff" * 32)
    double.chain.advance()
    told = client.query("SubtensorModule", "NeuronCertificates", [1, BOB.ss58_address]).value
    assert told == {"public_key": "0x" + "ff" * 32, "algorithm": 1}


def test_epochs_turn_by_the_subnets_tempo(double: FakeSubtensor, client: SubstrateInterface) -> None:
    def schedule() -> tuple[int, ...]:
        names = ("LastEpochBlock", "SubnetEpochIndex", "BlocksSinceLastStep", "PendingEpochAt")
        return tuple(client.query("SubtensorModule", name, [1]).value for name in names)

    double.chain.advance(92)
    assert schedule() == (0, 0, 97, 0)
    double.chain.advance(1)
    assert schedule() == (98, 1, 0, 0)
    double.chain.advance(100)
    assert schedule() == (198, 2, 0, 0)


def test_pruned_blocks_keep_their_headers_and_lose_their_state(
    double: FakeSubtensor, client: SubstrateInterface
) -> None:
    double.chain.advance(95)
    double.faults.prune(50)
    old = client.get_block_hash(49)
    assert client.rpc_request("chain_getHeader", [old])["result"]["number"] == hex(49)
    with pytest.raises(StateDiscardedError):
        neurons(client, at=old)
    with pytest.raises(SubstrateRequestException, match=f"State already discarded for {old}"):
        client.rpc_request("state_getStorage", ["0x" + "00" * 32, old])
    assert len(neurons(client, at=client.get_block_hash(51))) == 2


def test_the_archive_has_what_was_pruned(double: FakeSubtensor) -> None:
    double.chain.advance(10)
    double.faults.prune(10)
    with double.archive() as archive, connected(archive) as client:
        assert len(neurons(client, at=client.get_block_hash(9))) == 2
        assert archive.calls["NeuronInfoRuntimeApi_get_neurons_lite"] == 1
    assert double.calls["state_call"] == 0


def test_a_block_that_never_was_is_unknown(client: SubstrateInterface) -> None:
    with pytest.raises(SubstrateRequestException, match="Header was not found in the database"):
        client.rpc_request("state_call", ["Core_version", "0x", "0x" + "11" * 32])


def test_new_heads_are_pushed(double: FakeSubtensor, client: SubstrateInterface) -> None:
    seen: list[int] = []

    def told(block: dict) -> bool | None:
        seen.append(block["header"]["number"])
        double.chain.advance()
        return True if len(seen) == 3 else None

    assert client.subscribe_block_headers(told) is True
    assert seen == [5, 6, 7]


def test_older_metadata_are_enough_for_storage(double: FakeSubtensor) -> None:
    missing = "Client error: Execution failed: Other: Exported method Metadata_metadata_at_version is not found"
    double.faults.error(4003, missing, "Metadata_metadata_at_version")
    with connected(double) as client:
        assert client.runtime.metadata_v15 is None
        assert client.query("SubtensorModule", "Tempo", [1]).value == 99


def test_many_calls_go_in_one_batch(double: FakeSubtensor, client: SubstrateInterface) -> None:
    calls = [("SubnetInfoRuntimeApi", "get_subnet_state", [netuid]) for netuid in (1, 2)]
    here, nowhere = client.runtime_calls(calls)
    assert here["hotkeys"] == [ALICE.ss58_address, BOB.ss58_address]
    assert nowhere is None
    assert double.calls["SubnetInfoRuntimeApi_get_subnet_state"] == 2


@given(st.integers(0, 2**64 - 1))
def test_compact_numbers_are_those_of_the_library(number: int) -> None:
    library = RuntimeConfigurationObject().create_scale_object("Compact<u64>")
    assert bytes(library.encode(number).data) == compact(number)
    assert Cursor(compact(number)).compact() == number


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x03\x00", b"\xff" * 40])
def test_bytes_that_end_too_early_are_no_number(data: bytes) -> None:
    with pytest.raises(BadScale):
        Cursor(data).compact()


def test_the_program_says_where_it_listens_and_ends_when_asked() -> None:
    command = [sys.executable, "-m", "tests.subtensor", "--neurons", "3", "--blocks", "2"]
    with Popen(command, stdout=PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            uri = program.stdout.readline().strip()
            with connect(uri) as socket:
                socket.send('{"jsonrpc":"2.0","id":1,"method":"chain_getHeader","params":[]}')
                assert json.loads(socket.recv(timeout=20))["result"]["number"] == "0x2"
        finally:
            program.terminate()
        assert program.wait(timeout=20) == 0
