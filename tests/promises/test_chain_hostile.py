"""Whoever means the chain's doors ill: broken requests over raw sockets, a chain node that lies, a process that hangs.

Nothing here may be answered with 500, hang, or leave something half written.
"""

import gzip
import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from flask import Flask

from grid_node.chain.ledger import operating
from grid_node.chain.pylon import PylonSettings
from grid_node.clock import SystemClock
from grid_node.database import DirectStore, make_engine
from grid_node.errors import ChainInvalid
from grid_node.http.chain_door import ChainDoor
from grid_node.settings import Settings
from tests.chain_house import ID, OA, OPEN, SN1
from tests.chain_sites import IDENTITY, TOKEN, SubtensorSite, workers_of
from tests.integration.http.test_chain import BAD_BODIES, BROKEN, PATHS
from tests.integration.wire.harness import RawClient
from tests.nodes import LiveNode, running_node, until

PYLON = {**IDENTITY, "PYLON_OPEN_ACCESS_TOKEN": OPEN, "PYLON_ID_SN1_TOKEN": SN1}
BARE: dict[str, Any] = {"scoring_processes": 0, "compute_processes": 0}
NEURONS = f"{OA}/block/latest/neurons"
WEIGHTS, COMMITMENTS = f"{ID}/weights", f"{ID}/commitments"


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    folder = tmp_path_factory.mktemp("hostile")
    with running_node(folder, pylon=PYLON, chain_auth_failures_per_minute=1_000_000, **BARE) as live:
        own_hotkey(live)  # without the metagraph, weights would be taken unseen
        yield live
        assert "Traceback" not in live.log_text()


def request(method: str, path: str, *headers: str, body: bytes = b"", token: str = "", sized: bool = True) -> bytes:
    """The bytes of a request; those of its head go out as Latin-1."""
    lines = [f"{method} {path} HTTP/1.1", "Host: node", *headers]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Content-Length: {len(body)}"] if sized and method in ("PUT", "POST") else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def line(node: LiveNode) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as opened:
        yield opened


def read(opened: socket.socket) -> Answer:
    answer = HTTPResponse(opened)
    answer.begin()
    return Answer(answer.status, answer.headers, answer.read())


def exchange(node: LiveNode, sent: bytes) -> Answer:
    with line(node) as opened:
        opened.sendall(sent)
        return read(opened)


def own_hotkey(node: LiveNode) -> str:
    (hotkey,) = exchange(node, request("GET", NEURONS, token=OPEN)).said["neurons"]
    return str(hotkey)


def newest_job(node: LiveNode) -> Any:
    return exchange(node, request("GET", f"{WEIGHTS}/status", token=SN1)).said.get("job_id")


def weights(hotkey: str, weight: float = 1.0) -> bytes:
    return json.dumps({"weights": {hotkey: weight}}).encode()


# --- requests --------------------------------------------------------------------------------------------------------


def rows() -> Iterator[tuple[str, str, bytes, int, str]]:
    """Method, path, body, status and the start of the detail of everything that is bad input."""
    for path, status, detail in PATHS:
        if path.isascii():
            yield "GET", path, b"", status, detail
    for route, text, _key, _message in BAD_BODIES:
        method = "PUT" if route == "weights" else "POST"
        yield method, f"{ID}/{route}", text.encode(), 400, f"Validation failed for {method} {ID}/{route}"
    for body in BROKEN:
        yield "PUT", WEIGHTS, body, 400, "JSON is malformed: "


def test_bad_input_leaves_a_kept_connection_in_order(node: LiveNode) -> None:
    """Every one of them on one connection: what was not read of a request is never taken for the next one."""
    before, peer = newest_job(node), HTTPConnection("127.0.0.1", node.port, timeout=30)
    with closing(peer):
        for method, path, body, status, detail in rows():
            token = OPEN if method == "GET" else SN1
            peer.request(method, path, body or None, {"Authorization": f"Bearer {token}"})
            answer = peer.getresponse()
            said = json.loads(answer.read())
            assert (answer.status, said["status_code"]) == (status, status), (path, body[:80], said)
            assert said["detail"].startswith(detail)
            assert answer.headers["Content-Type"] == "application/json"
    assert newest_job(node) == before


ODD_BODIES = (
    b'{"weights":{"a":' + b"9" * 5000 + b"}}",
    '{"weights":{"a":"\u0661"}}'.encode(),
    b'{"weights":{"":1}}',
    b'{"weights":{"a\\u0000":1}}',
    b'\xef\xbb\xbf{"weights":{"a":1}}',
    '{"weights":{"a":1}}'.encode("utf-16"),
    b'{"weights":{"a":1},"weights":{"b":1}}',
    b'{"weights":{"a":1}}\x00',
    b'{"weights":{"a":1}}{}',
    b'{"weights":{"a":0x1}}',
    b'{"weights":{"a":.5}}',
    b'{"weights":{"a":1e-400}}',
    b'{"weights":{"a":[]}}',
    b'{"Weights":{"a":1}}',
    b'{"weights":"{}"}',
    b'{"weights":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
    b"[" * 900_000,
    b"[" + b"{}," * 300_000 + b"{}]",
    b'{"weights":{' + b",".join(b'"%d":-1' % number for number in range(60_000)) + b"}}",
    b'{"commitment":"0X00"}',
    b'{"commitment":"0x0x00"}',
    b'{"commitment":"00\\n"}',
    '{"commitment":"\u0661\u0661"}'.encode(),
    b'{"commitment":"' + b"0" * 1_000_000 + b'"}',
    b'{"algorithm":1.0}',
    b'{"algorithm":"1"}',
    b'{"algorithm":18446744073709551617}',
    b"null",
    b'"weights"',
)


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_an_odd_body_is_a_bad_request_wherever_it_is_sent(node: LiveNode, body: bytes) -> None:
    before = newest_job(node)
    routes = [("PUT", WEIGHTS), ("POST", COMMITMENTS), ("POST", "/api/v1/login/identity/sn1")]
    if b"algorithm" in body:
        routes.append(("POST", f"{ID}/certificates/self"))
    for method, path in routes:
        told = exchange(node, request(method, path, body=body, token=SN1))
        assert (told.status, told.said["status_code"]) == (400, 400), (path, told)
        assert len(told.body) < 50_000
        assert "Set-Cookie" not in told.headers
    assert newest_job(node) == before


def test_a_large_login_is_not_checked_where_everybody_waits() -> None:
    """Whoever has no token yet may send a mebibyte, and to look through it takes 100 ms."""
    offloaded: list[int] = []

    def offload(check: Callable[..., Any], schema: Any, raw: bytes) -> Any:
        offloaded.append(len(raw))
        return check(schema, raw)

    services = SimpleNamespace(
        chain=SimpleNamespace(access=None, pylon=PylonSettings.load(PYLON)),
        hosting=SimpleNamespace(offload=offload),
        settings=SimpleNamespace(chain_body_max_bytes=1_048_576, chain_session_seconds=1),
    )
    door, large = ChainDoor(services), b"[" + b"{}," * 300_000 + b"{}]"  # type: ignore[arg-type]
    with Flask("door").test_request_context(method="POST", data=large), pytest.raises(ChainInvalid):
        door.login("sn1")

    assert offloaded == [len(large)]


def test_a_body_that_comes_in_drops_is_taken_whole(node: LiveNode) -> None:
    sent = request("POST", COMMITMENTS, body=b'{"commitment":"0xd0d0"}', token=SN1)
    with line(node) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(sent)):
            opened.sendall(sent[at : at + 1])
            threading.Event().wait(0.002)
        told = read(opened)

    assert (told.status, told.said) == (201, {"detail": "Commitment set successfully."})
    own = exchange(node, request("GET", f"{ID}/block/latest/commitments/self", token=SN1)).said
    assert own["commitment"] == "0xd0d0"


@pytest.mark.parametrize("missing", [1, 10])
def test_half_a_body_writes_nothing(node: LiveNode, missing: int) -> None:
    before, sent = newest_job(node), request("PUT", WEIGHTS, body=weights(own_hotkey(node)), token=SN1)
    with line(node) as opened:
        opened.sendall(sent[:-missing])
        opened.shutdown(socket.SHUT_WR)
        told = read(opened)

    assert (told.status, told.said["status_code"]) == (400, 400)
    with line(node) as opened:
        opened.sendall(sent[:-missing])
    assert newest_job(node) == before


CHUNKS = (b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x0\r\n\r\n", b"2 2\r\n{}\r\n", b"\r\n\r\n")


@pytest.mark.parametrize("body", CHUNKS, ids=range(len(CHUNKS)))
def test_chunks_that_are_none_end_the_connection(node: LiveNode, body: bytes) -> None:
    chunked = request("PUT", WEIGHTS, "Transfer-Encoding: chunked", token=SN1, sized=False)
    with line(node) as opened:
        opened.sendall(chunked + body + request("PUT", WEIGHTS, body=weights(own_hotkey(node)), token=SN1))
        opened.shutdown(socket.SHUT_WR)
        told = read(opened)
        assert (told.status, told.said["status_code"]) == (400, 400)
        with suppress(ConnectionError):
            assert opened.recv(1) == b""


FRAMINGS = (
    ("Content-Length: 4", "Transfer-Encoding: chunked"),
    ("Content-Length: 2", "Content-Length: 300"),
    ("Content-Length: +2",),
    ("Content-Length: -2",),
    ("Content-Length: 2, 2",),
    ("Content-Length: \xb2",),
    ("Transfer-Encoding: chunked, identity",),
    ("Transfer-Encoding : chunked",),
)


@pytest.mark.parametrize("headers", FRAMINGS, ids=range(len(FRAMINGS)))
def test_a_body_of_two_lengths_smuggles_nothing(node: LiveNode, headers: tuple[str, ...]) -> None:
    before = newest_job(node)
    hidden = request("PUT", WEIGHTS, body=weights(own_hotkey(node), 7.0), token=SN1)
    outer = request("PUT", WEIGHTS, *headers, body=b"0\r\n\r\n" + hidden, token=SN1, sized=False)
    with line(node) as opened:
        opened.sendall(outer)
        told = read(opened)
        assert told.status in (400, 501)
        with suppress(ConnectionError):
            assert opened.recv(1) == b""
    assert newest_job(node) == before


def test_requests_that_come_at_once_are_answered_in_order(node: LiveNode) -> None:
    hotkey = own_hotkey(node)
    sent = [request("PUT", WEIGHTS, body=weights(hotkey, number), token=SN1) for number in (1.0, 2.0, 3.0)]
    reads = request("GET", NEURONS, token=OPEN), request("GET", "/api/v1/nothing"), request("GET", NEURONS)
    with line(node) as opened:
        opened.sendall(b"".join([*sent, *reads, request("GET", f"{WEIGHTS}/status", token=SN1)]))
        stream = opened.makefile("rb")
        shared = SimpleNamespace(makefile=lambda _mode: _Unclosed(stream))
        told = [read(shared) for _ in range(7)]  # type: ignore[arg-type]

    assert [one.status for one in told] == [200, 200, 200, 200, 404, 401, 200]
    assert told[6].said["job_id"] == told[2].said["job_id"]


class _Unclosed:
    """A stream that several answers are read from, each of which closes it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def test_a_packed_body_is_not_unpacked(node: LiveNode) -> None:
    process = psutil.Process(node.pid)
    processes = [process, *process.children(recursive=True)]
    before = sum(one.memory_info().rss for one in processes)
    bomb = gzip.compress(bytes(900_000_000), 1)[:1_000_000]

    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        told = exchange(node, request("PUT", WEIGHTS, f"Content-Encoding: {encoding}", body=bomb, token=SN1))
        assert told.status == 400
        assert told.said["detail"].startswith("JSON is malformed: ")
    assert sum(one.memory_info().rss for one in processes) < before + 100_000_000


TIMEOUTS = (
    ("0x10", 400), ("5s", 400), ("5,6", 400), ("6\xb0", 400), ("-inf", 400), ("-0.0", 400), ("nan", 400),
    ("x" * 60_000, 400), ("1" * 60_000, 200), ("1e400", 200), ("+5", 200), ("  5  ", 200), ("infinity", 200),
)  # fmt: skip


@pytest.mark.parametrize(("given", "status"), TIMEOUTS, ids=range(len(TIMEOUTS)))
def test_an_odd_timeout(node: LiveNode, given: str, status: int) -> None:
    for path in (f"{ID}/block/latest/neurons", f"{ID}/block/latest/validators/", "/api/v1/block/latest"):
        token = SN1 if path.startswith(ID) else OPEN
        told = exchange(node, request("GET", path, f"X-Pylon-Timeout: {given}", token=token))
        assert told.status == status, told
        assert len(told.headers.as_string()) + len(told.body) < 3000


def test_no_time_at_all_is_a_timeout_and_takes_none(node: LiveNode) -> None:
    began = time.monotonic()
    told = exchange(node, request("GET", f"{OA}/block/0/validators", "X-Pylon-Timeout: 1e-300", token=OPEN))

    assert (told.status, told.said) == (504, {"status_code": 504, "detail": "Request timed out"})
    assert time.monotonic() - began < 5


def test_too_many_headers_and_too_long_ones_are_refused_by_the_server(node: LiveNode) -> None:
    for headers in ([f"X-{number}: 1" for number in range(200)], ["X: " + "1" * 200_000], ["Cookie: " + "a" * 70_000]):
        told = exchange(node, request("GET", NEURONS, *headers, token=OPEN))
        assert told.status in (400, 431)
    assert exchange(node, request("GET", f"{ID}/weights/status", "Cookie: " + "pylon_session=;" * 4000)).status == 401


def test_an_unknown_method_is_not_allowed(node: LiveNode) -> None:
    for method in ("TRACE", "PATCH", "DELETE", "PROPFIND", "BREW"):
        told = exchange(node, request(method, NEURONS, token=OPEN))
        assert (told.status, told.said) == (405, {"status_code": 405, "detail": "Method Not Allowed"})
        assert told.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_who_reads_no_answer_holds_up_nobody_else(tmp_path: Path) -> None:
    with running_node(tmp_path, pylon=PYLON, **BARE) as node:
        exchange(node, request("GET", NEURONS, token=OPEN))  # the ledger has its subnet
        store = DirectStore(engine := make_engine(f"sqlite:///{node.data}/grid.db"))
        operating.seed(store, SystemClock(), Settings.load({}, data_dir=node.data), 1, 256)
        engine.dispose()
        until(lambda: len(exchange(node, request("GET", NEURONS, token=OPEN)).body) > 100_000)
        deaf = [socket.create_connection(("127.0.0.1", node.port), timeout=30) for _ in range(5)]
        try:
            for opened in deaf:
                opened.setblocking(False)
                with suppress(BlockingIOError):
                    for _ in range(200):
                        opened.send(request("GET", NEURONS, token=OPEN) * 50)
            for _ in range(20):
                assert exchange(node, request("GET", NEURONS, token=OPEN)).status == 200
                assert exchange(node, request("GET", f"{ID}/weights/status", token=SN1)).status == 404
        finally:
            for opened in deaf:
                opened.close()


# --- sockets ---------------------------------------------------------------------------------------------------------


class RawChain:
    """A bare WebSocket in `/chain`: payloads go out as the text that they are given as."""

    def __init__(self, node: LiveNode, auth: dict[str, Any]) -> None:
        self.wire = RawClient(SimpleNamespace(port=node.port))  # type: ignore[arg-type]
        assert self.wire.frame()[1].startswith(b"0{")
        self.wire.send(f"40/chain,{json.dumps(auth)}")
        assert self.wire.text().startswith("40/chain,{")

    def call(self, event: str, *texts: str) -> Any:
        words = ",".join([json.dumps(event), *texts])
        self.wire.send(f"42/chain,1[{words}]")
        while not (told := self.wire.text()).startswith("43/chain,1["):
            pass
        return json.loads(told[told.index("[") :])[0]

    def close(self) -> None:
        self.wire.sock.close()


@pytest.fixture
def raw(node: LiveNode) -> Iterator[Callable[..., RawChain]]:
    made: list[RawChain] = []

    def join(**auth: Any) -> RawChain:
        made.append(RawChain(node, auth))
        return made[-1]

    yield join
    for one in made:
        one.close()


ODD_PAYLOADS = (
    "null", "[]", '"x"', "7", "true", "{}", '{"netuid":null}', '{"netuid":1.0}', '{"netuid":1e0}', '{"netuid":"1"}',
    '{"netuid":-1}', '{"netuid":[]}', '{"netuid":{}}', '{"netuid":true}', '{"netuid":%s}' % ("9" * 3000),
    '{"netuid":18446744073709551616}', '{"netuid":1,"block":-1}', '{"netuid":1,"block":1.5}',
    '{"netuid":1,"block":null}', '{"netuid":1,"block":"LATEST"}', '{"netuid":1,"block":{}}',
    '{"netuid":1,"block":%s}' % ("9" * 3000), '{"netuid":1,"hotkey":""}', '{"netuid":1,"hotkey":["self"]}',
    '{"netuid":1,"hotkey":"%s"}' % ("5" * 5000), '{"netuid":1,"hotkey":"\\u0000"}', '{"block":0,"index":-1}',
    '{"block":0,"index":%s}' % ("9" * 3000), '{"weights":{"a":"x"}}', '{"weights":{"a":1e308}}', '{"weights":[]}',
    '{"commitment":"0X"}', '{"commitment":5}', '{"x":%s}' % ("[" * 40 + "]" * 40), "1,2,3", "{},{}",
)  # fmt: skip
EVENTS = (
    *("block", "extrinsic", "neurons", "validators", "commitments", "certificates", "weights_status"),
    *("set_weights", "set_commitment", "subscribe_heads", "hyperparams", "__class__", ""),
)


@pytest.mark.parametrize("auth", [{"token": OPEN}, {"identity": "sn1", "token": SN1}], ids=["open", "identity"])
@pytest.mark.parametrize("event", EVENTS)
def test_an_odd_payload_is_answered_and_the_socket_lives(
    raw: Callable[..., RawChain], event: str, auth: dict[str, Any]
) -> None:
    chain = raw(**auth)

    for text in ODD_PAYLOADS:
        told = chain.call(event, text)
        assert isinstance(told, dict), (text, told)
        status = told.get("status_code", 200)
        assert told.get("success", True)
        assert status in (200, 308, 400, 401, 404), (text[:100], told)
        assert len(json.dumps(told)) < 10_000
    assert set(chain.call("block", "{}")) == {"number", "hash", "timestamp"}


BROKEN_TEXTS = (
    '{"netuid":NaN}', '{"netuid":1e999}', '{"netuid":1', '{"netuid":1,"netuid":2}', '{"hotkey":"\\ud800"}', "[" * 200,
    '{"netuid":%s}' % ("9" * 20_000), "undefined",
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_TEXTS, ids=range(len(BROKEN_TEXTS)))
def test_a_payload_that_is_no_json_does_no_harm(node: LiveNode, raw: Callable[..., RawChain], text: str) -> None:
    """Whether it is refused or its socket is closed: the others know nothing of it."""
    other, chain = raw(token=OPEN), raw(token=OPEN)

    with suppress(EOFError, ConnectionError, AssertionError):  # the last: a frame that says goodbye
        told = chain.call("neurons", text)
        assert told["status_code"] == 400
    assert set(other.call("block", "{}")) == {"number", "hash", "timestamp"}


def test_a_head_is_pushed_once_to_who_subscribed_often(raw: Callable[..., RawChain]) -> None:
    chain = raw(identity="sn1", token=SN1)
    for _ in range(50):
        assert chain.call("subscribe_heads", "{}") == {"detail": "Subscribed to heads."}
    chain.wire.send('42/chain,2["set_commitment",{"commitment":"beef"}]')
    numbers: list[int] = []
    while True:
        told = chain.wire.text()
        if told.startswith("42/chain,"):
            numbers.append(json.loads(told[told.index("[") :])[1]["number"])
        if numbers and max(numbers) > min(numbers):
            break
    newest = max(numbers)
    chain.call("block", "{}")

    assert numbers.count(newest) == 1


# --- a chain node that lies ------------------------------------------------------------------------------------------

PATIENCE = 1.0
"""Seconds that the node waits for an answer of this chain."""
ALL = (
    *("block/latest/neurons", "block/recent/neurons", "block/9/neurons", "block/latest/validators"),
    *("block/latest/certificates", "block/latest/commitments", "block/latest/commitments/self", "weights/status"),
)
Lie = Callable[[SubtensorSite], None]
HEADER = {"parentHash": "0x" + "ab" * 32, "stateRoot": "0x" + "00" * 32, "extrinsicsRoot": "0x" + "00" * 32}


def every(kind: str, *words: Any) -> Lie:
    return lambda site: getattr(site.fake.faults, kind)(*words)


def header(number: str) -> Lie:
    told = {**HEADER, "number": number, "digest": {"logs": []}}
    return lambda site: site.fake.faults.answer(told, "chain_getHeader")


LIES: dict[str, Lie] = {
    "garbage": every("garbage"),
    "half JSON": every("garbage", "cut"),
    "deep JSON": every("garbage", "deep"),
    "no JSON-RPC": every("garbage", '{"id":1}'),
    "a longer answer than any": every("garbage", "[" + "0," * 20_000_000 + "0]"),
    "a huge number": every("garbage", '{"jsonrpc":"2.0","id":' + "9" * 100_000 + ',"result":1}'),
    "half frames": every("half_frame"),
    "somebody else's answers": every("wrong_id"),
    "nothing, ever": every("stall"),
    "goodbye": every("drop"),
    "an error with a token in it": every("error", -32000, "t0ken " * 1000),
    "an error of no number": every("answer", None),
    "a block of no number": header("nonsense"),
    "a negative block": header("-0x5"),
    "a block beyond 64 bits": header("0x" + "f" * 40),
    "a block beyond 32 bits": header("0x1ffffffff"),
    "a head that is no hash": every("answer", "0x00", "chain_getHead"),
    "a head that is an object": every("answer", {"hash": 1}, "chain_getHead"),
    "state of one byte": every("answer", "0xff", "state_call"),
    "state that is long": every("answer", "0x" + "ff" * 1_000_000, "state_call"),
    "storage of nonsense": every("answer", [[1, 2], "x"], "state_queryStorageAt"),
    "endless keys": every("answer", ["0x" + "00" * 48] * 256, "state_getKeysPaged"),
    "a version of nonsense": every("answer", {"specVersion": "x"}, "state_getRuntimeVersion"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SubtensorSite]:
    made = SubtensorSite(
        tmp_path_factory.mktemp("lies"),
        chain_call_timeout_seconds=PATIENCE,
        chain_latest_stale_seconds=0.5,
        chain_auth_failures_per_minute=1_000_000,
    )
    try:
        made.fake.chain.set_commitment(1, made.alice, b"\x01")
        made.start()
        yield made
    finally:
        made.close()


def own(site: SubtensorSite, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Pylon-Timeout": "4"}
    return httpx.get(f"{site.node.url}{ID}/{path}", headers=headers, timeout=30, trust_env=False)


@pytest.mark.parametrize("lie", LIES)
def test_a_chain_node_that_lies_is_a_bad_gateway_and_then_forgotten(site: SubtensorSite, lie: str) -> None:
    LIES[lie](site)
    met: set[int] = set()

    def is_met() -> bool:
        """Told to somebody: what was read before is told for some seconds more."""
        for path in ALL:
            began = time.monotonic()
            told = own(site, path)
            met.add(told.status_code)
            assert told.status_code in (200, 404, 502, 503, 504), (lie, path, told.text)
            assert told.status_code == 200 or told.json()["status_code"] == told.status_code
            assert len(told.content) < 20_000
            assert time.monotonic() - began < 10
        return bool(met & {502, 503, 504})

    try:
        until(is_met)
        is_met()
    finally:
        site.fake.faults.clear()

    site.wait_blocks(1)
    until(lambda: tells_the_truth(site))
    assert "t0ken" not in site.node.log_text()


def tells_the_truth(site: SubtensorSite) -> bool:
    answer = own(site, "block/latest/neurons")
    if answer.status_code != 200:
        return False
    told, head = answer.json(), site.fake.chain.head.number
    number, everybody = told["block"]["number"], {site.hotkey, site.alice, site.bob, site.carol}
    is_new = head - 4 <= number <= site.fake.chain.head.number
    return is_new and told["block"]["hash"] == "0x" + _hash(site, number) and set(told["neurons"]) == everybody


def _hash(site: SubtensorSite, number: int) -> str:
    found = site.fake.chain.hash_of(number)
    assert found is not None
    return found.hex()


def test_a_lie_about_the_number_of_a_block_is_forgotten_with_it(site: SubtensorSite) -> None:
    """Headers are kept by their hashes: one that was told with another number must not stay."""
    parent = "0x" + site.fake.chain.head.hash.hex()
    told = {**HEADER, "parentHash": parent, "number": "0xfffffff0", "digest": {"logs": []}}
    first = site.fake.chain.head.number + 1
    site.fake.faults.answer(told, "chain_getHeader", 4)
    until(lambda: site.chain_status()["head"]["number"] == 0xFFFFFFF0)
    until(lambda: tells_the_truth(site))

    for number in range(first, site.fake.chain.head.number + 1):
        path, block = f"block/{number}/neurons", {"number": number, "hash": "0x" + _hash(site, number)}
        if own(site, path).status_code == 502:
            site.wait_blocks(1)
        assert own(site, path).json()["block"] == block


def test_a_chain_that_takes_blocks_back_is_told_as_it_is_now(site: SubtensorSite) -> None:
    """The numbers stay and the hashes change: what is not final is never told from memory."""
    site.wait_blocks(2)
    number = site.fake.chain.head.number
    before = own(site, f"block/{number}/neurons").json()["block"]
    site.fake.chain.reorganise(1)
    now = "0x" + _hash(site, number)
    assert before["hash"] != now

    assert own(site, f"block/{number}/neurons").json()["block"] == {"number": number, "hash": now}


# --- the chain's process ---------------------------------------------------------------------------------------------


def hang(node: LiveNode, pid: int) -> None:
    """Stop the process, but not within a write: on SQLite that holds up every other write, too."""
    for _ in range(50):
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(node.data / "grid.db", timeout=0.5, isolation_level=None)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
    raise AssertionError("the process is always writing")


def test_a_process_that_hangs_holds_nobody_past_its_time(tmp_path: Path) -> None:
    with running_node(tmp_path, pylon=PYLON, **BARE) as node:
        hotkey = own_hotkey(node)
        (pid,) = workers_of(node.pid)
        hang(node, pid)
        try:
            began = time.monotonic()
            short = "X-Pylon-Timeout: 0.5"
            told = exchange(node, request("GET", f"{OA}/block/0/validators", short, token=OPEN))
            assert (told.status, told.said["detail"]) == (504, "Request timed out")
            told = exchange(node, request("POST", COMMITMENTS, short, body=b'{"commitment":"aa"}', token=SN1))
            assert told.status == 504
            assert exchange(node, request("PUT", WEIGHTS, body=weights(hotkey), token=SN1)).status == 200
            assert exchange(node, request("GET", "/api/v1/chain/status", token=OPEN)).status == 200
            assert time.monotonic() - began < 10
        finally:
            os.kill(pid, signal.SIGCONT)
        status = request("GET", f"{WEIGHTS}/status", token=SN1)
        until(lambda: exchange(node, status).said["status"] == "completed")
        mine = exchange(node, request("GET", f"{ID}/block/latest/commitments/self", token=SN1)).said
        assert mine["commitment"] == "0xaa", "handed over, it went on"
