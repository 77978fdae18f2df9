"""A node that speaks TLS itself: miners with the right authority come in over WSS and HTTPS, others tell it nothing."""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair
from grid_client.errors import GridError
from grid_client.predictions import PredictionClient

from tests.miners import Bookmaker, Miner, allow, game, new_keypair, node_hotkey, prediction_body, put_games, stored
from tests.nodes import LiveNode, until
from tests.proxy import proxied

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
WAIT = 30.0
WINDOW = 4
"""Updates that the node sends ahead of what was acknowledged."""
OF_THE_NODE = "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1"
OF_ANOTHER = "/CN=other.example", "subjectAltName=DNS:other.example"
Start = Callable[..., PredictionClient]


class Certificate:
    """One that vouches for itself."""

    def __init__(self, folder: Path, subject: str, names: str) -> None:
        folder.mkdir()
        self.file, self.key = folder / "cert.pem", folder / "key.pem"
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        named = ["-subj", subject, "-addext", names, "-keyout", str(self.key), "-out", str(self.file)]
        subprocess.run(["openssl", "req", "-x509", *made, *named], check=True, capture_output=True, timeout=WAIT)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


class TlsNode(LiveNode):
    """gunicorn with `--certfile` and `--keyfile`, from the environment as `grid-node serve` leaves it."""

    def __init__(self, folder: Path, certificate: Certificate, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.certificate = certificate
        self.url = f"https://127.0.0.1:{self.port}"

    def _environment(self) -> dict[str, str]:
        files = f"--certfile={self.certificate.file} --keyfile={self.certificate.key}"
        return {**super()._environment(), "GUNICORN_CMD_ARGS": files}

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_text()
        with contextlib.suppress(OSError):
            return self.get("/healthz")[0] == 200
        return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a request."""
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=WAIT, context=self.certificate.context())
        ) as peer:
            peer.request("GET", path)
            answer = peer.getresponse()
            return answer.status, answer.read()

    def connections(self) -> int:
        """Authenticated sockets."""
        return int(json.loads(self.get("/ws/health")[1])["connections"])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsNode]:
    folder = tmp_path_factory.mktemp("tls")
    limits = {"worker_api_keys": False, "games_compress_min_bytes": 600, "scoring_processes": 0}
    slow = {"websocket_slow_timeout": 2, "websocket_send_window": WINDOW}
    made = TlsNode(folder / "node", Certificate(folder / "certificate", *OF_THE_NODE), **limits, **slow)
    try:
        made.start()
        put_games(made, game("nfl-17"), game("nfl-18"), game("nfl-19"))
        yield made
    finally:
        made.discard()


@pytest.fixture
def keypair(node: TlsNode) -> Keypair:
    made = new_keypair()
    allow(node, made)
    return made


@pytest.fixture
def start(node: TlsNode, keypair: Keypair, tmp_path: Path) -> Iterator[Start]:
    """Starts clients of one hotkey, which trust the node's certificate unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def begin(**options: Any) -> PredictionClient:
            trust = {"ca_file": node.certificate.file, **options}
            client = PredictionClient(node.url, keypair, node_hotkey(node), tmp_path / "outbox.db", **trust)
            stack.callback(client.stop)
            client.start()
            return client

        yield begin


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_with_the_right_authority_predictions_and_games_pass(start: Start, node: TlsNode, transport: str) -> None:
    client = start(websocket_enabled=transport == "websocket")
    body = prediction_body()
    assert client.wait(client.submit(body), WAIT).accepted
    until(lambda: set(client.games) == {"nfl-17", "nfl-18", "nfl-19"})
    assert client.status()["transport"] == transport
    odds = Bookmaker(node).append(9)[-1]
    until(lambda: client.games["nfl-17"]["team_b_odds"] == odds)
    assert f"Sent confirmation for prediction {body['prediction_id']}" in node.log_text()


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_without_it_the_node_is_told_nothing(
    start: Start, node: TlsNode, keypair: Keypair, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = start(ca_file=None, websocket_enabled=transport == "websocket", http_fallback_after=0)
    prediction_id = client.submit(prediction_body())
    until(lambda: any("CERTIFICATE_VERIFY_FAILED" in text for text in caplog.messages))
    with pytest.raises(GridError, match="CERTIFICATE_VERIFY_FAILED"):
        client.http.health()
    assert client.status()["transport"] != "websocket"
    assert client.entry(prediction_id).state in ("queued", "sent")
    assert stored(node, keypair) == []


def test_a_certificate_of_another_name_is_refused(
    keypair: Keypair, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("other")
    certificate = Certificate(folder / "certificate", *OF_ANOTHER)
    with _listening(certificate) as port:
        client = PredictionClient(
            f"https://127.0.0.1:{port}", keypair, keypair.ss58_address, tmp_path / "o.db", ca_file=certificate.file
        )
        with contextlib.closing(client.http), pytest.raises(GridError, match=r"CERTIFICATE_VERIFY_FAILED.*IP address"):
            client.http.health()
        client.stop()


@contextlib.contextmanager
def _listening(certificate: Certificate) -> Iterator[int]:
    """openssl's own server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    files = ["-cert", str(certificate.file), "-key", str(certificate.key)]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, "-quiet"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            until(lambda: _takes_connections(port))
            yield port
        finally:
            server.kill()


def _takes_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_what_is_no_tls_gets_no_answer_and_holds_nobody_up(start: Start, node: TlsNode) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(20):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", node.port), WAIT))
            if number % 2:
                silent.sendall(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
        client = start()
        assert client.wait(client.submit(prediction_body()), WAIT).accepted
    assert node.get("/ws/health")[0] == 200


@pytest.mark.parametrize("reads", [True, False])
def test_a_miner_that_does_not_keep_up_is_cut(
    node: TlsNode, keypair: Keypair, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(node.certificate.file))
    until(lambda: node.connections() == 0)
    with (
        proxied(node.port) as line,
        Miner(node, keypair, url=f"https://127.0.0.1:{line.port}", acknowledges=False) as miner,
    ):
        assert node.connections() == 1
        if not reads:
            line.stall("down")
        Bookmaker(node).append(2 * WINDOW)
        if reads:
            assert miner.closing()["reason"] == "slow_consumer"
            assert len(miner.updates) == WINDOW
            miner.gone()
        until(lambda: node.connections() == 0)


def test_a_node_that_stops_ends_its_sockets_in_order_and_they_come_back(start: Start, node: TlsNode) -> None:
    client = start(reconnect_base_interval=0.1)
    until(lambda: client.status()["transport"] == "websocket" and bool(client.games))
    process = node._process
    node.restart()
    assert process is not None
    assert process.returncode == 0
    until(lambda: client.status()["transport"] == "websocket")
    assert client.wait(client.submit(prediction_body()), WAIT).accepted
