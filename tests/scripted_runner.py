"""A worker and its agent in one: takes calls over `/runner` and does with each prediction what a function says."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import requests
import socketio

Answer = tuple[int, Any]


class Run:
    """One prediction in a worker's hands. `call` is the body of the PUT that began it."""

    def __init__(self, runner: "ScriptedRunner", call: dict[str, Any]) -> None:
        self.call = call
        self.id: str = call["id"]
        self.input: dict[str, Any] = call["input"]
        self.cancelled = threading.Event()
        self.runner = runner

    def report(self, status: str, *, webhook: str | None = None, **members: Any) -> requests.Response:
        """What a Cog of the newest line tells its webhook: id, status and what there is."""
        body = {"id": self.id, "status": status, "logs": "", **members}
        return requests.post(webhook or self.call["webhook"], json=body, timeout=20)

    def upload(self, name: str, content: bytes, content_type: str = "application/octet-stream") -> str:
        """Hand in a file as Cog does; its URL."""
        headers = {"X-Prediction-ID": self.id, "Content-Type": content_type, "X-API-Key": self.runner.key}
        answer = requests.put(f"{self.runner.upload_url}/{name}", data=content, headers=headers, timeout=20)
        answer.raise_for_status()
        return answer.headers["Location"]


Script = Callable[[Run], None]


def echo(run: Run) -> None:
    """Says the prompt."""
    run.report("starting")
    run.report("processing", logs="at work\n")
    run.report("succeeded", logs="at work\n", output=run.input.get("prompt"), metrics={"predict_time": 0.1})


class ScriptedRunner:
    """Connects with a runner's key. `slots`: predictions that it takes at a time; more are answered 409.

    `answers` are told in place of the worker's own answers to the next calls, the first one first; None is no answer at
    all. `calls` are all that came: method, path and JSON. `begun` are the ids of all that it began to run.
    """

    def __init__(
        self, url: str, model_id: str, key: str, script: Script = echo, *, slots: int = 1, instance: str | None = None
    ) -> None:
        self.url, self.model_id, self.key, self.script, self.slots = url, model_id, key, script, slots
        self.instance = instance or uuid.uuid4().hex
        self.upload_url = f"{url}/pc/client-api/upload"
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: list[Answer | None] = []
        self.running: dict[str, Run] = {}
        self.begun: list[str] = []
        self.ready = threading.Event()
        self.replaced = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._client = socketio.Client(reconnection=False)
        self._client.on("http", self._called, namespace="/runner")
        self._client.on("ready", self._ready, namespace="/runner")
        self._client.on("replaced", lambda *_: self.replaced.set(), namespace="/runner")

    # --- the connection -------------------------------------------------------------------------------------------

    def connect(self, **auth: Any) -> "ScriptedRunner":
        """In, and known to be able to work. `auth`: what is shown in place of the key."""
        shown = auth or {"key": self.key}
        shown = {"protocol": 1, "model_id": self.model_id, "instance": self.instance, "agent": "scripted/1", **shown}
        self._client.connect(self.url, auth=shown, namespaces=["/runner"], transports=["websocket"], wait_timeout=20)
        assert self.ready.wait(20), "no greeting"
        self.health()
        return self

    def health(self, status: str | None = None) -> Any:
        """Tell the node how the worker is; what the node says to that."""
        status = status or ("BUSY" if len(self.running) >= self.slots else "READY")
        return self._client.call("health", {"status": status, "setup": {}}, namespace="/runner", timeout=20)

    @property
    def connected(self) -> bool:
        return bool(self._client.connected)

    def close(self) -> None:
        """The connection and every run end."""
        for run in list(self.running.values()):
            run.cancelled.set()
        transport = self._client.eio.ws
        self._client.disconnect()
        self._client.shutdown()
        if transport is not None:
            transport.shutdown()
        for thread in self._threads:
            thread.join(20)

    def drop(self) -> None:
        """The connection is gone without a word, as when the machine is; what runs goes on."""
        self._client.eio.ws.shutdown()

    def __enter__(self) -> "ScriptedRunner":
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the worker -----------------------------------------------------------------------------------------------

    def _ready(self, greeting: dict[str, Any]) -> None:
        self.upload_url = greeting["upload_url"]
        self.ready.set()

    def _called(self, message: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((message["method"], message["path"], message.get("json")))
        if self.answers:
            scripted = self.answers.pop(0)
            if scripted is None:
                threading.Event().wait(message["timeout_s"] + 1)
                return {}
            status, body = scripted
        else:
            status, body = self._answer(message["method"], message["path"], message.get("json"))
        return {"call_id": message["call_id"], "status": status, "json": body, "ms": 1}

    def _answer(self, method: str, path: str, body: Any) -> Answer:
        if path == "/health-check":
            return 200, {"status": "BUSY" if len(self.running) >= self.slots else "READY"}
        name = path.split("/")[2]
        if path.endswith("/cancel"):
            run = self.running.get(name)
            if run is None:
                return 404, {}
            run.cancelled.set()
            return 200, {}
        return self._begin(name, body)

    def _begin(self, name: str, body: dict[str, Any]) -> Answer:
        with self._lock:
            if name in self.running:
                return 202, {"id": name, "status": "processing"}
            if len(self.running) >= self.slots:
                return 409, {"detail": "Already running a prediction"}
            run = self.running[name] = Run(self, body)
            self.begun.append(name)
        thread = threading.Thread(target=self._run, args=(run,), daemon=True)
        self._threads.append(thread)
        thread.start()
        return 202, {"id": name, "status": "starting"}

    def _run(self, run: Run) -> None:
        try:
            self.script(run)
        finally:
            self.running.pop(run.id, None)
            if self._client.connected:
                self._client.emit("health", {"status": "READY"}, namespace="/runner")
