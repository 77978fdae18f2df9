"""What an operator sees of a running node: health, metrics, logs, and how it ends."""

import contextlib
import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import socketio
from grid_client.generation import GenerationClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.nodes import LiveNode, until
from tests.scripted_runner import ScriptedRunner

pytestmark = pytest.mark.timeout(180)


FIRST_ANSWERS: dict[str, httpx.Response] = {}
"""What `/readyz` said when the node had just started."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    node = LiveNode(tmp_path_factory.mktemp("operations"), scoring_previews=0, lock_timeout=0.5)
    node.start()
    FIRST_ANSWERS["/readyz"] = httpx.get(node.url + "/readyz")
    until(lambda: ready(node), 60)
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[LiveNode]:
    """A node that the test may end."""
    node = LiveNode(tmp_path)
    node.start()
    try:
        yield node
    finally:
        node.stop()


# --- health -----------------------------------------------------------------------------------------------------------


def test_a_node_is_ready_only_when_its_scorers_are_warm(node: LiveNode) -> None:
    cold = FIRST_ANSWERS["/readyz"]

    assert httpx.get(node.url + "/healthz").json() == {"status": "ok"}
    assert cold.status_code == 503
    assert cold.json()["missing"] == ["scoring: 1 of 1 job processes are not warm"]
    assert cold.headers["Retry-After"] == "1"
    assert httpx.get(node.url + "/health/").json() == {"status": "ready", "missing": []}


def test_a_dead_job_process_is_seen_and_replaced(node: LiveNode) -> None:
    [job] = job_processes(node)

    job.kill()

    until(lambda: not ready(node))
    until(lambda: ready(node), 60)
    assert gauge(node, "grid_job_process_restarts") == 1
    assert [process.pid for process in job_processes(node)] != [job.pid]


def test_a_locked_database_makes_the_node_unready(node: LiveNode) -> None:
    with closing(sqlite3.connect(node.data / "grid.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = httpx.get(node.url + "/readyz", timeout=20)
        alive = httpx.get(node.url + "/healthz")

    assert answer.status_code == 503
    assert answer.json()["missing"] == ["database: The database is not available"]
    assert alive.status_code == 200
    until(lambda: ready(node))


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_measured(node: LiveNode) -> None:
    """One task by two workers, one error: afterwards each metric says so."""
    node.start_workers(2, "text_to_3d")
    until(lambda: gauge(node, "grid_pulls_waiting") == 2)
    with GenerationClient(node.url, node.add_key("client")) as client:
        task = client.submit("a red robot", copies=2)
        client.wait(task.id, timeout=60)
        client_sockets = gauge(node, "grid_connections", face="client")
        httpx.get(f"{node.url}/nowhere")
        with contextlib.suppress(Exception):
            client._connected().call("task_status", {"task_id": "none"}, 5)

    # ended tasks and verdicts are counted when their rows are settled
    until(lambda: gauge(node, "grid_tasks_ended_total", state="best_results") == 1)
    until(lambda: gauge(node, "grid_scoring_seconds_count") == 2)
    assert gauge(node, "grid_tasks", state="queued") == 0
    assert gauge(node, "grid_queue_depth", kind="text_to_3d") == 0
    assert gauge(node, "grid_scoring_queue_depth") == 0
    assert client_sockets == 1
    assert gauge(node, "grid_connections", face="worker") == 2
    assert gauge(node, "grid_dispatch_seconds_count") == 1
    assert 0 < gauge(node, "grid_scoring_seconds_sum") < 60
    assert gauge(node, "grid_ack_seconds_count", event="generate") == 1
    assert gauge(node, "grid_ack_seconds_count", event="submit_result") == 2
    assert gauge(node, "grid_http_seconds_count", route="*", status="404") >= 1
    assert gauge(node, "grid_errors_total", code="task_not_found") == 1
    assert 0 < gauge(node, "grid_hub_gap_max_seconds") < 60


def test_a_waiting_task_shows_in_the_gauges(node: LiveNode) -> None:
    before = gauge(node, "grid_queue_depth", kind="text")
    with GenerationClient(node.url, node.add_key("client")) as client:
        client.submit("nobody will take this", kind="text")

        assert gauge(node, "grid_tasks", state="queued") == before + 1
        assert gauge(node, "grid_queue_depth", kind="text") == before + 1


def test_a_model_that_runs_elsewhere_shows_in_the_metrics(node: LiveNode) -> None:
    keys = {"X-API-Key": node.add_key("owner", ("runner", "client"))}
    signature = {"name": "echo", "inputs": [{"name": "prompt", "type": "str"}], "outputs": "str"}
    made = httpx.post(f"{node.url}/pc/client-api/predict_signature", headers=keys, json=signature).json()
    with ScriptedRunner(node.url, made["id"], keys["X-API-Key"]):
        assert gauge(node, "grid_connections", face="runner") == 1
        until(lambda: gauge(node, "grid_runner_agents", status="READY") == 1)
        owner = httpx.get(f"{node.url}/v1/account", headers=keys).json()["username"]
        asked = {"input": {"prompt": "x"}}
        run = httpx.post(f"{node.url}/v1/models/{owner}/echo/predictions", headers=keys, json=asked)
        assert run.status_code == 201, run.text
        until(lambda: gauge(node, "grid_runner_predictions_ended_total", state="succeeded") == 1)

    assert gauge(node, "grid_runner_predictions", state="queued") == 0
    until(lambda: gauge(node, "grid_runner_agents", status="READY") == 0)
    route = "/pc/client-api/webhook/prediction"
    assert gauge(node, "grid_http_seconds_count", route=route, status="200") == 3


def test_the_errands_process_begins_with_the_first_errand_and_is_replaced_when_it_dies(own_node: LiveNode) -> None:
    assert not errands_processes(own_node)

    owe_a_webhook(own_node)
    until(lambda: bool(errands_processes(own_node)))
    (before,) = errands_processes(own_node)

    before.kill()

    until(lambda: gauge(own_node, "grid_errand_process_restarts") == 1)
    until(lambda: [process.pid for process in errands_processes(own_node)] not in ([], [before.pid]))


# --- logs -------------------------------------------------------------------------------------------------------------


def test_no_key_and_no_prompt_reaches_the_log(node: LiveNode) -> None:
    """Keys by every way that there is, good ones and bad ones."""
    prompt = "a very secret teapot"
    good, bad = node.add_key("good"), node.keys.generate()
    with GenerationClient(node.url, good) as client:
        client.submit(prompt, kind="text")
    for key in (good, bad):
        httpx.get(f"{node.url}/tasks", headers={"Authorization": f"Bearer {key}"})
        httpx.get(f"{node.url}/tasks", headers={"X-API-Key": key})
        httpx.get(f"{node.url}/tasks/{key}", headers={"X-API-Key": key})
        join(node, {"api_key": key})
        join(node, {}, {"Authorization": f"Bearer {key}"})
        authenticate_worker(node, key)
        send_raw(node, key, prompt)

    log = node.log_text()
    assert "Listening at" in log
    for secret in (good, bad, prompt):
        assert secret not in log
        assert secret not in node.metrics()


def test_every_line_of_the_log_is_json(node: LiveNode) -> None:
    lines = node.log_text().splitlines()

    assert len(lines) > 3
    assert all({"event", "level", "logger", "timestamp"} <= json.loads(line).keys() for line in lines)


def test_a_scored_result_is_logged_with_its_task(node: LiveNode) -> None:
    node.start_workers(1, "text_to_3d")
    with GenerationClient(node.url, node.add_key("client")) as client:
        task = client.submit("a blue robot", copies=1)
        client.wait(task.id, timeout=60)

    until(lambda: task.id in scored_tasks(node))


def test_every_answer_names_its_request(node: LiveNode) -> None:
    ids = {httpx.get(f"{node.url}/healthz").headers["X-Request-Id"] for _ in range(3)}

    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_sigterm_tells_every_socket_and_leaves_nothing_behind(own_node: LiveNode) -> None:
    jobs = job_processes(own_node)
    heard: dict[str, Any] = {}
    clients = [listen(own_node, "/", heard), listen(own_node, "/worker", heard)]
    process = own_node._process
    assert process is not None
    with connect(f"ws://127.0.0.1:{own_node.port}/socket.io/?EIO=4&transport=websocket") as raw:
        raw.recv()

        os.kill(process.pid, signal.SIGTERM)

        until(lambda: set(heard) == {"/", "/worker"})
        with pytest.raises(ConnectionClosed):
            raw.recv(timeout=10)
    for client in clients:
        client.disconnect()
    assert all((body["code"], body["reason"]) == (4503, "shutdown") for body in heard.values())
    assert process.wait(20) == 0
    assert jobs
    assert not [job for job in jobs if job.is_running() and job.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in own_node.log_text()


# --- shared -----------------------------------------------------------------------------------------------------------


def scored_tasks(node: LiveNode) -> set[str]:
    """Ids bound to what the job processes say."""
    said = [json.loads(line) for line in node.log_text().splitlines()]
    return {line["task_id"] for line in said if line["logger"] == "grid_node.jobs.scoring" and "task_id" in line}


def ready(node: LiveNode) -> bool:
    return httpx.get(node.url + "/readyz").status_code == 200


def gauge(node: LiveNode, name: str, **labels: str) -> float:
    """The value of one sample of `/metrics`; 0 when it is not there."""
    for line in node.metrics().splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return 0.0


def job_processes(node: LiveNode) -> list[psutil.Process]:
    children = psutil.Process(node.pid).children(recursive=True)
    return [child for child in children if "grid_node.jobs.worker" in child.cmdline()]


def errands_processes(node: LiveNode) -> list[psutil.Process]:
    children = psutil.Process(node.pid).children(recursive=True)
    return [child for child in children if "grid_node.jobs.errands" in child.cmdline()]


def owe_a_webhook(node: LiveNode) -> None:
    """To nobody: a prediction that waits is cancelled."""
    headers = {"X-API-Key": node.add_key("owner", ("runner", "client"))}
    with httpx.Client(base_url=node.url, headers=headers) as client:
        client.post("/pc/client-api/predict_signature", json={"name": "echo", "inputs": [], "outputs": "str"})
        address = f"/v1/models/{client.get('/v1/account').json()['username']}/echo/predictions"
        made = client.post(address, json={"input": {}, "webhook": "https://nobody.invalid/"}).json()
        assert client.post(f"/v1/predictions/{made['id']}/cancel").json()["status"] == "canceled"


def join(node: LiveNode, auth: dict[str, str], headers: dict[str, str] | None = None) -> None:
    client = socketio.Client(reconnection=False)
    with contextlib.suppress(socketio.exceptions.ConnectionError):
        client.connect(node.url, auth=auth, headers=headers or {}, transports=["websocket"])
    client.disconnect()


def authenticate_worker(node: LiveNode, key: str) -> None:
    with socketio.SimpleClient() as client:
        client.connect(node.url, namespace="/worker", transports=["websocket"])
        client.call("authenticate", {"api_key": key, "name": "w"})


def send_raw(node: LiveNode, key: str, prompt: str) -> None:
    """The two frames of the raw WebSocket, and a frame that is nonsense with a key in it."""
    for frames in ([{"api_key": key}, {"prompt": prompt}], [{"wrong": key}]):
        with contextlib.suppress(Exception), connect(f"ws://127.0.0.1:{node.port}/ws/generate/") as socket:
            for frame in frames:
                socket.send(json.dumps(frame))
            socket.recv(timeout=2)


def listen(node: LiveNode, namespace: str, heard: dict[str, Any]) -> socketio.Client:
    client = socketio.Client(reconnection=False)
    client.on("closing", lambda body: heard.setdefault(namespace, body), namespace=namespace)
    client.connect(node.url, namespaces=[namespace], transports=["websocket"])
    return client
