"""What goes wrong when the double is told to, as the client library meets it."""

import time
from collections.abc import Iterator
from socket import create_connection

import pytest
from async_substrate_interface.errors import MaxRetriesExceeded, SubstrateRequestException
from async_substrate_interface.sync_substrate import SubstrateInterface
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from tests.subtensor import Chain, FakeSubtensor
from tests.subtensor.clients import ALICE, OLD_CONNECT, connected, impatient, set_weights, signed, submit
from tests.subtensor.faults import CONNECT

HEAD = "chain_getHead"

pytestmark = pytest.mark.filterwarnings(OLD_CONNECT)


@pytest.fixture
def double() -> Iterator[FakeSubtensor]:
    with FakeSubtensor(instant=True) as one:
        one.chain.add_subnet(1)
        one.chain.add_neuron(1, ALICE.ss58_address, validator_permit=True)
        one.chain.advance(5)
        yield one


@pytest.fixture
def client(double: FakeSubtensor) -> Iterator[SubstrateInterface]:
    with connected(double) as one:
        yield one


def test_a_stalled_method_is_never_answered_and_others_are(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.stall("state_call")
    with impatient(client), pytest.raises(MaxRetriesExceeded):
        client.runtime_call("NeuronInfoRuntimeApi", "get_neurons_lite", [1])
    assert client.get_chain_head()
    double.faults.clear()
    assert len(client.runtime_call("NeuronInfoRuntimeApi", "get_neurons_lite", [1])) == 1


def test_one_runtime_api_can_be_hit_alone(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.error(-32000, "boom", "SubnetInfoRuntimeApi_get_subnet_state")
    with pytest.raises(SubstrateRequestException, match="boom"):
        client.runtime_call("SubnetInfoRuntimeApi", "get_subnet_state", [1])
    assert len(client.runtime_call("NeuronInfoRuntimeApi", "get_neurons_lite", [1])) == 1


def test_a_fault_is_over_after_its_times(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.error(4003, "Client error: no", HEAD, times=2)
    for _ in range(2):
        with pytest.raises(SubstrateRequestException, match="Client error: no"):
            client.get_chain_head()
    assert client.get_chain_head()


def test_an_answer_may_be_late(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.delay(0.1, HEAD, times=1)
    start = time.monotonic()
    client.get_chain_head()
    assert time.monotonic() - start >= 0.1


def test_a_dropped_connection_is_over_and_a_new_one_works(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.drop(HEAD, times=1)
    with impatient(client), pytest.raises(MaxRetriesExceeded):
        client.get_chain_head()
    assert client.get_chain_head()
    assert double.connections == 2


@pytest.mark.parametrize("kind", ["text", "cut", "empty"])
def test_nonsense_is_sent_as_it_is(kind: str, double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.garbage(kind, HEAD, times=1)
    with pytest.raises(ValueError, match=r"line 1 column"):
        client.get_chain_head()
    assert client.get_chain_head()


def test_a_result_may_be_another_than_the_true_one(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.answer("0x" + "ab" * 32, HEAD, times=1)
    assert client.get_chain_head() == "0x" + "ab" * 32
    assert client.get_chain_head() == "0x" + double.chain.head.hash.hex()


def test_a_node_may_not_let_anybody_in(double: FakeSubtensor) -> None:
    double.faults.error(429, "Too Many Requests", CONNECT, times=1)
    with pytest.raises(InvalidStatus, match="429"), connect(double.uri):
        pass
    double.faults.drop(CONNECT, times=1)
    with pytest.raises((InvalidMessage, OSError)), connect(double.uri):
        pass
    double.faults.stall(CONNECT)
    with pytest.raises(TimeoutError), connect(double.uri, open_timeout=0.1):
        pass
    double.faults.clear()
    with connect(double.uri):
        pass


def test_one_that_waits_to_be_let_in_does_not_hold_up_the_end(double: FakeSubtensor) -> None:
    double.faults.stall(CONNECT)
    with create_connection(("127.0.0.1", int(double.uri.rpartition(":")[2]))) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        waiting.sendall(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert double.faults.wait_for_use(CONNECT, 20)
        start = time.monotonic()
        double.stop()
        assert time.monotonic() - start < 5


def test_another_chain_may_stand_at_the_same_address(double: FakeSubtensor, client: SubstrateInterface) -> None:
    genesis = client.rpc_request("chain_getBlockHash", [0])["result"]
    double.stop()
    port = int(double.uri.rpartition(":")[2])
    with FakeSubtensor(chain=Chain(salt=1), port=port) as other, connected(other) as second:
        assert other.uri == double.uri
        assert second.rpc_request("chain_getBlockHash", [0])["result"] != genesis


def test_half_a_frame_ends_the_connection(double: FakeSubtensor) -> None:
    double.faults.half_frame()
    with connect(double.uri) as socket:
        socket.send('{"jsonrpc":"2.0","id":1,"method":"chain_getHead","params":[]}')
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_an_answer_may_be_to_another_question(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.wrong_id(HEAD, times=1)
    with impatient(client), pytest.raises(MaxRetriesExceeded):
        client.get_chain_head()


def test_submissions_are_refused_as_often_as_told(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.refuse(2)
    for _ in range(2):
        with pytest.raises(SubstrateRequestException, match="Invalid Transaction"):
            submit(client, ALICE, set_weights(1, {0: 1}))
    assert submit(client, ALICE, set_weights(1, {0: 1})).is_success
    assert len(double.chain.landed("set_weights", ALICE.ss58_address)) == 1


def test_a_forgotten_extrinsic_is_accepted_and_never_lands(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.forget()
    with impatient(client), pytest.raises(MaxRetriesExceeded):
        submit(client, ALICE, set_weights(1, {0: 1}))
    assert double.chain.landed() == []
    assert submit(client, ALICE, set_weights(1, {0: 1})).is_success


def test_a_hushed_extrinsic_lands_and_nobody_is_told(double: FakeSubtensor, client: SubstrateInterface) -> None:
    double.faults.hush()
    extrinsic = signed(client, ALICE, set_weights(1, {0: 1}))
    with impatient(client), pytest.raises(MaxRetriesExceeded):
        client.submit_extrinsic(extrinsic, wait_for_finalization=True)
    ((block, landed),) = double.chain.landed()
    assert landed.hash == extrinsic.extrinsic_hash
    assert block.number == 6


def test_a_node_that_died_comes_back_on_its_port(double: FakeSubtensor, client: SubstrateInterface) -> None:
    uri = double.uri
    double.stop()
    with pytest.raises((MaxRetriesExceeded, OSError)):
        client.get_chain_head()
    double.start()
    assert double.uri == uri
    assert client.get_chain_head()


def test_blocks_come_by_themselves_with_the_time_of_the_clock() -> None:
    with FakeSubtensor(0.05) as double, connected(double) as client:
        start = client.get_block_number(client.get_chain_head())
        deadline = time.monotonic() + 30
        while client.get_block_number(client.get_chain_head()) < start + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get_block_number(client.get_chain_head()) >= start + 2
        assert abs(client.query("Timestamp", "Now").value / 1000 - time.time()) < 5
