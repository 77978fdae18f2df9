"""The chain on a running node: its namespace of Socket.IO, and what `/metrics` tells to whom."""

import contextlib
import re
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import socketio

from events.chain import ChainEvents
from grid_node.chain.told import Told
from tests.chain_house import OPEN, SN1, bearer
from tests.integration.sockets import Socket
from tests.nodes import METRICS_HEADERS, LiveNode, running_node

BODY_MAX = 20_000
IDENTITY = {"identity": "sn1", "token": SN1}
PYLON = {
    "PYLON_OPEN_ACCESS_TOKEN": OPEN,
    "PYLON_IDENTITIES": '["sn1"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "h",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": SN1,
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with running_node(tmp_path_factory.mktemp("chain"), pylon=PYLON, chain_body_max_bytes=BODY_MAX) as live:
        yield live


@pytest.fixture
def join(node: LiveNode) -> Iterator[Callable[..., Socket]]:
    made: list[Socket] = []

    def join(**auth: Any) -> Socket:
        made.append(Socket(node.url, "/chain", **auth))
        return made[-1]

    yield join
    for socket in made:
        socket.close()


@pytest.fixture
def http(node: LiveNode) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield client


def refusal(node: LiveNode, **auth: Any) -> Any:
    """What a socket is told that is not let in."""
    told: list[Any] = []
    client = socketio.Client(reconnection=False)
    client.on("connect_error", told.append, namespace="/chain")
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(node.url, auth=auth or None, namespaces=["/chain"], transports=["websocket"])
    client.shutdown()
    return told[-1]


@pytest.mark.parametrize(
    ("auth", "status", "detail"),
    [
        ({}, 401, "Authorization header is required"),
        ({"token": "x"}, 403, "Invalid authorization token"),
        ({"token": SN1}, 403, "Invalid authorization token"),
        ({"identity": "sn1", "token": OPEN}, 403, "Invalid authorization token"),
        ({"identity": "sn1"}, 401, "Authorization header is required"),
        ({"identity": "nope", "token": SN1}, 404, "Identity 'nope' not found"),
        ({"identity": 7, "token": [1]}, 401, "Authorization header is required"),
    ],
)
def test_who_has_no_token_is_told_so_as_http_tells(
    node: LiveNode, auth: dict[str, Any], status: int, detail: str
) -> None:
    assert refusal(node, **auth) == {"message": detail, "data": {"status_code": status, "detail": detail}}


def test_acks_are_the_bodies_of_http(join: Callable[..., Socket], http: httpx.Client) -> None:
    socket, own = join(token=OPEN), join(**IDENTITY)
    number = socket.call("neurons", {"netuid": 1})["block"]["number"]
    base = "/api/v1/subnet/1/block"
    for event, payload, path in (
        ("neurons", {"netuid": 1, "block": number}, f"{base}/{number}/neurons"),
        ("validators", {"netuid": 1, "block": number}, f"{base}/{number}/validators"),
        ("certificates", {"netuid": 1}, f"{base}/latest/certificates"),
        ("commitments", {"netuid": 1, "hotkey": "self"}, f"{base}/latest/commitments/self"),
        ("certificates", {"netuid": 1, "hotkey": "x"}, f"{base}/latest/certificates/x"),
        ("neurons", {"netuid": 70}, "/api/v1/subnet/70/block/latest/neurons"),
        ("neurons", {"netuid": 70_000}, "/api/v1/subnet/70000/block/latest/neurons"),
        ("validators", {"netuid": 1, "block": 2**32}, f"{base}/{2**32}/validators"),
        ("extrinsic", {"block": number, "index": 0}, f"/api/v1/block/{number}/extrinsic/0"),
        ("extrinsic", {"block": number, "index": 99}, f"/api/v1/block/{number}/extrinsic/99"),
    ):
        assert socket.call(event, payload) == http.get(path, headers=bearer(OPEN)).json(), event
    assert set(socket.call("block")) == {"number", "hash", "timestamp"}
    assert own.call("neurons", {"block": "recent"})["neurons"].keys() == own.call("neurons")["neurons"].keys()


def test_an_identity_writes_and_reads_its_own(join: Callable[..., Socket]) -> None:
    own = join(**IDENTITY)
    (hotkey,) = own.call("neurons")["neurons"]

    assert own.call("set_commitment", {"commitment": "0x00ff"}) == {"detail": "Commitment set successfully."}
    assert own.call("commitments", {"hotkey": "self"})["commitment"] == "0x00ff"
    assert own.call("commitments")["commitments"] == {hotkey: "0x00ff"}
    put = own.call("set_weights", {"weights": {hotkey: 1}})
    assert (put["detail"], put["count"]) == ("weights update scheduled", 1)
    assert own.call("weights_status")["job_id"] == put["job_id"]


def test_open_access_writes_nothing(join: Callable[..., Socket]) -> None:
    socket = join(token=OPEN)

    for event, payload in (("set_weights", {"weights": {"a": 1}}), ("set_commitment", {"commitment": "00"})):
        assert socket.call(event, payload) == {"status_code": 401, "detail": "Authorization header is required"}


@pytest.mark.parametrize(
    ("event", "payload", "key", "message"),
    [
        ("neurons", {"netuid": "1"}, "netuid", "Input should be a valid integer"),
        ("neurons", {"netuid": True}, "netuid", "Input should be a valid integer"),
        ("neurons", {"netuid": -1}, "netuid", "Input should be greater than or equal to 0"),
        ("neurons", {}, "netuid", "Field required"),
        ("neurons", [], "", "Input should be an object"),
        (
            "validators",
            {"netuid": 1, "block": "recent"},
            "block",
            "Input should be a block number or one of: latest",
        ),
        (
            "neurons",
            {"netuid": 1, "block": [1]},
            "block",
            "Input should be a block number or one of: latest, recent",
        ),
        ("extrinsic", {"block": 1}, "index", "Field required"),
        ("commitments", {"netuid": 1, "hotkey": 5}, "hotkey", "Input should be a valid string"),
    ],
)
def test_a_bad_payload_is_named(join: Callable[..., Socket], event: str, payload: Any, key: str, message: str) -> None:
    assert join(token=OPEN).call(event, payload) == {
        "status_code": 400,
        "detail": f"Validation failed for {event}",
        "extra": [{"message": message, "key": key}],
    }


def test_an_identity_socket_reaches_its_own_subnet_alone(join: Callable[..., Socket]) -> None:
    told = join(**IDENTITY).call("neurons", {"netuid": 2})

    assert told == {"status_code": 308, "detail": "Identity 'sn1' is bound to subnet 1, not 2"}


def test_heads_are_pushed_from_the_newest_on(join: Callable[..., Socket]) -> None:
    socket, own = join(token=OPEN), join(**IDENTITY)
    assert socket.call("subscribe_heads") == {"detail": "Subscribed to heads."}
    first = socket.wait_for("head")[0]

    own.call("set_commitment", {"commitment": "aabb"})

    heads = socket.wait_for("head", 2)
    assert set(first) == {"number", "hash", "timestamp"}
    assert heads[1]["number"] > first["number"]
    assert own.all("head") == []


def test_an_ack_above_the_message_limit_points_to_http() -> None:
    told = {"latest": Told(b"{} ", None), "longer": Told(b"{}  ", None)}
    reads = SimpleNamespace(
        watch_heads=lambda seen: None,
        latest=lambda kind, netuid, timeout: told["latest" if netuid == 1 else "longer"],
    )
    access = SimpleNamespace(open_token=lambda token, address: None)
    chain = SimpleNamespace(reads=reads, access=access, pylon=SimpleNamespace(default_request_timeout_seconds=60))
    settings = SimpleNamespace(message_max=3, chain_body_max_bytes=1000)
    face = ChainEvents(
        SimpleNamespace(chain=chain, settings=settings, draining=False),  # type: ignore[arg-type]
        SimpleNamespace(message_limits={}, error_bodies={}),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
    )
    face.connect("sid", {}, None)

    assert face.neurons("sid", {"netuid": 1}) == "{} "
    assert face.neurons("sid", {"netuid": 2}) == {
        "status_code": 413,
        "detail": "Answer exceeds the message limit. Use the HTTP route.",
    }


def test_what_is_no_event_of_the_chain_is_refused_in_the_same_words(join: Callable[..., Socket]) -> None:
    socket = join(token=OPEN)

    assert socket.call("hyperparams") == {"status_code": 404, "detail": "Not Found"}
    assert socket.call("neurons", {"netuid": 1, "more": "x" * BODY_MAX}) == {
        "status_code": 413,
        "detail": f"Request body is larger than {BODY_MAX} bytes.",
    }


# --- HTTP over a real server -------------------------------------------------------------------------------------


def test_a_chunked_body_above_the_limit_is_refused_before_its_end(http: httpx.Client) -> None:
    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1000):
            sent.append(number)
            yield b" " * 65536

    answer = http.put("/api/v1/identity/sn1/subnet/1/weights", content=pieces(), headers=bearer(SN1))

    assert answer.json() == {"status_code": 413, "detail": f"Request body is larger than {BODY_MAX} bytes."}


def test_the_two_ways_are_one_to_a_client_that_keeps_its_connection(http: httpx.Client) -> None:
    path = "/api/v1/subnet/1/block/latest/neurons"
    for _ in range(3):
        read = http.get(path, headers=bearer(OPEN))
        missing = http.get("/api/v1/nothing", headers=bearer(OPEN))
        refused = http.get(path)
        assert [one.status_code for one in (read, missing, refused)] == [200, 404, 401]
        assert len(read.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("path", ["/api/v1/subnet/1//block/latest/neurons", "//api/v1/block/latest", "/api/v1/%ff"])
def test_a_crooked_path_is_not_found_and_never_redirected(node: LiveNode, path: str) -> None:
    peer = HTTPConnection("127.0.0.1", node.port, timeout=20)
    with contextlib.closing(peer):
        peer.request("GET", path, headers=bearer(OPEN))
        answer = peer.getresponse()
        answer.read()
        assert (answer.status, answer.headers.get("Location")) == (404, None)


# --- metrics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Authorization header is required"),
        ({"Authorization": "Token x"}, "Invalid Authorization header format. Expected: Bearer <token>"),
        ({"Authorization": "Bearer"}, "Invalid Authorization header format. Expected: Bearer <token>"),
        (bearer("x"), "Invalid authorization token"),
        (bearer("\xf6".encode().decode("latin-1")), "Invalid authorization token"),
        (bearer(OPEN), "Invalid authorization token"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_metrics_are_refused_with_403(http: httpx.Client, headers: dict[str, str], detail: str, slash: str) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

    answer = http.get(f"/metrics{slash}", headers=raw)

    assert (answer.status_code, answer.json()) == (403, {"status_code": 403, "detail": detail})


SAMPLED = (
    ("pylon_bittensor_operation_duration_seconds", "histogram"),
    ("pylon_bittensor_fallback_total", "counter"),
    ("pylon_apply_weights_job_duration_seconds", "histogram"),
    ("pylon_apply_weights_attempt_duration_seconds", "histogram"),
)
"""Those of the chain's own process."""
SERIES = {
    "pylon_requests_total": {"app_name", "method", "path", "status_code"},
    "pylon_request_duration_seconds_bucket": {"app_name", "method", "path", "status_code", "le"},
    "pylon_requests_in_progress": {"app_name", "method", "path", "status_code"},
    "python_info": {"implementation", "major", "minor", "patchlevel", "version"},
    "python_gc_collections_total": {"generation"},
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "grid_chain_cache_hits_total": set(),
    "grid_chain_cache_misses_total": set(),
    "grid_chain_head_age_seconds": set(),
    "grid_chain_worker_restarts_total": set(),
}


def test_every_series_is_there_with_its_labels(node: LiveNode, http: httpx.Client) -> None:
    for _ in range(2):
        http.get("/api/v1/subnet/1/block/latest/neurons", headers=bearer(OPEN))
    text = http.get("/metrics", headers=METRICS_HEADERS).text
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line)
        if sample:
            found[sample[1]] = set(re.findall(r'(\w+)="', sample[2] or ""))

    assert {name: found.get(name) for name in SERIES} == SERIES
    assert all(f"# TYPE {name} {kind}" in text for name, kind in SAMPLED)
    assert 'path="/api/v1/subnet/{netuid}/block/latest/neurons"' in text
    assert SN1 not in text
    assert OPEN not in text
    assert SN1 not in node.log_text()
