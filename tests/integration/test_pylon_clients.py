"""Clients of the chain, the published ones unmodified and ours: every call, on the ledger and on a subtensor."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from bittensor_wallet import Keypair

from grid_node.chain.ports import Signer
from grid_node.chain.wallets import Wallets
from tests.dialect_a import DialectA
from tests.nodes import ROOT, LiveNode, running_node, until
from tests.pylon_peers.peer import MODES, OURS, PUBLISHED, Peer, Refused, peer
from tests.subtensor import FakeSubtensor

pytestmark = pytest.mark.timeout(300)

OPEN, ONE, TWO = "token-of-open-access", "token-of-sn1", "token-of-sn2"
IDENTITIES = {
    "PYLON_IDENTITIES": '["sn1","sn2"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "one",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": ONE,
    "PYLON_ID_SN2_WALLET_NAME": "w",
    "PYLON_ID_SN2_HOTKEY_NAME": "two",
    "PYLON_ID_SN2_NETUID": "2",
    "PYLON_ID_SN2_TOKEN": TWO,
}
SETTINGS = {"compute_processes": 0, "chain_auth_failures_per_minute": 10_000}
LOGIN = 'path="/api/v1/login/identity/{identity_name}"'
STRANGER = str(Keypair.create_from_uri("//Stranger").ss58_address)
LATER = {"get_recent_neurons", "get_latest_validators", "get_validators", "get_own_commitment",
         "get_latest_block_info", "get_extrinsic"}  # fmt: skip
LACKS = {
    "1.0.0": LATER | {"get_certificate"},
    "1.9.0": {"get_certificate"},
    "2.0.0": {"get_certificate"},
    "2.3.1": set(),
    OURS: set(),
}
"""Methods that a version does not have yet."""
EVERYONE = [(version, mode) for version in (*PUBLISHED, OURS) for mode in MODES]
every_client = pytest.mark.parametrize(("version", "mode"), EVERYONE, ids=[f"{v}-{m}" for v, m in EVERYONE])


class House:
    """A node, and who is on its subnet 1."""

    def __init__(self, node: LiveNode, open_token: str, clients: ExitStack) -> None:
        self.node = node
        self.open_token = open_token
        self._clients = clients
        self._usual: dict[tuple[str, str], Peer] = {}

    def get(self, path: str, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{self.node.url}/api/v1{path}", headers=headers, timeout=60, trust_env=False)

    def own(self, below: str) -> Any:
        return self.get(f"/identity/sn1/subnet/1{below}", ONE).json()

    def hotkey(self) -> str:
        status = self.own("/block/latest/neurons")
        hotkey: str = next(iter(status["neurons"]))
        return hotkey

    def usual(self, version: str, mode: str) -> Peer:
        """A client with all that it may show; the same each time."""
        if (version, mode) not in self._usual:
            self._usual[version, mode] = self._clients.enter_context(self.client(version, mode))
        return self._usual[version, mode]

    @contextmanager
    def client(self, version: str, mode: str, **changes: Any) -> Iterator[Peer]:
        # the published clients have no open access without a token, although the service may need none
        config = {"address": self.node.url, "open_access_token": self.open_token or "any"}
        config |= {"identity_name": "sn1", "identity_token": ONE}
        with peer(version, mode, **{**config, **changes}) as found:
            yield found


@contextmanager
def on_the_ledger(folder: Path) -> Iterator[House]:
    pylon = {**IDENTITIES, "PYLON_OPEN_ACCESS_TOKEN": OPEN}
    settings = {**SETTINGS, "chain_allow_tokenless_open_access": True}
    with running_node(folder, pylon=pylon, **settings) as node, ExitStack() as clients:
        yield House(node, OPEN, clients)


@contextmanager
def on_a_subtensor(folder: Path) -> Iterator[House]:
    """One that seals a block for each extrinsic; open to all."""
    wallets = Wallets(folder / "wallets", create_missing=True)
    with FakeSubtensor(instant=True) as chain, chain.archive() as archive:
        for netuid, name in ((1, "one"), (2, "two")):
            chain.chain.add_subnet(netuid)
            hotkey = wallets.hotkey(Signer(f"sn{netuid}", netuid, "w", name))
            stakes = {"total_stake": 10**15, "alpha_stake": 10**15}
            # a certificate goes with an axon: no chain takes one for a neuron that serves nowhere
            chain.chain.add_neuron(netuid, hotkey, validator_permit=True, ip="10.1.2.3", port=8091, **stakes)
        for uri in ("//Alice", "//Bob", "//Charlie"):
            chain.chain.add_neuron(1, str(Keypair.create_from_uri(uri).ss58_address))
        chain.chain.advance(10)
        pylon = {**IDENTITIES, "PYLON_BITTENSOR_NETWORK": chain.uri, "PYLON_BITTENSOR_ARCHIVE_NETWORK": archive.uri}
        pylon["PYLON_BITTENSOR_WALLET_PATH"] = str(folder / "wallets")
        with running_node(folder, pylon=pylon, **SETTINGS) as node, ExitStack() as clients:
            yield House(node, "", clients)


@pytest.fixture(scope="module", params=[on_the_ledger, on_a_subtensor], ids=["ledger", "subtensor"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with request.param(tmp_path_factory.mktemp("house")) as found:
        yield found


@every_client
def test_every_call_is_answered(house: House, version: str, mode: str) -> None:
    """In types of the client, sent as that version sends it."""
    client = house.usual(version, mode)

    assert reads(client, house.hotkey()) | writes(client, house) == LACKS[version]


def reads(client: Peer, hotkey: str) -> set[str]:
    """Every read of both faces; the names of those that this client does not have."""
    lacks: set[str] = set()
    for ask, subnet in ((client.open_access, {"netuid": 1}), (client.identity, {})):
        latest = ask("get_latest_neurons", **subnet)
        assert (latest["type"], latest["neurons"][hotkey]["uid"]) == ("GetNeuronsResponse", 0)
        block = latest["block"]["number"]
        calls: dict[str, dict[str, Any]] = {
            "get_neurons": {**subnet, "block_number": block},
            "get_recent_neurons": subnet,
            "get_latest_validators": subnet,
            "get_validators": {**subnet, "block_number": block},
            "get_commitments": subnet,
            "get_latest_block_info": {},
            "get_extrinsic": {"block_number": block, "extrinsic_index": 0},
        }
        answers = {method: ask(method, **arguments) for method, arguments in calls.items()}
        lacks |= {method for method, answer in answers.items() if not answer}
        assert answers["get_neurons"] == latest
        assert_plausible(answers, hotkey)
    return lacks


def assert_plausible(answers: dict[str, dict[str, Any]], hotkey: str) -> None:
    """Those that the client could ask for."""
    looks: dict[str, Callable[[dict[str, Any]], bool]] = {
        "get_neurons": lambda answer: hotkey in answer["neurons"],
        "get_recent_neurons": lambda answer: hotkey in answer["neurons"],
        "get_commitments": lambda answer: set(answer) == {"type", "block", "commitments"},
        "get_latest_validators": lambda answer: [one["hotkey"] for one in answer["validators"]] == [hotkey],
        "get_validators": lambda answer: [one["hotkey"] for one in answer["validators"]] == [hotkey],
        "get_latest_block_info": lambda answer: answer["timestamp"] > 1_700_000_000,
        "get_extrinsic": lambda answer: answer["call"]["call_function"] == "set",
    }
    assert {method: answer for method, answer in answers.items() if answer and not looks[method](answer)} == {}


def writes(client: Peer, house: House) -> set[str]:
    """Every write, and the reads of what was written; the names of those that this client does not have."""
    hotkey = house.hotkey()
    digits = uuid.uuid4().hex
    assert client.identity("set_commitment", commitment=f"0x{digits}")["type"] == "SetCommitmentResponse"
    commitment = {"hotkey": hotkey, "commitment": f"0x{digits}"}
    own = client.identity("get_own_commitment")
    read = [client.identity("get_commitment", hotkey=hotkey), own]
    read += [client.open_access("get_commitment", netuid=1, hotkey=hotkey)]
    assert all(one.items() >= {**commitment, "type": "GetCommitmentResponse"}.items() for one in read if one)
    assert client.open_access("get_commitments", netuid=1)["commitments"][hotkey] == f"0x{digits}"

    client.identity("set_commitment", commitment={"bytes": "00ff726177"})
    assert client.identity("get_commitment", hotkey=hotkey)["commitment"] == "0x00ff726177"

    assert client.identity("put_weights", weights={hotkey: 0.5})["type"] == "SetWeightsResponse"
    until(lambda: house.own("/weights/status")["status"] == "completed")
    certificate = generated(house)
    got = [client.identity("get_certificate", hotkey=hotkey)]
    got += [client.open_access("get_certificate", netuid=1, hotkey=hotkey)]
    assert all(one["public_key"] == certificate["public_key"] for one in got if one)
    called = {"get_own_commitment": own, "get_certificate": got[0]}
    return {method for method, answer in called.items() if not answer}


def generated(house: House) -> Any:
    """No published client can do this."""
    url = f"{house.node.url}/api/v1/identity/sn1/subnet/1/certificates/self"
    answer = httpx.post(url, json={}, headers={"Authorization": f"Bearer {ONE}"}, timeout=60, trust_env=False)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.parametrize("mode", MODES)
def test_ours_knows_what_became_of_weights_and_certificates(house: House, mode: str) -> None:
    hotkey, client = house.hotkey(), house.usual(OURS, mode)
    put = client.identity("put_weights", weights={hotkey: 0.25, STRANGER: 1.0})
    status = client.identity("wait_for_weights", timeout=30.0)
    pair = client.identity("generate_certificate")
    own = client.identity("get_own_certificate")
    everyones = client.open_access("get_certificates", netuid=1)

    assert (put["count"], put["dropped"]) == (2, [STRANGER])
    assert (status["job_id"], status["status"], status["weights_submitted"]) == (put["job_id"], "completed", True)
    assert {**own, "private_key": pair["private_key"], "type": pair["type"]} == pair
    assert everyones[hotkey]["public_key"] == own["public_key"]


@every_client
def test_refusals_are_the_clients_own(house: House, version: str, mode: str) -> None:
    """And a wrong token wrote nothing."""
    old, client = version == "1.0.0", house.usual(version, mode)
    missing = "PylonResponseException" if old else "PylonNotFound"
    assert refused(client, "open_access", "get_latest_neurons", netuid=70) == missing
    assert refused(client, "identity", "get_commitment", hotkey=STRANGER) == missing
    assert refused(client, "identity", "get_neurons", block_number=2**32) == missing
    assert refused(client, "identity", "put_weights", weights={STRANGER: 1.0}) == "PylonResponseException"

    before = house.own("/weights/status"), house.own("/block/latest/commitments")
    with house.client(version, mode, identity_token="wrong") as client:
        forbidden = "PylonResponseException" if old else "PylonForbidden"
        assert refused(client, "identity", "get_latest_neurons") == forbidden
        assert refused(client, "identity", "put_weights", weights={house.hotkey(): 0.125}) == forbidden
        assert refused(client, "identity", "set_commitment", commitment="0xbad0") == forbidden
    after = house.own("/weights/status"), house.own("/block/latest/commitments")
    assert (after[0], after[1]["commitments"]) == (before[0], before[1]["commitments"])


@every_client
def test_a_wrong_open_access_token_opens_nothing(house: House, version: str, mode: str) -> None:
    """Unless nobody needs one. Clients before 2.0 never send theirs."""
    with house.client(version, mode, open_access_token="wrong") as client:
        if client.logs_in or not house.open_token:
            assert client.open_access("get_latest_neurons", netuid=1)["neurons"]
        else:
            assert refused(client, "open_access", "get_latest_neurons", netuid=1) == "PylonForbidden"


@pytest.mark.parametrize("mode", MODES)
def test_open_access_without_a_token(house: House, mode: str) -> None:
    with house.client(OURS, mode, open_access_token="") as client:
        assert client.open_access("get_latest_neurons", netuid=1)["neurons"]
    with house.client(OURS, mode, open_access_token=None) as client:
        assert refused(client, "open_access", "get_latest_neurons", netuid=1) == "PylonMisconfigured"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["2.0.0", "2.3.1", OURS])
def test_a_client_that_has_the_wrong_subnet_asks_again(house: House, version: str, mode: str) -> None:
    with lying_about_subnets(house.node.url) as url, house.client(version, mode, address=url) as client:
        assert client.identity("get_latest_neurons")["neurons"]
        assert client.identity("get_commitments")["block"]


@pytest.mark.parametrize("version", PUBLISHED[:2])
def test_a_session_outlives_a_restart_of_the_node(tmp_path: Path, version: str) -> None:
    config = {"identity_name": "sn1", "identity_token": ONE, "open_access_token": "any"}
    with (
        running_node(tmp_path, pylon=IDENTITIES, compute_processes=0) as node,
        peer(version, "sync", address=node.url, **config) as client,
    ):
        assert client.identity("get_latest_neurons")["neurons"]
        assert LOGIN in node.metrics()
        node.restart()
        assert client.identity("get_latest_neurons")["neurons"]
        assert LOGIN not in node.metrics()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", [*PUBLISHED[:2], OURS])
def test_the_same_from_a_service_that_is_older(house: House, version: str, mode: str) -> None:
    """One that answers with what the node answers: the client tells the same of both."""
    hotkey = house.hotkey()
    usual = house.usual(version, mode)
    usual.identity("set_commitment", commitment="0x00ff")
    block = usual.identity("get_latest_neurons")["block"]["number"]
    below = ("/block/latest/neurons", f"/block/{block}/neurons", "/block/latest/commitments")
    old = DialectA({path: house.own(path) for path in (*below, f"/block/latest/commitments/{hotkey}")}, token=ONE)

    def all_of(client: Peer) -> list[dict[str, Any]]:
        return [
            client.identity("get_neurons", block_number=block),
            client.open_access("get_neurons", netuid=1, block_number=block),
            *(client.identity(method) for method in ("get_latest_neurons", "get_commitments")),
            client.identity("get_commitment", hotkey=hotkey),
        ]

    with old.serving() as url, house.client(version, mode, address=url) as client:
        told = all_of(client)
        client.identity("put_weights", weights={hotkey: 0.5})
        client.identity("set_commitment", commitment="00ff")
    assert without_heads(all_of(usual)) == without_heads(told)
    assert [got.body for got in old.written] == [{"weights": {hotkey: 0.5}}, {"commitment": "0x00ff"}]
    assert len(old.asked("POST", "/api/v1/login/identity/sn1")) == 1
    assert not any("authorization" in got.headers for got in old.got if "/identity/" in got.path)


def without_heads(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in answer.items() if name != "block"} for answer in answers]


def test_the_guides_examples_do_what_they_say(house: House) -> None:
    told = {"http://127.0.0.1:8888": house.node.url, "my_secret_token": ONE, "5C...": house.hotkey(), "5D...": STRANGER}
    told['open_access_token=""'] = f'open_access_token="{house.open_token}"'
    guide = (ROOT / "docs" / "chain-client.md").read_text()
    read, write = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[1:3]

    assert house.hotkey() in printed(read, told)
    dropped, ended = printed(write, told).splitlines()
    assert dropped == f"['{STRANGER}']"
    assert ended.startswith("completed ")


def printed(program: str, told: dict[str, str]) -> str:
    for name, value in told.items():
        program = program.replace(name, value)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(client: Peer, face: str, method: str, **arguments: Any) -> str:
    with pytest.raises(Refused) as found:
        client.call(face, method, **arguments)
    return found.value.name


@contextmanager
def lying_about_subnets(node_url: str) -> Iterator[str]:
    """The node, but for the first answer about identities."""
    lies = [{"identities": {"sn1": 2, "sn2": 1}}]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/api/v1/identities" and lies:
                status, body = 200, json.dumps(lies.pop()).encode()
            else:
                headers = {"Authorization": self.headers.get("Authorization", "")}
                answer = httpx.get(node_url + self.path, headers=headers, timeout=60, trust_env=False)
                status, body = answer.status_code, answer.content
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        assert not lies
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
