"""A registered model with its runner, and what the loads ask of the node for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from grid_client.runner_calls import Call, Worker
from models_peers.servers import Server, ask
from runners_peers import servers
from runners_peers.servers import Node

SIGNATURE = {
    "inputs": [{"name": "prompt", "type": "str", "validation": {"description": "this is a prompt"}}],
    "outputs": "str",
    "name": "bench",
}
INPUT = {"prompt": "a photo of sprite"}
HEADERS = {"Prefer": "respond-async", "Content-Type": "application/json"}
WAIT_SECONDS = 30.0
PAUSE = 0.002


class Desk:
    """The model's owner, who is his own client, over one kept connection."""

    def __init__(self, node: Node, worker: Server) -> None:
        self.node = node
        self._worker = worker
        self._direct = Worker(f"http://127.0.0.1:{worker.port}")
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=WAIT_SECONDS)
        self._model: dict[str, Any] = {}
        self._account = ""
        self._seen: dict[str, dict[str, Any]] = {}

    # --- the node ---------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Raises RuntimeError for any answer but 2xx."""
        headers = {"X-API-KEY": self.node.key, "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text) if text else None

    @contextlib.contextmanager
    def connected(self, folder: Path) -> Iterator[None]:
        """The model is there, and so is its runner."""
        self._model = self.ask("POST", "/pc/client-api/predict_signature", SIGNATURE)
        self._account = self.ask("GET", "/v1/account")["username"]
        with servers.agent(self.node, self._worker, self._model["credential"], folder):
            self._until(lambda: self._runner()["status"] == "READY")
            yield

    def _runner(self) -> dict[str, Any]:
        return dict(self.ask("GET", f"/pc/client-api/predict_signature/{self._model['id']}")["runner"])

    def run(self) -> str:
        """The id of a new prediction."""
        path = f"/v1/models/{self._account}/{SIGNATURE['name']}/predictions"
        return str(self.ask("POST", path, {"input": INPUT})["id"])

    def shown(self, id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/predictions/{id}"))

    def ended(self, id: str) -> dict[str, Any]:
        self._until(lambda: self.shown(id)["completed_at"] is not None)
        return self.shown(id)

    def report(self, id: str, **members: Any) -> None:
        """In the worker's place."""
        self.ask("POST", self.webhook(id), {"id": id, "input": INPUT, **members})

    # --- the worker -------------------------------------------------------------------------------------------------

    def arrival(self, id: str) -> float:
        """When the worker got it, by CLOCK_MONOTONIC."""
        return float(self._arrived(id)["at"])

    def webhook(self, id: str) -> str:
        """Path and query of where the worker reports."""
        url = urlsplit(self._arrived(id)["webhook"])
        return f"{url.path}?{url.query}"

    def _arrived(self, id: str) -> dict[str, Any]:
        def came() -> bool:
            if id not in self._seen:
                self._seen |= ask(self._worker.port, "/seen")  # type: ignore[arg-type]
            return id in self._seen

        self._until(came)
        return self._seen[id]

    # --- calls ------------------------------------------------------------------------------------------------------

    def relayed(self, count: int) -> list[float]:
        """Milliseconds of each call of the node through the agent."""
        return list(self.ask("POST", "/bench/calls", {"model": self._model["id"], "json": _message(), "count": count}))

    def direct(self, count: int) -> list[float]:
        """Of the same calls to the worker itself, by the agent's own client."""
        took: list[float] = []
        for number in range(count):
            began = time.perf_counter()
            status, _ = self._direct.call(Call("PUT", f"/predictions/bench-{number}", HEADERS, _message(), 15.0))
            took.append(1000 * (time.perf_counter() - began))
            assert status == 202, status
        return took

    def _until(self, condition: Any) -> None:
        ends = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > ends:
                raise TimeoutError("the node or its runner does not do what was waited for")
            time.sleep(PAUSE)


def _message() -> dict[str, Any]:
    """As large as what a worker is really sent."""
    webhook = f"http://127.0.0.1:3008/pc/client-api/webhook/prediction?token={'x' * 70}"
    return {"id": "x" * 26, "input": INPUT, "webhook": webhook, "webhook_events_filter": ["start", "completed"]}


@contextlib.contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """A node, a worker, and the agent between them."""
    with servers.node() as node, servers.worker(folder) as worker:
        made = Desk(node, worker)
        with made.connected(folder):
            yield made
