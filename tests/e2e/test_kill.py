"""kill -9 of the whole node under load, again and again: nothing acknowledged is lost, nothing happens twice."""

import contextlib
import http.client
import itertools
import json
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from grid_client.backoff import Backoff
from grid_client.delivery import Job, Output
from grid_client.generation import GenerationClient
from grid_client.worker import WorkerClient

from tests.nodes import LiveNode, until

ROUNDS = int(os.environ.get("GRID_TEST_KILL_ROUNDS", "4"))
SEED = 20261121
TERMINAL = {"best_results", "failed", "cancelled"}

pytestmark = pytest.mark.timeout(900)


def quick() -> Backoff:
    return Backoff(0.05, 0.5)


class Load:
    """Clients that submit and workers that work, and what they were told."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node
        self.acked: dict[str, str] = {}
        """Task id by idempotency key, as it was acknowledged first."""
        self.replayed = 0
        self.over = threading.Event()
        self.key = node.add_key("load", max_requests=1_000_000)
        self._numbers = itertools.count()
        worker_key = node.add_key("workers", ("worker",))
        self.workers = [self._worker(worker_key, f"w{number}") for number in range(4)]

    def _worker(self, key: str, name: str) -> WorkerClient:
        dice = random.Random(name)

        def handler(job: Job) -> Output:
            job.cancelled.wait(dice.uniform(0, 0.05))
            return Output(f"{name} answers {job.lease.prompt}".encode(), "text")

        return WorkerClient(
            self.node.url, handler=handler, api_key=key, name=name, kinds=["text"], formats=["text"], backoff=quick
        )

    def ask_by_events(self, copies: int) -> None:
        """Submit and follow to the end, over Socket.IO, through every kill."""
        with closing(GenerationClient(self.node.url, self.key, backoff=quick)) as client:
            while not self.over.is_set():
                number = next(self._numbers)
                task = client.submit(f"prompt {number}", kind="text", copies=copies, send_first_results=True)
                self.acked[f"event-{number}"] = task.id
                updates = list(client.updates(task.id, after_seq=0, timeout=60))
                assert [update.seq for update in updates] == list(range(1, len(updates) + 1))
                assert [update.status for update in updates if update.status in TERMINAL] == [updates[-1].status]

    def ask_by_http(self, copies: int) -> None:
        """Submit with an idempotency key until there is an answer, and once more after it."""
        while not self.over.is_set():
            number = next(self._numbers)
            key = f"http-{number}"
            wanted = {"prompt": f"prompt {number}", "kind": "text", "copies": copies, "idempotency_key": key}
            first = self._post(wanted)
            self.acked[key] = first["id"]
            assert self._post(wanted)["id"] == first["id"]
            until(lambda first=first: self._get(first["id"])["status"] in TERMINAL)  # type: ignore[misc]

    def _post(self, wanted: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        until(lambda: answer.update(self._request("POST", "/tasks", wanted) or {}) or "task" in answer, 60)
        self.replayed += answer.get("duplicate", False)
        return dict(answer["task"])

    def _get(self, task_id: str) -> dict[str, Any]:
        answer = self._request("GET", f"/tasks/{task_id}") or {"task": {"status": "unknown"}}
        assert answer.get("code") != "task_not_found", "an acknowledged task is gone"
        return dict(answer.get("task") or {"status": "unknown"})

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        peer = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=30)
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError), closing(peer):
            peer.request(method, path, json.dumps(body) if body else None, headers)
            return dict(json.loads(peer.getresponse().read()))
        return None

    @contextlib.contextmanager
    def running(self) -> Iterator[list[Future[None]]]:
        """Everybody at work; on leaving, clients bring what they began to its end and workers go home."""
        with ThreadPoolExecutor(16) as pool:
            workers = [pool.submit(worker.run) for worker in self.workers]
            clients = [pool.submit(self.ask_by_events, copies) for copies in (1, 2, 1)]
            clients += [pool.submit(self.ask_by_http, copies) for copies in (2, 1)]
            try:
                yield clients
            finally:
                self.over.set()
                outcomes = [client.exception(120) for client in clients]
                for worker in self.workers:
                    worker.stop()
                outcomes += [worker.exception(60) for worker in workers]
        assert outcomes == [None] * len(outcomes)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LiveNode]:
    live = LiveNode(
        tmp_path,
        scoring_processes=0,
        public_api_settle=0.2,
        public_api_wait_after_first_copy=5,
        worker_cooldown_expired=0,
    )
    live.start()
    try:
        yield live
    finally:
        live.stop()


def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(node: LiveNode) -> None:
    dice = random.Random(SEED)
    load = Load(node)
    with load.running() as clients:
        for _ in range(ROUNDS):
            before = len(load.acked)
            until(lambda before=before: len(load.acked) > before + 3 or any(map(Future.done, clients)))  # type: ignore[misc]
            threading.Event().wait(dice.uniform(0.0, 0.4))
            node.kill()
            node.restart()
            assert not any(map(Future.done, clients)), [client.exception() for client in clients if client.done()]
    node.terminate()
    print(f"{ROUNDS} kills, {len(load.acked)} tasks acknowledged, {load.replayed} replays answered")
    check(node.data / "grid.db", load)


def check(path: Path, load: Load) -> None:
    """The rows against what clients were told."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        tasks = {row["id"]: row for row in database.execute("SELECT * FROM tasks")}
        assert set(load.acked.values()) <= set(tasks), "an acknowledged task is lost"
        assert len(set(load.acked.values())) == len(load.acked), "two submissions share a task"
        for task in tasks.values():
            check_task(database, task)
        check_charges(database, tasks)
        for row in database.execute(
            "SELECT stream, count(*) AS n, max(seq) AS last FROM stream_entries GROUP BY stream"
        ):
            assert row["n"] == row["last"], f"the stream {row['stream']} has a gap"
        assert [row[0] for row in database.execute("PRAGMA integrity_check")] == ["ok"]


def check_task(database: sqlite3.Connection, task: sqlite3.Row) -> None:
    assert task["status"] == "best_results", dict(task)
    entries = database.execute(
        "SELECT seq, body FROM stream_entries WHERE stream = ? ORDER BY seq", (f"task:{task['id']}",)
    ).fetchall()
    statuses = [json.loads(entry["body"])["status"] for entry in entries]
    assert [entry["seq"] for entry in entries] == list(range(1, task["seq"] + 1))
    assert [status for status in statuses if status in TERMINAL] == [statuses[-1]]
    copies = database.execute("SELECT * FROM copies WHERE task_id = ?", (task["id"],)).fetchall()
    credited = [copy["worker"] for copy in copies if copy["credited"]]
    assert len(set(credited)) == len(credited) <= task["copies"] + 1
    assert not [copy for copy in copies if copy["state"] in ("leased", "scoring")]


def check_charges(database: sqlite3.Connection, tasks: dict[str, sqlite3.Row]) -> None:
    """One charge for each task, and one task for each idempotency key."""
    (charged,) = database.execute("SELECT count(*) FROM charges").fetchone()
    (counted,) = database.execute("SELECT sum(charges) FROM api_keys").fetchone()
    assert charged == counted == len(tasks)
    keys = [task["idempotency_key"] for task in tasks.values()]
    assert len(set(keys)) == len(keys)
