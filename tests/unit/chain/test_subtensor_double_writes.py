"""The double takes signed extrinsics as a node does: it checks, includes, applies and tells."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from async_substrate_interface.errors import SubstrateRequestException
from async_substrate_interface.sync_substrate import SubstrateInterface
from bittensor_drand import get_encrypted_commit_v2
from websockets.sync.client import connect

from tests.subtensor import FakeSubtensor
from tests.subtensor.clients import (
    ALICE,
    BOB,
    OLD_CONNECT,
    STRANGER,
    connected,
    set_commitment,
    set_weights,
    signed,
    submit,
)

ROW = {0: 0, 1: 65535}

pytestmark = pytest.mark.filterwarnings(OLD_CONNECT)


@pytest.fixture
def double() -> Iterator[FakeSubtensor]:
    with FakeSubtensor(instant=True, finality_lag=2) as one:
        one.chain.add_subnet(1)
        one.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        one.chain.add_neuron(1, BOB.ss58_address)
        one.chain.advance(20)
        yield one


@pytest.fixture
def client(double: FakeSubtensor) -> Iterator[SubstrateInterface]:
    with connected(double) as one:
        yield one


def test_weights_land_in_the_next_block(double: FakeSubtensor, client: SubstrateInterface) -> None:
    receipt = submit(client, ALICE, set_weights(1, ROW))
    assert receipt.is_success
    assert (receipt.get_extrinsic_identifier(), receipt.finalized) == ("21-1", True)
    row = double.chain.weights(1, ALICE.ss58_address)
    assert row is not None
    assert (row.block, row.values, row.version_key) == (21, ROW, 0)
    assert client.query("SubtensorModule", "LastUpdate", [1]).value == [21, 0]
    assert client.query("SubtensorModule", "Weights", [1, 0]).value == [(0, 0), (1, 65535)]


def test_weights_are_scaled_to_their_largest(double: FakeSubtensor, client: SubstrateInterface) -> None:
    assert submit(client, ALICE, set_weights(1, {0: 1, 1: 2})).is_success
    row = double.chain.weights(1, ALICE.ss58_address)
    assert row is not None
    assert row.values == {0: 32768, 1: 65535}


def test_an_extrinsic_is_read_back_with_its_signer(double: FakeSubtensor, client: SubstrateInterface) -> None:
    receipt = submit(client, ALICE, set_weights(1, ROW))
    value = client.get_block(receipt.block_hash)["extrinsics"][1].value
    assert (value["address"], value["extrinsic_hash"]) == (ALICE.ss58_address, receipt.extrinsic_hash)
    assert value["call"]["call_args"][1] == {"name": "dests", "type": "Vec<u16>", "value": [0, 1]}
    events = [(one["module_id"], one["event_id"]) for one in receipt.triggered_events]
    assert events == [("SubtensorModule", "WeightsSet"), ("System", "ExtrinsicSuccess")]
    assert [one.hash.hex() for _, one in double.chain.landed()] == [receipt.extrinsic_hash[2:]]


@pytest.mark.parametrize("data", [b"\x00", b"\x00\xffraw", bytes(range(128))])
def test_a_commitment_is_kept_byte_for_byte(data: bytes, double: FakeSubtensor, client: SubstrateInterface) -> None:
    assert submit(client, BOB, set_commitment(1, data)).is_success
    assert double.chain.commitment(1, BOB.ss58_address) == data
    told = client.query("Commitments", "CommitmentOf", [1, BOB.ss58_address]).value
    assert told == {"deposit": 0, "block": 21, "info": {"fields": [{f"Raw{len(data)}": "0x" + data.hex()}]}}


def test_a_certificate_goes_with_the_axon(double: FakeSubtensor, client: SubstrateInterface) -> None:
    axon = {"version": 1, "ip": 0x01020304, "port": 8091, "ip_type": 4, "protocol": 4}
    rest = {"placeholder1": 0, "placeholder2": 0, "certificate": b"\x01" + bytes(range(32))}
    call = ("SubtensorModule", "serve_axon_tls", {"netuid": 1, **axon, **rest})
    assert submit(client, BOB, call).is_success
    assert double.chain.certificate(1, BOB.ss58_address) == (1, bytes(range(32)))
    served = client.query("SubtensorModule", "Axons", [1, BOB.ss58_address]).value
    assert (served["ip"], served["port"], served["block"]) == (0x01020304, 8091, 21)


def test_weights_are_committed_where_the_subnet_says_so(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.chain.set_subnet(1, commit_reveal=True)
    double.chain.advance()
    data, reveal_round = get_encrypted_commit_v2(
        [0, 1], [1, 2], 0, 0, 0, 0, 360, 21, 21, 1, 12.0, bytes(ALICE.public_key)
    )
    arguments = {"netuid": 1, "commit": data, "reveal_round": reveal_round, "commit_reveal_version": 4}
    assert submit(client, ALICE, ("SubtensorModule", "commit_timelocked_weights", arguments)).is_success
    (commit,) = double.chain.commits(1, ALICE.ss58_address)
    assert (commit.data, commit.reveal_round, commit.block) == (data, reveal_round, 22)
    refused = submit(client, ALICE, set_weights(1, ROW))
    assert refused.error_message == {"type": "Module", "name": "CommitRevealEnabled", "docs": []}


@pytest.mark.parametrize(
    ("who", "call", "error"),
    [
        (BOB, set_weights(1, ROW), "NeuronNoValidatorPermit"),
        (ALICE, set_weights(2, ROW), "SubnetNotExists"),
        (ALICE, set_weights(1, {5: 1}), "UidVecContainInvalidOne"),
        (ALICE, set_weights(3, {0: 1}, version_key=1), "IncorrectWeightVersionKey"),
        (BOB, set_weights(3, {0: 1}), "HotKeyNotRegisteredInSubNet"),
        (BOB, set_commitment(3, b"x"), "AccountNotAllowedCommit"),
    ],
)
def test_what_the_chain_refuses_is_in_the_block_as_failed(
    who: Any, call: Any, error: str, double: FakeSubtensor, client: SubstrateInterface
) -> None:
    double.chain.add_subnet(3, weights_version=2)
    double.chain.add_neuron(3, ALICE.ss58_address, validator_permit=True)
    double.chain.advance()
    receipt = submit(client, who, call)
    assert not receipt.is_success
    assert receipt.error_message is not None
    assert receipt.error_message["name"] == error
    assert len(double.chain.landed()) == 1
    assert client.get_account_next_index(who.ss58_address) == 1


def test_weights_too_soon_after_the_last_are_refused(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.chain.set_subnet(1, weights_rate_limit=10)
    double.chain.advance()
    assert submit(client, ALICE, set_weights(1, ROW)).is_success
    second = submit(client, ALICE, set_weights(1, ROW))
    assert second.error_message is not None
    assert second.error_message["name"] == "SettingWeightsTooFast"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda client: setattr(client.runtime, "runtime_version", 1), "Transaction has a bad signature"),
        (lambda client: setattr(client.runtime, "transaction_version", 9), "Transaction has a bad signature"),
    ],
)
def test_a_signature_for_another_runtime_is_bad(change: Any, why: str, client: SubstrateInterface) -> None:
    composed = client.compose_call(*set_weights(1, ROW))
    change(client)
    extrinsic = client.create_signed_extrinsic(composed, ALICE, era={"period": 8})
    with pytest.raises(SubstrateRequestException, match=why):
        client.submit_extrinsic(extrinsic, wait_for_inclusion=True)


def test_a_nonce_is_used_once(double: FakeSubtensor, client: SubstrateInterface) -> None:
    assert submit(client, ALICE, set_weights(1, ROW)).is_success
    with pytest.raises(SubstrateRequestException, match="Transaction is outdated"):
        submit(client, ALICE, set_weights(1, {1: 5}), nonce=0)
    assert len(double.chain.landed()) == 1


def test_one_who_is_nobody_cannot_pay(client: SubstrateInterface) -> None:
    with pytest.raises(SubstrateRequestException, match="Inability to pay some fees"):
        submit(client, STRANGER, set_weights(1, ROW))


def test_a_test_can_wait_for_what_arrives() -> None:
    with FakeSubtensor() as double, connected(double) as client, ThreadPoolExecutor(1) as threads:
        double.chain.add_subnet(1)
        double.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        double.chain.advance(3)
        receipt = threads.submit(submit, client, ALICE, set_weights(1, {0: 1}))
        assert double.wait_for_calls("author_submitAndWatchExtrinsic")
        assert double.chain.wait_for_pool()
        assert double.chain.landed() == []
        double.chain.advance()
        assert receipt.result(20).is_success


def test_an_extrinsic_dies_with_its_era(double: FakeSubtensor, client: SubstrateInterface) -> None:
    extrinsic = signed(client, ALICE, set_weights(1, ROW))
    double.chain.advance(9)
    with pytest.raises(SubstrateRequestException, match="Transaction has a bad signature"):
        client.submit_extrinsic(extrinsic, wait_for_inclusion=True)


def test_a_new_runtime_wants_new_signatures(double: FakeSubtensor, client: SubstrateInterface) -> None:
    extrinsic = signed(client, ALICE, set_weights(1, ROW))
    before = client.rpc_request("state_getRuntimeVersion", [])["result"]["specVersion"]
    double.chain.upgrade()
    double.chain.advance()
    assert client.rpc_request("state_getRuntimeVersion", [])["result"]["specVersion"] == before + 1
    with pytest.raises(SubstrateRequestException, match="Transaction has a bad signature"):
        client.submit_extrinsic(extrinsic, wait_for_inclusion=True)


def test_an_axon_on_loopback_is_refused(double: FakeSubtensor, client: SubstrateInterface) -> None:
    axon = {"version": 1, "ip": 0x7F000001, "port": 8091, "ip_type": 4, "protocol": 4}
    rest = {"placeholder1": 0, "placeholder2": 0, "certificate": b"\x01" + bytes(32)}
    receipt = submit(client, BOB, ("SubtensorModule", "serve_axon_tls", {"netuid": 1, **axon, **rest}))
    assert receipt.error_message is not None
    assert receipt.error_message["name"] == "InvalidIpAddress"
    assert double.chain.certificate(1, BOB.ss58_address) is None


def raw_extrinsic(client: SubstrateInterface, nonce: int, **options: Any) -> str:
    return str(signed(client, ALICE, set_weights(1, ROW), nonce=nonce, **options).data)


def ask(socket: Any, method: str, *params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    answer: dict[str, Any] = json.loads(socket.recv(timeout=20))
    return answer


def test_the_pool_tells_of_the_same_and_of_lower_priority() -> None:
    with FakeSubtensor() as double, connected(double) as client, connect(double.uri) as socket:
        double.chain.add_subnet(1)
        double.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        double.chain.advance(3)
        first = raw_extrinsic(client, 0)
        assert "result" in ask(socket, "author_submitExtrinsic", first)
        assert ask(socket, "author_submitExtrinsic", first)["error"]["code"] == 1013
        other = raw_extrinsic(client, 0, era={"period": 16})
        assert ask(socket, "author_submitExtrinsic", other)["error"]["code"] == 1014
        assert "result" in ask(socket, "author_submitExtrinsic", raw_extrinsic(client, 0, tip=1))
        assert "result" in ask(socket, "author_submitExtrinsic", raw_extrinsic(client, 1))
        assert ask(socket, "account_nextIndex", ALICE.ss58_address)["result"] == 2
        assert ask(socket, "author_submitExtrinsic", "0x1234")["error"]["code"] == 1002
        double.chain.advance()
        assert [one.tip for _, one in double.chain.landed()] == [1, 0]


def watched(socket: Any, count: int) -> list[Any]:
    return [json.loads(socket.recv(timeout=20))["params"]["result"] for _ in range(count)]


def test_one_who_watches_is_told_every_step() -> None:
    with FakeSubtensor(finality_lag=1) as double, connected(double) as client, connect(double.uri) as socket:
        double.chain.add_subnet(1)
        double.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        double.chain.advance(3)
        assert "result" in ask(socket, "author_submitAndWatchExtrinsic", raw_extrinsic(client, 0))
        first = double.chain.advance().hash.hex()
        second = double.chain.reorganise(1).hash.hex()
        assert watched(socket, 3) == ["ready", {"inBlock": "0x" + first}, {"retracted": "0x" + first}]
        third = double.chain.advance().hash.hex()
        double.chain.advance()
        assert watched(socket, 2) == [{"inBlock": "0x" + third}, {"finalized": "0x" + third}]
        assert second != first
        assert client.get_block_number("0x" + first) == client.get_block_number("0x" + second)


def test_one_that_waits_too_long_is_invalid() -> None:
    with FakeSubtensor() as double, connected(double) as client, connect(double.uri) as socket:
        double.chain.add_subnet(1)
        double.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        double.chain.advance(3)
        assert "result" in ask(socket, "author_submitAndWatchExtrinsic", raw_extrinsic(client, 1))
        double.chain.advance(9)
        assert watched(socket, 2) == ["future", "invalid"]
        assert double.chain.landed() == []
