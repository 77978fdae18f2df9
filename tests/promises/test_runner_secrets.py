"""No tunnel secret, token or key lies in clear in the database, the blobs, the data folder or a log, also at debug."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.hooks import Receiver
from tests.nodes import ROOT, LiveNode, until
from tests.promises.runner_yard import BASE, SIGNATURES, WEBHOOK, Person, token_of, yard


class Life:
    """A day of a node that hears every secret in every way that there is; what it told and wrote."""

    def __init__(self, node: LiveNode, folder: Path) -> None:
        self.node, self.folder = node, folder
        self.anna = Person(node, "anna")
        self.secrets: dict[str, str] = {"key": self.anna.key}
        self.made = self.anna.register(name="model")
        credential = self.made["credential"]
        self.secrets |= {name: credential[name] for name in ("TunnelSecret", "token")}
        self.secrets["hook secret"] = self.anna.ask("GET", "/v1/webhooks/default/secret").json()["key"]
        self._show_it_everywhere()
        self._work()
        self._go_wrong()

    def _show_it_everywhere(self) -> None:
        anna, one = self.anna, f"{SIGNATURES}/{self.made['id']}"
        anna.ask("GET", f"{one}?include=credential")
        anna.ask("PATCH", one, json={"visibility": "public"})
        requests.get(f"{self.node.url}{BASE}/models?api_key={anna.key}", headers=bearer(anna.key), timeout=60)
        basic = base64.b64encode(f"runner:{anna.key}".encode()).decode()
        requests.put(
            f"{self.node.url}{BASE}/upload/a.txt",
            data=b"a",
            headers={"Authorization": f"Basic {basic}"},
            timeout=60,
        )
        self.secrets["basic"] = basic
        for namespace in ("/pc", "/v1"):
            anna.socket(namespace).close()
        with anna.worker(self.made["id"]) as worker:
            worker.close()
        anna.worker(self.made["id"]).connect(token=self.made["credential"]["token"]).close()

    def _work(self) -> None:
        """With the agent that owners run."""
        receiver = Receiver(500)
        try:
            with worker(self.anna, self.folder, self.made["id"]) as agent_log:
                hook = {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
                id = self.anna.run("model", **hook)["id"]
                until(lambda: self.anna.shown(id)["status"] == "succeeded", 60)
                until(lambda: len(receiver.got) >= 2, 60)
            self.agent_log = agent_log
        finally:
            receiver.close()
        self.secrets["report token"] = token_of(self.node, id).partition(".")[2]

    def _go_wrong(self) -> None:
        node, id = self.node, self.anna.run("model")["id"]
        self.secrets["second report token"] = token = token_of(node, id).partition(".")[2]
        address = f"{node.url}{WEBHOOK}?token={id}.{token}"
        for body in (b"{", b'{"id":"other"}', b"[" * 70, b'{"id":"' + b"x" * 2_000_000 + b'"}'):
            requests.post(address, data=body, timeout=60)
        requests.get(address, timeout=60)
        requests.post(f"{address}&token=x", data=b"{}", timeout=60)
        for key in (self.anna.key + "x", self.anna.key[:-1]):
            requests.get(f"{node.url}/v1/predictions", headers=bearer(key), timeout=60)
        runner = self.anna.worker(self.made["id"])
        with contextlib.suppress(Exception):
            runner.connect(token=self.made["credential"]["token"][:-2])
        runner.close()

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the node's data folder, and its log with those of its processes and of the agent."""
        for file in [*self.node.data.rglob("*"), self.node.log, self.agent_log]:
            if file.is_file():
                yield file.name, file.read_bytes()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class _Worker(BaseHTTPRequestHandler):
    """A worker behind an agent: what it is sent succeeds at once."""

    server: "Loopback"

    def do_GET(self) -> None:
        self._answer(b'{"status":"READY","setup":{}}')

    def do_PUT(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"{}")
        said = {"id": call["id"], "status": "succeeded", "output": "done"}
        threading.Thread(target=lambda: requests.post(call["webhook"], json=said, timeout=60), daemon=True).start()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        pass


class Loopback(ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def worker(anna: Person, folder: Path, model: str) -> Iterator[Path]:
    """The agent of `grid_client` in front of a worker; yields where it logs."""
    server, log = Loopback(("127.0.0.1", 0), _Worker), folder / "agent.log"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-m", "grid_client.cli.main", "runner", "--node", anna.node.url, "--model-id", model]
    command += ["--url", f"http://127.0.0.1:{server.server_port}"]
    environment = {**os.environ, "GRID_API_KEY": anna.key, "PYTHONPATH": str(ROOT / "clients" / "python")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("secrets")
    settings = {"log_level": "debug", "webhook_allow_private": True, "webhook_in_max_bytes": 1_000_000}
    with yard(folder, errand_threads=2, **settings) as node:
        yield Life(node, folder)


@pytest.mark.parametrize(
    "name", ["key", "TunnelSecret", "token", "hook secret", "basic", "report token", "second report token"]
)
def test_no_secret_lies_anywhere_in_clear(life: Life, name: str) -> None:
    secret = life.secrets[name].encode()
    found = [place for place, content in life.places() if secret in content or secret.strip(b"=") in content]
    assert found == []


def test_what_was_looked_through_is_what_was_written(life: Life) -> None:
    """The search would find what is there: ids lie in the database and in the log."""
    names = {place for place, content in life.places() if life.made["id"].encode() in content}
    assert {"node.log"} < names
    assert any(name.startswith("grid.db") for name in names)
    assert life.agent_log.stat().st_size > 0
    assert '"level": "debug"' in life.node.log_text()
