"""A node without scoring (kind `text` is judged at once), and clients and workers that speak HTTP with it.

One for the whole test run. Suites that use it take its fixtures under shorter names.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from grid_node.identity.refusal import Refused
from tests.nodes import LiveNode

QUEUE_MAX = 12
PENDING_MAX = 3
HANDSHAKE = 1.0
GRACE = 1.0
HTTP: dict[str, Any] = {"timeout": 40, "limits": httpx.Limits(max_keepalive_connections=0)}
"""No idle connections: a node that stops waits for those."""


class Client:
    """The holder of an API key."""

    def __init__(self, node: LiveNode, **limits: int) -> None:
        self.node = node
        self.key = node.add_key("client", **limits)
        self.http = httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {self.key}"}, **HTTP)

    def submit(self, prompt: str = "hello", kind: str = "text", **fields: Any) -> dict[str, Any]:
        answer = self.http.post("/tasks", json={"prompt": prompt, "kind": kind, "copies": 1, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()["task"]

    def task(self, task_id: str, **query: Any) -> dict[str, Any]:
        return self.http.get(f"/tasks/{task_id}", params=query).json()["task"]

    def cancel_all(self) -> None:
        """End what is open, so that no later test's worker meets it."""
        for task in self.http.get("/tasks", params={"limit": 200}).json().get("tasks", ()):
            if task["finished_at"] is None:
                self.http.delete(f"/tasks/{task['id']}")

    def ended(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        task = self.task(task_id)
        while task["status"] not in ("best_results", "failed", "cancelled"):
            task = self.task(task_id, after_seq=task["seq"], wait_s=20)
        return task


class Worker:
    """A worker of a private grid that speaks HTTP only. By default it takes tasks of kind `text`."""

    def __init__(self, node: LiveNode, key: str, name: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "X-Worker-Name": name}
        self.http = httpx.Client(base_url=node.url, headers=headers, **HTTP)

    def pull(self, wait_s: float = 20, kinds: tuple[str, ...] = ("text",), **fields: Any) -> Any:
        answer = self.http.post("/worker/tasks/pull", json={"kinds": kinds, "wait_s": wait_s, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["task"]

    def hand_in(self, lease: dict[str, Any], text: str = "an answer", **changes: Any) -> httpx.Response:
        """The raw bytes as the body, the rest in the query."""
        data = text.encode()
        query = {"format": "text", "sha256": hashlib.sha256(data).hexdigest(), **changes}
        return self.http.post(f"/worker/leases/{lease['lease_id']}/result", params=query, content=data)

    def serve(self, text: str = "an answer") -> dict[str, Any]:
        """Take the next task and answer it."""
        lease = self.pull()
        assert self.hand_in(lease, text).json()["success"]
        return lease


@pytest.fixture(scope="session")
def text_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    live = LiveNode(
        tmp_path_factory.mktemp("http"),
        scoring_processes=0,
        public_api_settle=0.1,
        worker_presence=1,
        public_api_queue_max=QUEUE_MAX,
        public_api_ws_handshake=HANDSHAKE,
        public_api_ws_grace=GRACE,
        public_api_ws_pending_max=PENDING_MAX,
    )
    live.start()
    try:
        yield live
    finally:
        live.stop()


@pytest.fixture
def new_text_client(text_node: LiveNode) -> Iterator[Callable[..., Client]]:
    """Makes clients; after the test their open tasks and their keys are gone."""
    made: list[Client] = []

    def make(**limits: int) -> Client:
        made.append(Client(text_node, **limits))
        return made[-1]

    yield make
    for client in made:
        client.cancel_all()
        client.http.close()
        with contextlib.suppress(Refused):
            text_node.keys.remove(client.key)


@pytest.fixture(scope="session")
def text_worker_key(text_node: LiveNode) -> str:
    return text_node.add_key("workers", ("worker",))


@pytest.fixture
def new_text_worker(
    text_node: LiveNode, text_worker_key: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Worker]]:
    """Makes workers that nobody has seen before."""
    made: list[Worker] = []

    def make() -> Worker:
        name = hashlib.sha256(f"{request.node.nodeid}{len(made)}".encode()).hexdigest()[:16]
        made.append(Worker(text_node, text_worker_key, name))
        return made[-1]

    yield make
    for worker in made:
        worker.http.close()
