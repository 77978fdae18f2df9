"""A runner's agent between a scripted node and a scripted worker: what it passes on, what not, and when it gives up."""

import contextlib
import itertools
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import socketio
from grid_client import __version__
from grid_client.backoff import Backoff
from grid_client.cli import main as program
from grid_client.errors import GridError
from grid_client.runner import Refused, RunnerAgent
from grid_client.runner_calls import Call, CallRefused, Worker, is_allowed, origin_of
from grid_client.runner_identity import RunnerIdentity, instance_file, kept_instance

from tests.nodes import ROOT, until
from tests.unit.clients.serving import serving

MODEL = "m-abcdefghijklmnopqrst"
INSTANCE = "0123456789abcdef" * 2
NAMESPACE = "/runner"
PATIENCE = 10.0


class ScriptedNode:
    """Namespace `/runner`: keeps what agents say, and calls them."""

    url: str

    def __init__(self) -> None:
        self.auths: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.health: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.agents: list[str] = []
        self.left = threading.Semaphore(0)
        self.refusals: list[dict[str, Any]] = []
        self.ready: dict[str, Any] = {"runner_id": "r1", "model_id": MODEL, "max_message_bytes": 1 << 20}
        self.sio = socketio.Server(async_mode="threading", max_http_buffer_size=4 << 20)
        for event, handler in (("connect", self._connect), ("disconnect", self._left), ("health", self._health)):
            self.sio.on(event, handler, namespace=NAMESPACE)

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [])
        return [b""]

    def _connect(self, sid: str, environ: object, auth: Any) -> None:
        self.auths.put(auth)
        if self.refusals:
            body = {"success": False, **self.refusals.pop(0)}
            raise socketio.exceptions.ConnectionRefusedError(body["error"], body)
        self.agents.append(sid)
        self.sio.emit("ready", self.ready, to=sid, namespace=NAMESPACE)

    def _left(self, sid: str, reason: object = None) -> None:
        self.left.release()

    def _health(self, sid: str, body: Any) -> dict[str, Any]:
        self.health.put(body)
        return {"success": True}

    def call(self, method: str, path: str, timeout: float = PATIENCE, **members: Any) -> dict[str, Any]:
        data = {"call_id": "c1", "method": method, "path": path, "timeout_s": 5, **members}
        return self.raw_call(data, timeout)

    def raw_call(self, data: Any, timeout: float = PATIENCE) -> dict[str, Any]:
        found = self.sio.call("http", data, to=self.agents[-1], namespace=NAMESPACE, timeout=timeout)
        assert isinstance(found, dict)
        return found


class ScriptedWorker:
    """An HTTP server that answers by path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.health: Any = {"status": "READY"}
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    def answer(self, path: str, status: int, body: bytes | dict[str, Any], **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = lambda request: _send(request, status, content, headers)

    def taken(self) -> list[str]:
        return [f"{method} {path}" for method, path, _headers, _body in self.requests if path != "/health-check"]

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.requests.append((request.command, request.path, dict(request.headers), body))
        if request.path in self.answers:
            self.answers[request.path](request)
        elif request.path == "/health-check":
            _send(request, 200, json.dumps(self.health).encode(), {})
        else:
            _send(request, 202, b'{"status": "starting"}', {})


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    with contextlib.suppress(OSError):  # an agent that has had enough hangs up
        request.wfile.write(body)


@contextlib.contextmanager
def worker_serving(scripted: ScriptedWorker, port: int = 0) -> Iterator[ScriptedWorker]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scripted.take(self)

        do_PUT = do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is not a server log."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        scripted.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield scripted
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with serving(ScriptedNode()) as scripted:
        yield scripted


@pytest.fixture
def worker() -> Iterator[ScriptedWorker]:
    with worker_serving(ScriptedWorker()) as scripted:
        yield scripted


class Running:
    """An agent in a thread, and how it ended."""

    def __init__(self, node_url: str, worker_url: str, identity: RunnerIdentity | None = None) -> None:
        identity = identity or RunnerIdentity(MODEL, token="token-of-the-tests")
        quick = Backoff(0.01, 0.05)
        self.agent = RunnerAgent(node_url, worker_url, identity, INSTANCE, backoff=quick)
        self.error: GridError | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.agent.run()
        except GridError as error:
            self.error = error

    def ended(self) -> GridError | None:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.error


@contextlib.contextmanager
def agent_between(node: ScriptedNode, worker_url: str, identity: RunnerIdentity | None = None) -> Iterator[Running]:
    """One that has reported health once: it is connected."""
    running = Running(node.url, worker_url, identity)
    try:
        yield running
    finally:
        running.agent.stop()
        running.thread.join(PATIENCE)


@pytest.fixture
def connected(node: ScriptedNode, worker: ScriptedWorker) -> Iterator[Running]:
    with agent_between(node, worker.url) as running:
        node.health.get(timeout=PATIENCE)
        yield running


# --- who it is


def test_it_says_who_it_is_with_the_token_of_its_credential(node: ScriptedNode, connected: Running) -> None:
    assert node.auths.get(timeout=PATIENCE) == {
        "protocol": 1,
        "model_id": MODEL,
        "instance": INSTANCE,
        "token": "token-of-the-tests",
        "agent": f"grid-runner/{__version__}",
    }


def test_it_says_who_it_is_with_a_key(node: ScriptedNode, worker: ScriptedWorker) -> None:
    with agent_between(node, worker.url, RunnerIdentity(MODEL, key="key-of-the-tests")):
        auth = node.auths.get(timeout=PATIENCE)

    assert (auth["key"], "token" in auth) == ("key-of-the-tests", False)


def test_no_secret_is_in_what_prints_it() -> None:
    assert "s3cret" not in repr(RunnerIdentity(MODEL, token="s3cret")) + repr(RunnerIdentity(MODEL, key="s3cret"))


# --- what passes


def test_a_prediction_is_passed_on_with_its_body_and_the_headers_that_pass(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running
) -> None:
    headers = {"prefer": "respond-async", "Content-Type": "application/json", "traceparent": "00-1-2-03"}
    hidden = {"Authorization": "Bearer x", "Host": "elsewhere", "Cookie": "a=b", "X-Any": "1"}

    ack = node.call("PUT", "/predictions/p1", headers={**headers, **hidden}, json={"input": {"prompt": "é"}})

    assert ack.pop("ms") >= 0
    assert ack == {"call_id": "c1", "status": 202, "json": {"status": "starting"}}
    method, _path, got, body = next(one for one in worker.requests if one[1] == "/predictions/p1")
    assert (method, json.loads(body)) == ("PUT", {"input": {"prompt": "é"}})
    assert got["Prefer"] == "respond-async"
    assert got["traceparent"] == "00-1-2-03"
    assert got["Host"] == worker.url.removeprefix("http://")
    assert not {"Authorization", "Cookie", "X-Any"} & set(got)


def test_a_workers_refusal_is_passed_on_as_it_is(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running
) -> None:
    worker.answer("/predictions/p1", 409, {"detail": "Already running a prediction"})
    worker.answer("/predictions/p2", 403, {"detail": "no"})
    worker.answer("/predictions/p1/cancel", 404, {})

    found = [node.call("PUT", "/predictions/p1"), node.call("PUT", "/predictions/p2")]
    found.append(node.call("POST", "/predictions/p1/cancel"))

    assert [(ack["status"], ack["json"]) for ack in found] == [
        (409, {"detail": "Already running a prediction"}),
        (403, {"detail": "no"}),
        (404, {}),
    ]
    assert not any("code" in ack for ack in found)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"", b'{"a": NaN}', b"[" * 100_000], ids=len)
def test_an_answer_that_is_no_json_is_a_status_alone(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running, body: bytes
) -> None:
    worker.answer("/predictions/p1", 500, body)

    ack = node.call("PUT", "/predictions/p1")

    assert (ack["status"], ack["json"], "code" in ack) == (500, None, False)


def test_calls_do_not_wait_for_each_other(node: ScriptedNode, worker: ScriptedWorker, connected: Running) -> None:
    is_held, may_go = threading.Event(), threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        is_held.set()
        may_go.wait(PATIENCE)
        _send(request, 200, b"{}", {})

    worker.answers["/predictions"] = slow
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()
    caller = threading.Thread(target=lambda: found.put(node.call("POST", "/predictions", json={})))
    caller.start()
    assert is_held.wait(PATIENCE)

    assert node.call("POST", "/predictions/p1/cancel")["status"] == 202
    assert found.empty()

    may_go.set()
    caller.join(PATIENCE)
    assert found.get(timeout=PATIENCE)["status"] == 200


# --- what does not


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/shutdown"),
        ("GET", "/shutdown"),
        ("PUT", "/predictions/a/b"),
        ("PUT", "/predictions/../shutdown"),
        ("PUT", "/predictions/a%2fb"),
        ("PUT", "/predictions/p1?x=1"),
        ("PUT", "/predictions/p1\n"),
        ("PUT", "/predictions/" + "p" * 65),
        ("PUT", "/predictions/"),
        ("PUT", "//elsewhere/predictions/p1"),
        ("PUT", "@elsewhere/predictions/p1"),
        ("GET", "/predictions/p1"),
        ("put", "/predictions/p1"),
        ("DELETE", "/predictions/p1"),
        ("GET", "/health-check/"),
        ("GET", "/"),
        ("POST", "/predictions/p1/cancel/"),
    ],
)
def test_what_is_not_on_the_list_is_refused(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running, method: str, path: str
) -> None:
    ack = node.call(method, path, json={})

    assert (ack["call_id"], ack["status"], ack["code"]) == ("c1", 403, "call_not_allowed")
    assert ack["json"] == {
        "success": False,
        "error": "Call not allowed.",
        "code": "call_not_allowed",
        "status": 403,
    }
    assert worker.taken() == []


@pytest.mark.parametrize("data", [None, [], "text", {}, {"method": 1, "path": 2}, {"method": "PUT"}], ids=repr)
def test_a_call_without_a_shape_is_refused(node: ScriptedNode, connected: Running, data: Any) -> None:
    assert node.raw_call(data)["code"] == "call_not_allowed"


@pytest.mark.parametrize("given", [{"timeout_s": float("nan")}, {"timeout_s": "9"}, {"timeout_s": -1}, {}], ids=repr)
def test_a_time_limit_that_is_none_becomes_the_usual_one(given: dict[str, Any]) -> None:
    assert Call.read({"method": "GET", "path": "/health-check", **given}).timeout_s == 15.0


def test_no_time_limit_is_longer_than_two_minutes() -> None:
    assert Call.read({"method": "GET", "path": "/health-check", "timeout_s": 10**400}).timeout_s == 120.0


def test_a_redirect_is_not_followed(node: ScriptedNode, worker: ScriptedWorker, connected: Running) -> None:
    worker.answer("/predictions/p1", 307, {}, Location="/shutdown")

    assert node.call("PUT", "/predictions/p1")["status"] == 307
    assert worker.taken() == ["PUT /predictions/p1"]


def test_an_answer_over_512_kib_is_an_error_and_the_link_stays(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running
) -> None:
    worker.answer("/predictions/p1", 200, b'"' + b"x" * (512 * 1024 - 1) + b'"')
    worker.answer("/predictions/p2", 200, b'"' + b"x" * (512 * 1024 - 2) + b'"')

    ack = node.call("PUT", "/predictions/p1")

    assert (ack["status"], ack["code"]) == (502, "reply_too_large")
    assert ack["json"]["error"] == "Worker's reply is too large."
    assert len(node.call("PUT", "/predictions/p2")["json"]) == 512 * 1024 - 2
    assert len(node.agents) == 1


def test_an_answer_that_grows_over_the_nodes_limit_is_an_error(node: ScriptedNode, worker: ScriptedWorker) -> None:
    """As JSON of the socket every é has six bytes."""
    node.ready["max_message_bytes"] = 300_000
    worker.answer("/predictions/p1", 200, ('"' + "é" * 60_000 + '"').encode())
    with agent_between(node, worker.url):
        node.health.get(timeout=PATIENCE)

        assert node.call("PUT", "/predictions/p1")["code"] == "reply_too_large"


def test_an_answer_without_end_is_given_up_at_the_time_limit(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running
) -> None:
    may_go = threading.Event()
    worker.answers["/predictions/p1"] = lambda request: may_go.wait(PATIENCE) and None

    ack = node.call("PUT", "/predictions/p1", timeout_s=0.1)

    may_go.set()
    assert (ack["status"], ack["code"]) == (504, "runner_timeout")
    assert ack["json"]["error"] == "Runner did not answer in time."


def test_an_answer_that_trickles_is_given_up_at_the_time_limit(worker: ScriptedWorker) -> None:
    worker.answer("/predictions/p1", 200, {})
    times = iter([0.0, 6.0])
    patient = Worker(worker.url, clock=lambda: next(times))

    with pytest.raises(CallRefused) as caught:
        patient.call(Call("PUT", "/predictions/p1", {}, {}, 5.0))

    patient.close()
    assert caught.value.code == "runner_timeout"


def test_a_worker_that_is_gone_is_told_as_such(node: ScriptedNode) -> None:
    with worker_serving(ScriptedWorker()) as scripted, agent_between(node, scripted.url):
        assert node.health.get(timeout=PATIENCE) == {"status": "READY"}
        scripted.answers["/health-check"] = lambda request: request.connection.shutdown(socket.SHUT_RDWR)
        scripted.answers["/predictions/p1"] = scripted.answers["/health-check"]

        ack = node.call("PUT", "/predictions/p1")

        assert (ack["status"], ack["code"]) == (502, "runner_unreachable")
        assert ack["json"]["error"] == "Worker is not reachable."
        assert node.health.get(timeout=PATIENCE) == {"status": "OFFLINE"}


def test_more_calls_than_fit_are_told_to_try_again(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = connected.agent._link
    assert link is not None
    monkeypatch.setattr(link, "_room", threading.BoundedSemaphore(1))
    assert link._room.acquire()

    ack = node.call("PUT", "/predictions/p1")

    assert (ack["status"], ack["code"]) == (503, "try_again")
    link._room.release()
    assert node.call("PUT", "/predictions/p1")["status"] == 202


@pytest.mark.parametrize(
    "url", ["ftp://h", "http://", "localhost:3009", "http://h/path", "http://u:p@h", "http://h?x", "http://h:x", ""]
)
def test_the_workers_address_is_an_origin(url: str) -> None:
    with pytest.raises(GridError) as caught:
        origin_of(url)
    assert caught.value.code == "bad_url"


def test_an_origin_is_kept_as_it_is() -> None:
    assert [origin_of(url) for url in ("http://localhost:3009/", "https://[::1]:1", "http://cog")] == [
        "http://localhost:3009",
        "https://[::1]:1",
        "http://cog",
    ]


def test_the_list_is_the_four_calls() -> None:
    found = [is_allowed(method, path) for method, path in (
        ("GET", "/health-check"), ("POST", "/predictions"), ("PUT", "/predictions/A_z-9"),
        ("POST", "/predictions/A_z-9/cancel"))]  # fmt: skip

    assert found == [True] * 4


# --- health


def test_health_is_told_whole_and_at_each_change(
    node: ScriptedNode, worker: ScriptedWorker, connected: Running
) -> None:
    worker.health = {"status": "BUSY", "setup": {"logs": "ok"}, "version": {"cog": "0.16.12"}}
    node.call("GET", "/health-check")  # a call is a reason to look
    assert node.health.get(timeout=PATIENCE) == worker.health
    worker.health = {"status": "READY"}

    assert node.health.get(timeout=PATIENCE) == worker.health


def test_the_log_of_a_workers_setup_is_cut(node: ScriptedNode, worker: ScriptedWorker) -> None:
    worker.health = {"status": "READY", "setup": {"logs": "x" * 1_000_000 + "end", "status": "succeeded"}}
    with agent_between(node, worker.url):
        told = node.health.get(timeout=PATIENCE)

    assert told["setup"]["status"] == "succeeded"
    assert told["setup"]["logs"] == "x" * (8 * 1024 - 3) + "end"


@pytest.mark.parametrize("health", [[], {}, {"status": 7}, "text"], ids=repr)
def test_what_is_no_health_check_is_unknown(node: ScriptedNode, worker: ScriptedWorker, health: Any) -> None:
    worker.health = health
    with agent_between(node, worker.url):
        assert node.health.get(timeout=PATIENCE) == {"status": "UNKNOWN"}


def test_a_worker_that_is_not_there_yet_is_offline_and_then_ready(node: ScriptedNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with agent_between(node, f"http://127.0.0.1:{port}"):
        assert node.health.get(timeout=PATIENCE) == {"status": "OFFLINE"}
        with worker_serving(ScriptedWorker(), port):
            assert node.health.get(timeout=PATIENCE) == {"status": "READY"}


# --- how long it goes on


def test_a_lost_connection_is_made_again(node: ScriptedNode, connected: Running) -> None:
    node.sio.disconnect(node.agents[0], namespace=NAMESPACE)

    node.health.get(timeout=PATIENCE)
    assert len(node.agents) == 2
    assert node.call("GET", "/health-check")["status"] == 200


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_node_that_cannot_now_is_asked_again(node: ScriptedNode, worker: ScriptedWorker, status: int) -> None:
    node.refusals = [{"status": status, "code": "any", "error": "Temporarily unavailable."}] * 3
    with agent_between(node, worker.url):
        node.health.get(timeout=PATIENCE)

    assert len(node.agents) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422])
def test_a_refusal_ends_it(node: ScriptedNode, worker: ScriptedWorker, status: int) -> None:
    node.refusals = [{"status": status, "code": "invalid_key", "error": "API key is not valid."}] * 9

    error = Running(node.url, worker.url).ended()

    assert isinstance(error, Refused)
    assert (error.code, error.message, error.status) == ("invalid_key", "API key is not valid.", status)
    assert len(node.refusals) == 8


def test_who_is_replaced_again_and_again_gives_way(node: ScriptedNode, connected: Running) -> None:
    for _ in range(3):
        replace_newest(node)
        node.health.get(timeout=PATIENCE)
    replace_newest(node)

    error = connected.ended()
    assert isinstance(error, Refused)
    assert error.code == "replaced"
    assert len(node.agents) == 4


def test_who_is_replaced_now_and_then_stays(
    node: ScriptedNode, connected: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected.agent, "_clock", itertools.count(0.0, 61.0).__next__)
    for _ in range(6):
        replace_newest(node)
        node.health.get(timeout=PATIENCE)

    assert len(node.agents) == 7


def replace_newest(node: ScriptedNode) -> None:
    node.sio.emit("replaced", {}, to=node.agents[-1], namespace=NAMESPACE)
    node.sio.disconnect(node.agents[-1], namespace=NAMESPACE)


def test_a_node_that_is_not_there_is_waited_for(worker: ScriptedWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    late, scripted = Running(f"http://127.0.0.1:{port}", worker.url), ScriptedNode()
    with serving(scripted, port):
        scripted.health.get(timeout=PATIENCE)
        late.agent.stop()
        assert late.ended() is None


def test_pauses_double_from_half_a_second_to_five() -> None:
    agent = RunnerAgent("http://127.0.0.1:9", "http://127.0.0.1:9", RunnerIdentity(MODEL, key="k"), INSTANCE)
    agent._backoff._uniform = lambda low, high: high

    assert [agent._backoff.next() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_token_does_not_go_in_the_clear_to_another_machine() -> None:
    with pytest.raises(GridError) as caught:
        RunnerAgent("http://192.0.2.1", "http://127.0.0.1:9", RunnerIdentity(MODEL, key="k"), INSTANCE)
    assert caught.value.code == "insecure_url"


# --- what is kept


def instance(file: Path) -> str:
    """Of an agent that began and ended."""
    with kept_instance(file) as found:
        return found


def test_an_instance_is_kept_over_restarts(tmp_path: Path) -> None:
    file = instance_file(tmp_path / "new", MODEL, "http://localhost:3009")

    first = instance(file)

    assert instance(file) == first
    assert len(first) == 32
    assert file.stat().st_mode & 0o077 == 0
    assert [one.name for one in file.parent.iterdir()] == [f"grid-runner-{MODEL}-http-localhost-3009.instance"]


def test_two_workers_of_a_model_are_two_instances(tmp_path: Path) -> None:
    files = {instance_file(tmp_path, MODEL, f"http://localhost:{port}") for port in (3009, 3010)}

    with contextlib.ExitStack() as both:
        assert len({both.enter_context(kept_instance(file)) for file in files}) == 2


def test_an_instance_is_of_one_agent_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "instance"

    with kept_instance(file) as first, pytest.raises(ValueError, match="another agent runs with"):
        instance(file)
    assert instance(file) == first


def test_an_instance_that_may_only_be_read_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "instance"
    first = instance(file)

    monkeypatch.setattr(os, "open", _refuse_to_write)  # for root every file may be written

    assert instance(file) == first


def _refuse_to_write(file: Path, *_: object) -> int:
    raise PermissionError(13, "Permission denied", str(file))


def test_a_damaged_instance_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "instance"
    file.write_bytes(b"\xff" * 100)

    assert instance(file) == instance(file)
    assert len(file.read_bytes()) == 33


def test_where_nothing_can_be_kept_it_goes_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()

    assert len(instance(tmp_path / "file" / "instance")) == 32
    assert "the instance id is not kept" in caplog.text


# --- the command


def credential(folder: Path, **members: Any) -> Path:
    file = folder / "tunnel_credential.json"
    file.write_text(json.dumps({"TunnelName": MODEL, "token": "token-of-the-tests", "TunnelSecret": "x", **members}))
    return file


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRID_NODE_URL", raising=False)
    monkeypatch.delenv("GRID_URL", raising=False)
    monkeypatch.delenv("GRID_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def runner(*arguments: object) -> int:
    return program.main(["runner", *map(str, arguments)])


def test_wrong_usage_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = ["--node", "http://127.0.0.1:9"]
    assert runner(*node) == 2  # no credential
    assert runner(*node, "--model-id", MODEL) == 2  # no key
    monkeypatch.setenv("GRID_API_KEY", "key-of-the-tests")
    assert runner(*node, "--model-id", "model") == 2
    credential(tmp_path)
    assert runner() == 2  # no node
    assert runner("--node", "ftp://127.0.0.1") == 2
    assert runner("--node", "http://192.0.2.1") == 2
    assert runner(*node, "--url", "http://localhost:3009/predictions") == 2
    assert runner("--node", "https://127.0.0.1:9", "--ca-file", tmp_path / "absent") == 2
    with pytest.raises(SystemExit) as end:
        runner(*node, "--credential", "a", "--model-id", MODEL)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "key-of-the-tests" not in told
    assert "token-of-the-tests" not in told


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"TunnelName": 1}', "[" * 100_000, "x" * 100_000], ids=len)
def test_a_credential_that_is_none_exits_2(tmp_path: Path, text: str) -> None:
    credential(tmp_path).write_text(text)

    assert runner("--node", "http://127.0.0.1:9") == 2


@pytest.mark.parametrize(
    "members", [{"token": ""}, {"token": None}, {"TunnelName": "m-"}, {"TunnelName": "../x"}], ids=repr
)
def test_a_credential_of_no_model_exits_2(tmp_path: Path, members: dict[str, Any]) -> None:
    credential(tmp_path, **members)

    assert runner("--node", "http://127.0.0.1:9") == 2


def test_a_refusal_exits_3_and_says_why(node: ScriptedNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credential(tmp_path)
    node.refusals = [{"status": 401, "code": "invalid_key", "error": "API key is not valid."}]

    assert runner("--node", node.url) == 3
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "grid-runner: invalid_key: API key is not valid."
    assert "token-of-the-tests" not in told


@pytest.mark.parametrize("name", ["GRID_NODE_URL", "GRID_URL"])
def test_the_node_may_stand_in_the_environment(
    node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    credential(tmp_path)
    node.refusals = [{"status": 401, "code": "invalid_key", "error": "API key is not valid."}]
    monkeypatch.setenv(name, node.url)

    assert runner() == 3


def test_a_second_agent_for_the_same_worker_exits_2(
    node: ScriptedNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credential(tmp_path)
    node.refusals = [{"status": 401, "code": "invalid_key", "error": "API key is not valid."}]  # if it gets that far
    file = instance_file(tmp_path, MODEL, "http://localhost:3009")

    with kept_instance(file):
        assert runner("--node", node.url) == 2
    assert f"another agent runs with {file}" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_with_0(node: ScriptedNode, worker: ScriptedWorker, tmp_path: Path, number: int) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from grid_client.cli.main import grid_runner; sys.exit(grid_runner())",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python"), "GRID_NODE_URL": node.url}
    credential(tmp_path)
    process = subprocess.Popen([*command, "--url", worker.url], env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        assert node.health.get(timeout=30) == {"status": "READY"}
        process.send_signal(number)
        _out, told = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0, told
    assert b"token-of-the-tests" not in told
    until(lambda: node.left.acquire(blocking=False))
    kept = [file.name for file in tmp_path.glob("grid-runner-*.instance")]
    assert len(kept) == 1


def test_no_secret_is_logged(node: ScriptedNode, worker: ScriptedWorker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "grid_client")
    with agent_between(node, worker.url):
        node.health.get(timeout=PATIENCE)

    assert "connected: model" in caplog.text
    assert "token-of-the-tests" not in caplog.text
