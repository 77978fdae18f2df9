"""Bad days of a running node: a stopped worker, a locked database, a full disk, many who wait."""

import contextlib
import hashlib
import json
import selectors
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import client as http_client
from pathlib import Path
from selectors import EVENT_READ
from typing import Any

import httpx
import pytest

from tests.faults import locked, no_file_grows, server_process
from tests.integration.sockets import Socket, worker
from tests.nodes import LiveNode, until

pytestmark = pytest.mark.timeout(240)

LEASE = 1.5
PULLS = 1000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    live = LiveNode(
        tmp_path_factory.mktemp("faults"),
        scoring_processes=0,
        lock_timeout=1,
        worker_lease=LEASE,
        worker_cooldown_expired=0,
        public_api_settle=0.2,
        public_api_wait_after_first_copy=2,
        worker_presence=3,
    )
    live.start()
    try:
        yield live
    finally:
        live.stop()


@pytest.fixture
def sockets() -> Iterator[Callable[..., Socket]]:
    """Opens sockets and closes them after the test."""
    opened: list[Socket] = []

    def enter(made: Socket) -> Socket:
        opened.append(made)
        return made

    yield enter
    for made in opened:
        made.close()


@pytest.fixture(scope="module")
def key(node: LiveNode) -> str:
    return node.add_key("client")


@pytest.fixture
def client(node: LiveNode, key: str, sockets: Callable[..., Socket]) -> Socket:
    return sockets(Socket(node.url, api_key=key))


@pytest.fixture(scope="module")
def worker_key(node: LiveNode) -> str:
    return node.add_key("workers", ("worker",))


@pytest.fixture(scope="module")
def http(node: LiveNode, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as made:
        yield made


def hand_in(socket: Socket, lease: dict[str, Any], text: str) -> dict[str, Any]:
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    answer: dict[str, Any] = socket.call(
        "submit_result",
        {
            "task_id": lease["task_id"],
            "lease_id": lease["lease_id"],
            "format": "text",
            "sha256": digest,
            "asset": data,
        },
    )
    return answer


def ask(client: Socket, prompt: str = "a chair", **fields: Any) -> str:
    answer = client.call("generate", {"prompt": prompt, "kind": "text", "copies": 1, **fields})
    assert answer["success"], answer
    return str(answer["task"]["id"])


def ended(client: Socket, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = client.call("task_status", {"task_id": task_id})["task"]
    while task["status"] not in ("best_results", "failed", "cancelled"):
        task = client.call("task_status", {"task_id": task_id, "after_seq": task["seq"], "wait_s": 20})["task"]
    return task


def counts(node: LiveNode) -> dict[str, int]:
    """How many rows there are of everything that a request could half write."""
    with closing(sqlite3.connect(node.data / "grid.db")) as database:
        tables = ("tasks", "stream_entries", "charges", "copies", "blob_references")
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


# --- a worker that stops ----------------------------------------------------------------------------------------------


def test_a_worker_stopped_past_its_lease_and_continued_never_replaces_the_winner(
    node: LiveNode, client: Socket, worker_key: str, sockets: Callable[..., Socket]
) -> None:
    """The worker is a process of its own that is really stopped, with its lease in hand."""
    task_id = ""
    node.start_workers(1, "text")
    (process,) = node._workers["text"]
    process.send_signal(signal.SIGSTOP)
    try:
        task_id = ask(client, "stopped")
        until(lambda: client.call("task_status", {"task_id": task_id})["task"]["status"] == "started")
        quick = sockets(worker(node.url, worker_key, "quick"))
        lease = quick.call("pull_task", {"wait_s": 20})["task"]
        assert lease["task_id"] == task_id, "the lease of the stopped worker ran out"
        assert hand_in(quick, lease, "the winner")["verdict"] == "accepted"
        won = ended(client, task_id)
    finally:
        process.send_signal(signal.SIGCONT)

    until(lambda: late_feedback(node, task_id) == ["late"])
    after = client.call("task_status", {"task_id": task_id})["task"]
    assert (after["best"], after["results"], after["seq"]) == (won["best"], won["results"], won["seq"])
    assert [result["hotkey"].rsplit("/")[-1] for result in after["results"]] == ["quick"]
    states = {miner["hotkey"].rsplit("/")[-1]: miner["state"] for miner in after["statistics"]["miners"]}
    assert states == {"text-0": "expired", "quick": "accepted"}
    node.stop_workers()


def late_feedback(node: LiveNode, task_id: str) -> list[str]:
    """What the stopped worker was told of its result."""
    query = (
        "SELECT body ->> 'verdict' FROM stream_entries WHERE stream LIKE 'worker:%/text-0' AND body ->> 'task_id' = ?"
    )
    with closing(sqlite3.connect(node.data / "grid.db")) as database:
        return [row[0] for row in database.execute(query, (task_id,))]


# --- a locked database ------------------------------------------------------------------------------------------------


def test_a_locked_database_is_503_with_retry_after_and_nothing_is_half_written(
    node: LiveNode, key: str, http: httpx.Client, worker_key: str, sockets: Callable[..., Socket]
) -> None:
    client, reader = (sockets(Socket(node.url, api_key=key)) for _ in range(2))
    supplier, renewer = (sockets(worker(node.url, worker_key, name)) for name in ("supplier", "renewer"))
    known = ask(client, "before", copies=2)
    lease, renewed = (socket.call("pull_task", {"wait_s": 20})["task"] for socket in (supplier, renewer))
    before = counts(node)
    body = {"prompt": "locked out", "kind": "text"}

    with locked(node), ThreadPoolExecutor(4) as pool:
        events = [
            pool.submit(client.call, "generate", body),
            pool.submit(renewer.call, "renew_lease", {"lease_id": renewed["lease_id"]}),
            pool.submit(hand_in, supplier, lease, "an answer"),
        ]
        route = pool.submit(http.post, "/tasks", json=body)
        answered = 0
        while not all(future.done() for future in (*events, route)):
            assert reader.call("task_status", {"task_id": known})["success"]
            answered += 1
        assert http.get("/tasks").status_code == 200

    print(f"{answered} reads of another socket were answered while writes waited for the lock")
    assert answered > 5, "the hub was blocked"
    for event in events:
        answer = event.result()
        assert (answer["success"], answer["code"], answer["status"]) == (False, "store_unavailable", 503)
        assert answer["retry_after"] >= 1
    assert (route.result().status_code, route.result().json()["code"]) == (503, "store_unavailable")
    assert int(route.result().headers["Retry-After"]) >= 1
    assert counts(node) == before

    assert hand_in(supplier, lease, "an answer")["success"]
    assert ended(client, known)["status"] == "best_results"


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_disk_that_takes_nothing_more_is_told_and_nothing_is_half_written(
    node: LiveNode, client: Socket, http: httpx.Client, worker_key: str, sockets: Callable[..., Socket]
) -> None:
    supplier = sockets(worker(node.url, worker_key, "full"))
    known = ask(client, "before")
    lease = supplier.call("pull_task", {"wait_s": 20})["task"]
    before, blobs = counts(node), blob_files(node)
    body = {"prompt": "no room", "kind": "text"}
    large = "large " * 2000

    with no_file_grows(server_process(node)):
        events = [client.call("generate", body), hand_in(supplier, lease, "small"), hand_in(supplier, lease, large)]
        route = http.post("/tasks", json=body)
        reading = http.get("/tasks")

    assert reading.status_code == 200
    for answer in events:
        assert (answer["success"], answer["status"] in (503, 507)) == (False, True), answer
        assert answer["code"] in ("store_unavailable", "store_full")
        assert answer["retry_after"] >= 1
    assert route.status_code in (503, 507)
    assert int(route.headers["Retry-After"]) >= 1
    assert (counts(node), blob_files(node)) == (before, blobs)

    assert hand_in(supplier, lease, "small")["success"]
    assert ended(client, known)["status"] == "best_results"
    accepted = http.post("/tasks", json=body)
    assert accepted.status_code == 201
    assert counts(node)["tasks"] == before["tasks"] + 1
    http.delete(f"/tasks/{accepted.json()['task']['id']}")
    with closing(sqlite3.connect(node.data / "grid.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def blob_files(node: LiveNode) -> set[Path]:
    return {path for path in (node.data / "blobs").rglob("*") if path.is_file()}


# --- faults of ours ---------------------------------------------------------------------------------------------------


def test_an_unexpected_error_is_answered_without_detail_and_logged(
    node: LiveNode, client: Socket, http: httpx.Client, key: str
) -> None:
    task_id = ask(client)
    client.call("cancel_task", {"task_id": task_id})
    with closing(sqlite3.connect(node.data / "grid.db")) as database, database:
        database.execute("UPDATE tasks SET error = 'broken-row' WHERE id = ?", (task_id,))

    answer = client.call("task_status", {"task_id": task_id})
    route = http.get(f"/tasks/{task_id}")

    wanted = {"success": False, "code": "internal_error", "error": "Internal Server Error", "status": 500}
    assert answer == wanted
    assert (route.status_code, route.json()) == (500, wanted)
    log = node.log_text()
    assert "JSONDecodeError" in log
    assert key not in log
    with closing(sqlite3.connect(node.data / "grid.db")) as database, database:
        database.execute("UPDATE tasks SET error = NULL WHERE id = ?", (task_id,))
    assert client.call("task_status", {"task_id": task_id})["success"]


# --- many who wait ----------------------------------------------------------------------------------------------------


def test_one_of_a_thousand_waiting_pulls_gets_the_one_task_at_once(
    node: LiveNode, client: Socket, worker_key: str
) -> None:
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(selectors.DefaultSelector())
        for number in range(PULLS):
            answers.register(stack.enter_context(waiting_pull(node, worker_key, f"crowd-{number}")), EVENT_READ)
        until(lambda: crowd_size(node) == PULLS, 60)
        began = time.monotonic()
        task_id = ask(client, "one for a thousand")
        ((lucky, _),) = answers.select(20)
        took = time.monotonic() - began
        assert lease_in(lucky.fileobj)["task_id"] == task_id
        assert answers.select(0) == []
    print(f"{took * 1000:.1f} ms from the request to the lease with {PULLS} waiting pulls")
    assert took < 2.0
    client.call("cancel_task", {"task_id": task_id})


def lease_in(peer: Any) -> dict[str, Any]:
    response = http_client.HTTPResponse(peer)
    response.begin()
    lease: dict[str, Any] = json.loads(response.read())["task"]
    return lease


@contextlib.contextmanager
def waiting_pull(node: LiveNode, key: str, name: str) -> Iterator[socket.socket]:
    """A long poll over HTTP whose answer is not read yet."""
    body = json.dumps({"kinds": ["text"], "wait_s": 25})
    head = f"POST /worker/tasks/pull HTTP/1.1\r\nHost: grid\r\nAuthorization: Bearer {key}\r\nX-Worker-Name: {name}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as peer:
        peer.sendall((head + body).encode())
        yield peer


def crowd_size(node: LiveNode) -> int:
    """How many of them the node has seen."""
    with closing(sqlite3.connect(node.data / "grid.db")) as database:
        return int(database.execute("SELECT count(*) FROM workers WHERE identity LIKE '%/crowd-%'").fetchone()[0])
