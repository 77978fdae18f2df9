"""Load for the node: clients and no-op workers over Socket.IO, all in this process. Prints figures as JSON.

    node_load.py PORT CLIENT_KEY WORKER_KEY WINDOW SECONDS [CLIENTS] [WORKERS]

Each client keeps WINDOW tasks of kind `text` on their way; a task counts from `generate` until its `best_results`
update is in. A worker answers each lease with a short text and pulls the next one once that answer is acknowledged.
"""

import json
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dispatch_peers.figures import figures
from lean_client import Connection, Loop

WARM_UP_SECONDS = 1.0
PULL_SECONDS = 20
PLACEHOLDER = {"_placeholder": True, "num": 0}


class Worker:
    """Pulls, answers, pulls again."""

    def __init__(self, port: int, key: str, name: str) -> None:
        self.connection = Connection(port, "/worker")
        self.ready = False
        offer = {"api_key": key, "name": name, "kinds": ["text"]}
        self.connection.emit("authenticate", offer, self._authenticated)

    def _authenticated(self, answer: Any) -> None:
        _check(answer)
        self.ready = True
        self._pull()

    def _pull(self) -> None:
        self.connection.emit("pull_task", {"wait_s": PULL_SECONDS}, self._pulled)

    def _pulled(self, answer: Any) -> None:
        _check(answer)
        task = answer["task"]
        if task is None:
            self._pull()
            return
        text = f"done {task['task_id']}".encode()
        result = {
            "task_id": task["task_id"],
            "lease_id": task["lease_id"],
            "format": "text",
            "sha256": sha256(text).hexdigest(),
            "asset": PLACEHOLDER,
        }
        self.connection.emit("submit_result", result, self._submitted, text)

    def _submitted(self, answer: Any) -> None:
        _check(answer)
        self._pull()


class Client:
    """Keeps `window` tasks on their way and notes how long each took."""

    def __init__(self, port: int, key: str, window: int) -> None:
        self.connection = Connection(port, auth={"api_key": key})
        self.connection.on_push = self._pushed
        self.window = window
        self.stopping = False
        self.in_flight = 0
        self.finished: list[tuple[float, float]] = []
        self._sent: dict[str, float] = {}
        self._ended_early: dict[str, float] = {}

    def start(self) -> None:
        for _ in range(self.window):
            self._generate()

    def _generate(self) -> None:
        self.in_flight += 1
        request = {"prompt": "say that it is done", "kind": "text", "copies": 1}
        self.connection.emit("generate", request, partial(self._accepted, time.perf_counter()))

    def _accepted(self, sent: float, answer: Any) -> None:
        _check(answer)
        task_id = answer["task"]["id"]
        ended = self._ended_early.pop(task_id, None)
        if ended is None:
            self._sent[task_id] = sent
        else:
            self._done(sent, ended)

    def _pushed(self, _event: str, update: Any) -> None:
        if update["status"] == "best_results":
            ended = time.perf_counter()
            sent = self._sent.pop(update["task_id"], None)
            if sent is None:  # the update was faster than the ack
                self._ended_early[update["task_id"]] = ended
            else:
                self._done(sent, ended)
        elif update["status"] in ("failed", "cancelled"):
            raise RuntimeError(f"task ended as {update}")

    def _done(self, sent: float, ended: float) -> None:
        self.finished.append((ended, ended - sent))
        self.in_flight -= 1
        if not self.stopping:
            self._generate()


def _check(answer: Any) -> None:
    if not answer.get("success"):
        raise RuntimeError(f"the node refused: {answer}")


def drive(clients: list[Client], workers: list[Worker], seconds: float) -> dict[str, float]:
    loop = Loop(one.connection for one in (*clients, *workers))
    loop.run_until(lambda: all(worker.ready for worker in workers), 30)
    for client in clients:
        client.start()
    since = time.perf_counter() + WARM_UP_SECONDS
    loop.run_until(lambda: time.perf_counter() >= since, 60)
    since, cpu = time.perf_counter(), time.process_time()
    loop.run_until(lambda: time.perf_counter() >= since + seconds, seconds + 60)
    until, cpu = time.perf_counter(), time.process_time() - cpu
    for client in clients:
        client.stopping = True
    loop.run_until(lambda: not any(client.in_flight for client in clients), 60)
    finished = [task for client in clients for task in client.finished]
    return {**figures(finished, since, until), "load_cpu_percent": 100 * cpu / (until - since)}


def main(arguments: list[str]) -> None:
    port, client_key, worker_key, window, seconds = arguments[:5]
    clients, workers = (int(number) for number in (arguments[5:7] or (8, 8)))
    made = [Worker(int(port), worker_key, f"noop-{number}") for number in range(workers)]
    askers = [Client(int(port), client_key, int(window)) for _ in range(clients)]
    print(json.dumps(drive(askers, made, float(seconds))))
    for one in (*askers, *made):
        one.connection.close()


if __name__ == "__main__":
    main(sys.argv[1:])
