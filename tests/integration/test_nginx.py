"""Two nodes behind nginx with the configuration of deploy/: every face works through it, and streams are not held."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import socketio
from grid_client.predictions import PredictionClient
from websockets.sync.client import connect

from tests.miners import (
    NAMESPACE,
    Bookmaker,
    SignedHttp,
    allow,
    authenticate,
    game,
    new_keypair,
    node_hotkey,
    prediction_body,
    prediction_message,
    put_games,
)
from tests.nodes import ROOT, free_port, until
from tests.scripted_runner import ScriptedRunner
from tests.several import Socket, generate, hand_in, pull, sockets, started_pair, worker

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
WAIT = 20.0


class Front:
    """nginx before two nodes."""

    def __init__(self, folder: Path, pair, port) -> None:
        self.pair = pair
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._log = folder / "nginx.log"
        self._process = None

    def start(self) -> None:
        file = self._folder / "nginx.conf"
        file.write_text(self._configuration((ROOT / "deploy" / "nginx.conf").read_text()))
        command = [NGINX, "-p", str(self._folder), "-c", str(file), "-e", str(self._log)]
        subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=WAIT)
        self._process = subprocess.Popen([*command, "-g", "daemon off;"], stdout=subprocess.DEVNULL)
        until(self._listens, WAIT)

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return self.get("/healthz")[0] == 200
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(WAIT)

    def log_text(self) -> str:
        return self._log.read_text()

    def access_text(self) -> str:
        return (self._folder / "access.log").read_text()

    def _configuration(self, text: str) -> str:
        """Ours, on ports and paths of the test."""
        for name, node in (("node-1", self.pair.a), ("node-2", self.pair.b)):
            text, count = re.subn(f"server {name}:8888", f"server 127.0.0.1:{node.port}", text)
            assert count == 1
        text, count = re.subn("listen 80;", f"listen 127.0.0.1:{self.port};", text)
        assert count == 1
        text = text.replace("/dev/stdout", str(self._folder / "access.log")).replace("/dev/stderr", str(self._log))
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{name}_temp_path {self._folder}/{name};\n" for name in names)
        text = re.sub("worker_processes auto;", "worker_processes 1;", text)
        return f"pid {self._folder}/nginx.pid;\n" + text.replace("http {\n", "http {\n" + temporary, 1)

    def get(self, path, address="127.0.0.1", **headers):
        """Status and body of a request that comes from this address."""
        with self.asked(path, address, **headers) as answer:
            return answer.status, answer.read()

    @contextlib.contextmanager
    def asked(self, path, address="127.0.0.1", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, WAIT, source_address=(address, 0))
        with contextlib.closing(connection):
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            with connection.getresponse() as answer:
                yield answer


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    port = free_port()
    settings = {"trusted_proxies": 1, "public_api_bad_keys": 5, "public_base_url": f"http://127.0.0.1:{port}"}
    with started_pair(folder, "sqlite", **settings) as pair:
        made = Front(folder, pair, port)
        made.start()
        yield made
        made.stop()


@pytest.fixture
def opened():
    with sockets() as track:
        yield track


@pytest.fixture
def hands(front, opened):
    return opened(worker(front.pair.b.url, front.pair.worker_key, "behind"))


def test_the_websocket_transport_goes_through(front, opened, hands):
    client = opened(Socket(front.url, api_key=front.pair.a.add_key()))
    generate(client)
    hand_in(hands, pull(hands))
    assert [update["status"] for update in client.wait_for("task_update", 2)] == ["started", "best_results"]


@pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"]], ids="-".join)
def test_the_polling_transport_stays_on_its_node(front, hands, transports):
    updates = []
    client = socketio.Client(reconnection=False)
    client.on("task_update", updates.append)
    client.connect(front.url, auth={"api_key": front.pair.a.add_key()}, transports=transports, wait_timeout=WAIT)
    try:
        for number in range(3):
            answer = client.call("generate", {"prompt": "x", "kind": "text", "copies": 1}, timeout=WAIT)
            assert answer["success"], answer
            hand_in(hands, pull(hands))
            until(lambda expected=2 * (number + 1): len(updates) == expected)
        assert client.transport() == transports[-1]
    finally:
        client.disconnect()
        client.shutdown()


def test_server_sent_events_come_one_by_one(front, opened, hands):
    key = front.pair.a.add_key()
    task = generate(opened(Socket(front.url, api_key=key)))
    with front.asked(f"/tasks/{task['id']}/events", Authorization=f"Bearer {key}") as stream:
        assert stream.status == 200
        assert next_update(stream)["status"] == "queued"
        lease = pull(hands)
        assert next_update(stream)["status"] == "started"
        hand_in(hands, lease)
        assert next_update(stream)["status"] == "best_results"


def next_update(stream):
    """The next event's data; the read would time out if anything on the way kept it back."""
    while not (line := stream.readline()).startswith(b"data:"):
        assert line, "the stream ended"
    return json.loads(line[5:])


def test_the_raw_websocket_goes_through(front, hands):
    with connect(f"ws://127.0.0.1:{front.port}/ws/generate/", proxy=None) as raw:
        raw.send(json.dumps({"api_key": front.pair.a.add_key()}))
        raw.send(json.dumps({"prompt": "a chair", "kind": "text", "copies": 1}))
        lease = pull(hands)
        assert json.loads(raw.recv(WAIT))["status"] == "started"
        hand_in(hands, lease)
        assert json.loads(raw.recv(WAIT))["status"] == "best_results"


@pytest.fixture
def hotkey(front):
    """A hotkey that may predict on 120 games."""
    made = new_keypair()
    allow(front.pair.a, made)
    put_games(front.pair.a, game(), *(game(f"nfl-{number}") for number in range(100, 219)))
    return made


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_a_miner_predicts_and_follows_the_games(front, hotkey, tmp_path, transport):
    node = front.pair.a
    by_socket = transport == "websocket"
    with PredictionClient(
        front.url, hotkey, node_hotkey(node), tmp_path / "outbox.db", websocket_enabled=by_socket
    ) as client:
        until(lambda: len(client.games) == 120)  # 50 kB
        assert client.status()["transport"] == transport
        assert client.wait(client.submit(prediction_body()), WAIT).accepted
        odds = Bookmaker(node).append(30)[-1]
        until(lambda: client.games["nfl-17"]["team_b_odds"] == odds)


def test_a_miner_behind_the_polling_transport_is_answered(front, hotkey):
    challenges = []
    client = socketio.Client(reconnection=False)
    client.on("challenge", challenges.append, namespace=NAMESPACE)
    client.connect(front.url, namespaces=[NAMESPACE], transports=["polling"], wait_timeout=WAIT)
    try:
        until(lambda: challenges)
        message = authenticate(hotkey, challenges[0])
        assert client.call("authenticate", message, namespace=NAMESPACE, timeout=WAIT)["success"]
        message = prediction_message(hotkey, node_hotkey(front.pair.a))
        assert client.call("prediction", message, namespace=NAMESPACE, timeout=WAIT)["success"]
    finally:
        client.disconnect()
        client.shutdown()


def test_signed_requests_arrive_as_they_were_signed(front, hotkey):
    with contextlib.closing(SignedHttp(front.pair.a, hotkey, front.url)) as http:
        receipt = http.predict(prediction_id="a:b")
        assert receipt.status_code == 200, receipt.text
        for target in ("/predictions/a:b", "/predictions/a%3Ab", "/predictions/%61:b?x=%2F..%2F&y"):
            answer = http.request("GET", target)
            assert answer.status_code == 200, answer.text
            assert answer.json()["receipt"] == receipt.json()
        listed = http.get("/games", sport="foot ball/ü", active="true")
        assert (listed.status_code, listed.json()["games"]) == (200, {})
        assert http.request("GET", "/games").headers["ETag"]


def test_a_long_poll_is_answered_by_the_next_update(front, hotkey):
    node = front.pair.a
    bookmaker = Bookmaker(node)
    with contextlib.closing(SignedHttp(node, hotkey, front.url)) as http, ThreadPoolExecutor(1) as pool:
        end = bookmaker.seen(http)
        waiting = pool.submit(http.get, "/games/updates", epoch=end["epoch"], after=end["seq"], wait=55)
        odds = bookmaker.append(1)
        (update,) = waiting.result(WAIT).json()["updates"]
        assert update["updated_games"] == {"nfl-17": {"team_b_odds": odds[0]}}


# --- models that run elsewhere


UPLOAD = "/pc/client-api/upload"
PIECE = bytes(range(256)) * 4096


class Painting:
    """A script that reports, and waits to be let on before it uploads 20 MiB without saying how much it is."""

    def __init__(self):
        self.go = threading.Event()

    def __call__(self, run):
        run.report("processing", logs="painting")
        assert self.go.wait(WAIT)
        url = run.upload("p%2Fred%20one.bin", (PIECE for _ in range(20)))
        run.report("succeeded", logs="painting", output=[url], metrics={"predict_time": 1.0})


@pytest.fixture(scope="module")
def owner(front):
    return front.pair.a.add_key("anna", ("runner", "client"))


@pytest.fixture(scope="module")
def model(front, owner):
    document = {"name": "painter", "inputs": [{"name": "prompt", "type": "str"}], "outputs": "list[Path]"}
    answer = requests.post(
        f"{front.url}/pc/client-api/predict_signature", json=document, headers={"X-API-Key": owner}, timeout=WAIT
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def create(front, owner, **headers):
    """The answer to a request for a painting."""
    headers = {"Authorization": f"Bearer {owner}", **headers}
    account = requests.get(f"{front.url}/v1/account", headers=headers, timeout=WAIT).json()["username"]
    address = f"{front.url}/v1/models/{account}/painter/predictions"
    asked = {"input": {"prompt": "a donut"}}
    answer = requests.post(address, json=asked, headers=headers, timeout=WAIT + 10)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_model_is_run_its_updates_come_one_by_one_and_its_file_comes_back(front, owner, model):
    script = Painting()
    with ScriptedRunner(front.url, model, owner, script) as runner:
        assert runner.upload_url == front.url + UPLOAD
        address = create(front, owner)["urls"]["stream"]
        assert address.startswith(front.url)
        with front.asked(address.removeprefix(front.url), X_API_Key=owner) as stream:
            assert next_data(stream) == "painting"
            script.go.set()
            url = next_data(stream)
            assert url.startswith(f"{front.url}/pc/client-api/files/")
            assert next_data(stream) == "{}"
        got = requests.get(url, timeout=WAIT)
        assert got.content == PIECE * 20
        assert 'filename="red one.bin"' in got.headers["Content-Disposition"]
        part = requests.get(url, headers={"Range": "bytes=255-256"}, timeout=WAIT)
        assert (part.status_code, part.content) == (206, b"\xff\x00")


def next_data(stream):
    """The first line of the next event's data."""
    while not (line := stream.readline()).startswith(b"data:"):
        assert line, "the stream ended"
    return line[5:].decode().strip()


def test_an_upload_is_refused_before_its_bytes_are_there(front):
    """nginx keeps nothing back: the node sees the headers at once."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, WAIT)
    with contextlib.closing(connection):
        connection.putrequest("PUT", f"{UPLOAD}/x.png")
        connection.putheader("Content-Length", str(20 << 20))
        connection.endheaders()
        with connection.getresponse() as answer:
            assert (answer.status, json.loads(answer.read())["code"]) == (401, "missing_key")


def test_a_client_waits_for_its_prediction(front, owner, model):
    def script(run):
        run.report("succeeded", output=[])

    with ScriptedRunner(front.url, model, owner, script):
        assert create(front, owner, Prefer="wait=20")["status"] == "succeeded"


def test_the_health_of_sockets_is_open_to_all(front):
    status, body = front.get("/ws/health")
    assert (status, json.loads(body)["status"]) == (200, "online")


def test_wrong_keys_count_against_the_address_that_nginx_saw_whatever_the_client_claims(front):
    def wrong(address, number):
        claimed = f"203.0.113.{number}"
        return front.get("/tasks", address, X_API_Key=f"wrong{number:040d}", X_Forwarded_For=claimed)[0]

    assert [wrong("127.0.0.2", number) for number in range(7)] == [401] * 6 + [429]
    assert wrong("127.0.0.3", 8) == 401


def test_metrics_are_for_the_operators_network_alone(front):
    assert front.get("/metrics")[0] == 403


def test_a_node_that_is_gone_is_passed_over(front):
    for node in (front.pair.a, front.pair.b):
        node.kill()
        assert [front.get("/healthz")[0] for _ in range(3)] == [200, 200, 200]
        if node is front.pair.a:
            node.start()
            front.stop()  # it would believe for 5 s more that the node is gone
            front.start()


def test_the_token_of_a_report_is_in_no_log_of_the_proxy(front):
    """Not even where every node is gone; the worker gets an answer after which it comes again."""
    for node in (front.pair.a, front.pair.b):
        if node.is_running:
            node.kill()
    answer = requests.post(
        f"{front.url}/pc/client-api/webhook/prediction?token=abc.s3cret", json={"id": "abc"}, timeout=WAIT
    )
    assert answer.status_code == 502
    assert front.get("/healthz?shown")[0] == 502
    assert "/healthz?shown" in front.log_text()
    assert "/pc/client-api/webhook/prediction" in front.access_text()
    assert "s3cret" not in front.log_text() + front.access_text()
