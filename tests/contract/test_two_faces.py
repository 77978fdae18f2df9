"""Every operation by event and by route: the same payload gives the same body, in success and in refusal.

Ids, times and places in the queue differ from one task to the next, so both bodies are compared without them.
"""

import base64
import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from tests.integration.sockets import Socket
from tests.integration.sockets import worker as socket_worker
from tests.text_node import HTTP

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VARIES = frozenset({"position", "create_time", "assign_time", "submit_time", "seconds", "workers_available", "seq"})
PROMPT = {"prompt": "say hello", "kind": "text", "copies": 1}


def shape(body: Any) -> Any:
    """The body with what must differ taken out."""
    if isinstance(body, dict):
        return {name: None if name in VARIES else shape(value) for name, value in body.items()}
    if isinstance(body, list):
        return [shape(value) for value in body]
    return MOMENT.sub("<time>", UUID.sub("<id>", body)) if isinstance(body, str) else body


@pytest.fixture
def node(text_node):
    return text_node


@pytest.fixture
def new_client(new_text_client):
    return new_text_client


class Faces:
    """A client and a worker that speak each operation both ways."""

    def __init__(self, url: str, client_key: str, worker_key: str) -> None:
        self.event = Socket(url, api_key=client_key)
        self.worker = socket_worker(url, worker_key, "by-event", kinds=["text"])
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {client_key}"}, **HTTP)
        worker_headers = {"Authorization": f"Bearer {worker_key}", "X-Worker-Name": "by-route"}
        self.worker_http = httpx.Client(base_url=url, headers=worker_headers, **HTTP)

    def close(self) -> None:
        for one in (self.event, self.worker, self.http, self.worker_http):
            one.close()

    # --- clients: both ways, each on a task of its own where it needs one -------------------------------------

    def generate(self, payload: Any) -> tuple[Any, httpx.Response]:
        return self.event.call("generate", payload), self.http.post("/tasks", content=text(payload))

    def status(self, task_id: str, **query: Any) -> tuple[Any, httpx.Response]:
        answer = self.http.get(f"/tasks/{task_id}", params=query)
        return self.event.call("task_status", {"task_id": task_id, **query}), answer

    def cancel(self, first: str, second: str) -> tuple[Any, httpx.Response]:
        return self.event.call("cancel_task", {"task_id": first}), self.http.delete(f"/tasks/{second}")

    def tasks(self, **query: Any) -> tuple[Any, httpx.Response]:
        return self.event.call("tasks", query), self.http.get("/tasks", params=query)

    def resume(self, task_id: str, after_seq: Any) -> tuple[Any, httpx.Response]:
        answer = self.http.get(f"/tasks/{task_id}/events", params={"after_seq": after_seq})
        return self.event.call("resume", {"task_id": task_id, "after_seq": after_seq}), answer

    # --- workers ----------------------------------------------------------------------------------------------

    def pull(self, payload: Any) -> tuple[Any, httpx.Response]:
        return self.worker.call("pull_task", payload), self.worker_http.post(
            "/worker/tasks/pull", content=text(payload)
        )

    def leases(self, client: Any) -> tuple[Any, Any]:
        """A task for each worker, and their leases."""
        made = []
        for pull in (lambda p: self.worker.call("pull_task", p), self.pull_by_route):
            client.submit()
            made.append(pull({"kinds": ["text"], "wait_s": 20})["task"])
        return made[0], made[1]

    def pull_by_route(self, payload: Any) -> Any:
        return self.worker_http.post("/worker/tasks/pull", json=payload).json()

    def on_lease(self, event: str, leases: tuple[str, str], **members: Any) -> tuple[Any, httpx.Response]:
        path = {"renew_lease": "renew", "skip": "skip", "submit_result": "result"}[event]
        told = {name: encoded(value) for name, value in members.items()}
        answer = self.worker_http.post(f"/worker/leases/{leases[1]}/{path}", content=text(told))
        return self.worker.call(event, {"lease_id": leases[0], **members}), answer


def text(payload: Any) -> str:
    return json.dumps(payload)


def encoded(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def assert_same(both: tuple[Any, httpx.Response], status: int, code: str | None = None) -> Any:
    """Equal bodies; the status is the route's and, in a refusal, the body's. Returns the ack."""
    ack, answer = both
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert shape(ack) == shape(body)
    assert body["success"] is (code is None)
    if code is not None:
        assert (body["code"], body["status"]) == (code, status)
    if status in (429, 503):
        assert answer.headers["Retry-After"] == str(body["retry_after"])
    return ack


@pytest.fixture(scope="module")
def faces(text_node):
    made = Faces(text_node.url, text_node.add_key("both"), text_node.add_key("both-workers", ("worker",)))
    yield made
    made.close()


@pytest.fixture
def own(node, faces, new_client):
    """A client whose key both faces use in this test alone."""
    made = new_client()
    both = Faces.__new__(Faces)
    both.event, both.http = Socket(node.url, api_key=made.key), made.http
    both.worker, both.worker_http = faces.worker, faces.worker_http
    yield both, made
    both.event.close()


# --- success ------------------------------------------------------------------------------------------------------


def test_generate(own):
    faces, _ = own
    assert_same(faces.generate({"prompt": "a donut"}), 201)


def test_a_replay(own):
    faces, _ = own
    faces.event.call("generate", {"prompt": "a donut", "idempotency_key": "k"})
    ack = assert_same(faces.generate({"prompt": "a donut", "idempotency_key": "k"}), 200)
    assert ack["duplicate"] is True


def test_status_list_resume_and_cancel(own):
    faces, client = own
    first, second = (client.submit(kind="text_to_3d")["id"] for _ in range(2))
    assert_same(faces.status(first), 200)
    assert_same(faces.status(first, after_seq=1, wait_s=0), 200)
    assert_same(faces.tasks(), 200)
    assert_same(faces.tasks(limit=1, status="queued"), 200)
    assert_same(faces.cancel(first, second), 200)
    assert_same(faces.cancel(first, second), 200)
    ack = faces.event.call("resume", {"task_id": first, "after_seq": 0})
    with faces.http.stream("GET", f"/tasks/{first}/events") as answer:
        data = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert data == ack["updates"]


def test_the_whole_way_of_a_worker(own):
    faces, client = own
    leases = faces.leases(client)
    assert shape(leases[0]) == shape(leases[1])
    ids = (leases[0]["lease_id"], leases[1]["lease_id"])
    assert_same(faces.on_lease("renew_lease", ids), 200)
    data = b"an answer"
    claim = {"format": "text", "sha256": hashlib.sha256(data).hexdigest(), "asset": data}
    ack = assert_same(faces.on_lease("submit_result", ids, **claim), 200)
    assert ack["verdict"] == "accepted"
    assert_same(faces.on_lease("submit_result", ids, **claim), 200)
    other = {**claim, "asset": b"other", "sha256": hashlib.sha256(b"other").hexdigest()}
    assert_same(faces.on_lease("submit_result", ids, **other), 409, "already_submitted")
    assert_same(faces.on_lease("renew_lease", ids), 410, "lease_closed")
    feedback = faces.worker.call("feedback", {"after_seq": 0}), faces.worker_http.get("/worker/feedback")
    assert [entry["verdict"] for entry in feedback[1].json()["feedback"]] == ["accepted"]
    assert shape(feedback[0]["feedback"][-1]) == shape(feedback[1].json()["feedback"][-1])
    status = faces.worker.call("worker_status"), faces.worker_http.get("/worker/status").json()
    assert status[0].pop("worker").replace("by-event", "by-route") == status[1].pop("worker")
    assert shape(status[0]) == shape(status[1])


def test_skip(own):
    faces, client = own
    leases = faces.leases(client)
    assert_same(faces.on_lease("skip", (leases[0]["lease_id"], leases[1]["lease_id"]), reason="too hard"), 200)


# --- refusals of a client's requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "status", "code"),
    [
        ({}, 400, "invalid_payload"),
        ([], 400, "invalid_payload"),
        ("prompt", 400, "invalid_payload"),
        ({"prompt": ""}, 400, "invalid_payload"),
        ({"prompt": " "}, 400, "invalid_payload"),
        ({"prompt": 7}, 400, "invalid_payload"),
        ({"prompt": None}, 400, "invalid_payload"),
        ({"prompt": "a\x07b"}, 400, "invalid_payload"),
        ({"prompt": "a", "colour": "red"}, 400, "invalid_payload"),
        ({"prompt": "a", "kind": "nonsense"}, 400, "invalid_payload"),
        ({"prompt": "a", "copies": 0}, 400, "invalid_payload"),
        ({"prompt": "a", "copies": 9}, 400, "invalid_payload"),
        ({"prompt": "a", "copies": "4"}, 400, "invalid_payload"),
        ({"prompt": "a", "copies": True}, 400, "invalid_payload"),
        ({"prompt": "a", "deadline_s": 5}, 400, "invalid_payload"),
        ({"prompt": "a", "deadline_s": 3601}, 400, "invalid_payload"),
        ({"prompt": "a", "seed": -1}, 400, "invalid_payload"),
        ({"prompt": "a", "seed": 2**32}, 400, "invalid_payload"),
        ({"prompt": "a", "send_first_results": "yes"}, 400, "invalid_payload"),
        ({"prompt": "a", "idempotency_key": ""}, 400, "invalid_payload"),
        ({"prompt": "a" * 1025}, 413, "prompt_too_long"),
    ],
)
def test_a_request_that_is_none(faces, payload, status, code):
    assert_same(faces.generate(payload), status, code)


def test_the_same_idempotency_key_with_other_fields(own):
    faces, client = own
    client.submit(kind="text_to_3d", idempotency_key="k")
    assert_same(faces.generate({"prompt": "another", "idempotency_key": "k"}), 409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("limits", "code"), [({"max_requests": 0}, "rate_limited"), ({"max_concurrent": 1}, "too_many_active_tasks")]
)
def test_no_room_for_a_task(node, new_client, limits, code):
    limited = new_client(**limits)
    if "max_concurrent" in limits:
        limited.submit(kind="text_to_3d")
    socket = Socket(node.url, api_key=limited.key)
    ack, answer = socket.call("generate", {"prompt": "a"}), limited.http.post("/tasks", json={"prompt": "a"})
    socket.close()
    assert ack == answer.json()
    assert (answer.status_code, ack["code"]) == (429, code)
    assert answer.headers["Retry-After"].isdecimal()


def test_a_full_queue(own):
    faces, client = own
    while client.http.post("/tasks", json={"prompt": "hello"}).status_code == 201:
        pass
    assert_same(faces.generate({"prompt": "one more"}), 503, "queue_full")
    for task in client.http.get("/tasks", params={"limit": 200}).json()["tasks"]:
        client.http.delete(f"/tasks/{task['id']}")


@pytest.mark.parametrize("task_id", ["0" * 36, "nonsense"])
def test_a_task_that_is_not_there(faces, task_id):
    assert_same(faces.status(task_id), 404, "task_not_found")
    assert_same(faces.cancel(task_id, task_id), 404, "task_not_found")
    assert_same(faces.resume(task_id, 0), 404, "task_not_found")
    assert_same(faces.tasks(after=task_id), 404, "task_not_found")


def test_a_place_that_cannot_be(own):
    faces, client = own
    task = client.submit(kind="text_to_3d")["id"]
    assert_same(faces.resume(task, -1), 400, "invalid_payload")
    assert assert_same(faces.resume(task, 99), 409, "seq_ahead")["last_seq"] == 1
    assert_same(faces.status(task, after_seq=99), 409, "seq_ahead")
    assert_same(faces.status(task, after_seq=-1), 400, "invalid_payload")
    assert_same(faces.status(task, wait_s=26), 400, "invalid_payload")
    assert_same(faces.tasks(limit=0), 400, "invalid_payload")
    assert_same(faces.tasks(limit=201), 400, "invalid_payload")
    assert_same(faces.tasks(status="lost"), 400, "invalid_payload")


def test_keys_that_do_not_open_the_door(node):
    socket = Socket(node.url)
    nobody = socket.call("generate", {"prompt": "a"}), httpx.post(f"{node.url}/tasks", json={"prompt": "a"})
    assert_same(nobody, 401, "missing_key")
    socket.close()
    headers = {"Authorization": f"Bearer {node.add_key('no-client', ('worker',))}"}
    socket = Socket(node.url, api_key=headers["Authorization"].split()[1])
    wrong_scope = socket.call("tasks", {}), httpx.get(f"{node.url}/tasks", headers=headers)
    assert_same(wrong_scope, 403, "forbidden")
    socket.close()


# --- refusals of a worker's requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload", [{"kinds": ["nonsense"]}, {"kinds": "text"}, {"wait_s": 26}, {"wait_s": "now"}, {"colour": "red"}, []]
)
def test_a_pull_that_is_none(faces, payload):
    assert_same(faces.pull(payload), 400, "invalid_payload")


def test_a_worker_that_nobody_knows(node, faces):
    socket = Socket(node.url, "/worker")
    answer = httpx.post(f"{node.url}/worker/tasks/pull", json={})
    assert_same((socket.call("pull_task", {}), answer), 401, "not_authenticated")
    socket.close()


def test_a_lease_that_is_not_there(faces):
    gone = ("0" * 36, "0" * 36)
    claim = {"format": "text", "sha256": "0" * 64, "asset": b"x"}
    assert_same(faces.on_lease("renew_lease", gone), 404, "lease_not_found")
    assert_same(faces.on_lease("skip", gone), 404, "lease_not_found")
    assert_same(faces.on_lease("submit_result", gone, **claim), 404, "lease_not_found")


def test_results_that_are_none(own):
    faces, client = own
    leases = faces.leases(client)
    ids = (leases[0]["lease_id"], leases[1]["lease_id"])
    good = {"format": "text", "sha256": hashlib.sha256(b"x").hexdigest(), "asset": b"x"}
    for wrong in (
        {**good, "asset": b""},
        {**good, "format": "ply"},
        {**good, "sha256": "short"},
        {**good, "asset": None},
        {**good, "upload_id": "both"},
        {**good, "task_id": "0" * 36},
    ):
        assert_same(faces.on_lease("submit_result", ids, **wrong), 400, "invalid_payload")
    unknown = {**good, "asset": None, "upload_id": "nonsense"}
    assert_same(faces.on_lease("submit_result", ids, **unknown), 404, "upload_not_found")
    assert_same(faces.on_lease("submit_result", ids, **{**good, "asset": b"other"}), 422, "sha256_mismatch")
    status = faces.worker.call("worker_status"), faces.worker_http.get("/worker/status").json()
    assert {one["cooldown"]["reason"] for one in status} == {"fraud"}
