"""A scripted node on loopback: real Socket.IO and HTTP, with the faults that a real node shows only on bad days."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import pytest
import socketio
from werkzeug.wrappers import Request, Response

from tests.unit.clients.serving import serving

KEY = "key-of-the-tests-0001"


class ScriptedNode:
    """Holds one task's updates, one worker's leases and the uploads; tests change what it does."""

    url: str

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.assets: dict[str, bytes] = {}
        self.cut_downloads_at: list[int] = []
        self.ranges: list[str | None] = []
        self.leases: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.pulled = threading.Event()
        self.renewed = threading.Event()
        self.submitted = threading.Semaphore(0)
        self.submissions: list[dict[str, Any]] = []
        self.refusals: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.generated: list[dict[str, Any]] = []
        self.resumed: list[int] = []
        self.event_limit = 1 << 20
        self.body_limit = 1 << 30
        self.upload = bytearray()
        self.upload_breaks_at: list[int] = []
        self.patches: list[tuple[int, int]] = []
        self.authenticate: Callable[[dict[str, Any]], dict[str, Any]] = lambda data: {"success": True}
        self.on_generate: Callable[[str], dict[str, Any] | None] = lambda sid: None
        self.on_resume: Callable[[str, int], None] = lambda sid, after: None
        self.challenge: dict[str, Any] | None = None
        self.authentications: list[dict[str, Any]] = []
        self.sio = socketio.Server(async_mode="threading", max_http_buffer_size=4 << 20)
        self._routes()

    @property
    def task(self) -> dict[str, Any]:
        last = self.updates[-1]
        return {"id": "t1", "status": last["status"], "seq": last["seq"], "position": 1, "workers_available": 1}

    def add_update(self, status: str, **fields: Any) -> dict[str, Any]:
        update = {"task_id": "t1", "seq": len(self.updates) + 1, "status": status, **fields}
        self.updates.append(update)
        return update

    def push(self, update: dict[str, Any], sid: str | None = None) -> None:
        self.sio.emit("task_update", update, to=sid)

    def wsgi(self, environ: dict[str, Any], start: Any) -> Any:
        request = Request(environ)
        parts = request.path.strip("/").split("/")
        if parts[-1] == "asset":
            return self._asset(request)(environ, start)
        if parts[:2] == ["worker", "leases"]:
            return self._raw_result(request, parts[2])(environ, start)
        if parts[:2] == ["worker", "uploads"]:
            return self._tus(request)(environ, start)
        return _refused({"status": 404, "code": "unknown_route", "error": request.path})(environ, start)

    def _routes(self) -> None:
        self.sio.on("connect", self._connect)
        self.sio.on("generate", self._generate)
        self.sio.on("resume", self._resume)
        worker = {"authenticate": self._authenticate, "pull_task": self._pull, "renew_lease": self._renew}
        worker |= {"submit_result": self._submit, "skip": self._skip, "connect": self._worker_connect}
        for event, handler in worker.items():
            self.sio.on(event, handler, namespace="/worker")

    def _connect(self, sid: str, environ: object, auth: dict[str, Any] | None) -> None:
        if (auth or {}).get("api_key") != KEY:
            body = {"success": False, "error": "Invalid API Key", "code": "invalid_key", "status": 401}
            raise socketio.exceptions.ConnectionRefusedError("Invalid API Key", body)

    def _generate(self, sid: str, data: dict[str, Any]) -> dict[str, Any] | None:
        self.generated.append(data)
        if not self.updates:
            self.add_update("queued")
        return self.on_generate(sid) or {"success": True, "task": self.task}

    def _resume(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        after = data["after_seq"]
        self.resumed.append(after)
        missed = [u for u in self.updates if u["seq"] > after]
        self.on_resume(sid, after)
        return {"success": True, "task": self.task, "updates": missed, "recovered": True}

    def _worker_connect(self, sid: str, environ: object, auth: object) -> None:
        if self.challenge:
            self.sio.emit("challenge", self.challenge, to=sid, namespace="/worker")

    def _authenticate(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.authentications.append(data)
        return self.authenticate(data)

    def _pull(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.pulls.append(data)
        self.pulled.set()
        if self.leases:
            return {"success": True, "task": self.leases.pop(0), "retry_after": 0, "cooldown": None}
        return {"success": True, "task": None, "retry_after": 0.05, "cooldown": None}

    def _renew(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.renewed.set()
        return {"success": False, "code": "lease_closed", "error": "over", "status": 410, "reason": "cancelled"}

    def _skip(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        self.skipped.append(data)
        self.submitted.release()
        return {"success": True, "cooldown": None}

    def _submit(self, sid: str, data: dict[str, Any]) -> dict[str, Any]:
        asset = data.get("asset")
        if asset is not None and len(asset) > self.event_limit:
            too_large = {"limit": self.event_limit, "upload_url": "/worker/uploads"}
            return {"success": False, "status": 413, "code": "message_too_large", "error": "large", **too_large}
        found = bytes(self.upload) if "upload_id" in data else asset
        return self._take("upload" if "upload_id" in data else "event", data["lease_id"], found, data, sid)

    def _take(
        self, route: str, lease_id: str, asset: bytes, claim: dict[str, Any], sid: str | None = None
    ) -> dict[str, Any]:
        assert sha256(asset).hexdigest() == claim["sha256"]
        self.submissions.append({"route": route, "lease_id": lease_id, "size": len(asset), **claim})
        if self.refusals:
            refusal = self.refusals.pop(0)
            if refusal.get("cut") and sid:
                self.sio.disconnect(sid, namespace="/worker")
            return refusal
        self.submitted.release()
        return {"success": True, "state": "scoring", "lease_id": lease_id}

    def _raw_result(self, request: Request, lease_id: str) -> Response:
        asset = request.get_data()
        if len(asset) > self.body_limit:
            return _refused({"status": 413, "code": "message_too_large", "error": "large"})
        body = self._take("body", lease_id, asset, dict(request.args))
        return _refused(body) if body.get("success") is False else _answer(body)

    def _asset(self, request: Request) -> Response:
        whole = self.assets[request.path.split("/")[-2]]
        digest = sha256(whole).hexdigest()
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(b"", headers=headers | {"Content-Length": str(len(whole))})
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(whole):
            return Response(b"", 416)
        body = whole[start:]
        end = self.cut_downloads_at.pop(0) - start if self.cut_downloads_at else len(body)
        headers["Content-Length"] = str(len(body))
        return Response(iter([body[:end]]), 206 if wanted else 200, headers)

    def _tus(self, request: Request) -> Response:
        offset = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(len(self.upload))}
        if request.method == "POST":
            return Response(b"", 201, headers={"Location": "/worker/uploads/u1"})
        if request.method == "HEAD":
            return Response(b"", 200, headers=offset | {"Upload-Length": "1000000000"})
        assert int(request.headers["Upload-Offset"]) == len(self.upload)
        data = request.get_data()
        if self.upload_breaks_at:
            self.upload += data[: self.upload_breaks_at.pop(0)]
            return _refused({"status": 503, "code": "store_unavailable", "error": "cut"})
        self.patches.append((len(self.upload), len(data)))
        self.upload += data
        return Response(b"", 204, headers=offset | {"Upload-Offset": str(len(self.upload))})


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def _refused(body: dict[str, Any]) -> Response:
    return _answer({"success": False, **body}, body["status"])


@pytest.fixture
def node(caplog: pytest.LogCaptureFixture) -> Iterator[ScriptedNode]:
    """Fails the test if the client's transport met an error of its own and only logged it."""
    with serving(ScriptedNode()) as scripted:
        yield scripted
    swallowed = [r for r in caplog.get_records("call") if r.name == "engineio.client" and r.levelname == "ERROR"]
    assert swallowed == []


@pytest.fixture
def late_node() -> tuple[ScriptedNode, Callable[[], AbstractContextManager[ScriptedNode]]]:
    """A node whose address is known before it serves, and what makes it serve."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    scripted = ScriptedNode()
    scripted.url = f"http://127.0.0.1:{port}"
    return scripted, lambda: serving(scripted, port)


@pytest.fixture
def no_sleep() -> Callable[[float], None]:
    return lambda seconds: None
