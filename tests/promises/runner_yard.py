"""A node with the models of one owner, and whoever else comes: asked over HTTP and Socket.IO."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from grid_node.runners.ids import webhook_token
from grid_node.secret import node_secret
from tests.integration.sockets import Socket
from tests.nodes import LiveNode, running_node
from tests.scripted_runner import Script, ScriptedRunner, echo

BASE = "/pc/client-api"
SIGNATURES = f"{BASE}/predict_signature"
WEBHOOK = f"{BASE}/webhook/prediction"
SIGNATURE: dict[str, Any] = {
    "inputs": [
        {"name": "prompt", "type": "str"},
        {"name": "steps", "type": "int", "validation": {"default": "5", "ge": "0", "le": "9"}},
    ],
    "outputs": "Any",
}


class Person:
    """Somebody with a key. `account` is his name in addresses."""

    def __init__(self, node: LiveNode, name: str, *scopes: str) -> None:
        self.node = node
        self.key = node.add_key(name, scopes or ("runner", "client"))

    @functools.cached_property
    def account(self) -> str:
        return str(self.ask("GET", "/v1/account").json()["username"])

    def ask(self, method: str, path: str, headers: Any = None, **given: Any) -> requests.Response:
        told = {"X-API-KEY": self.key, **(headers or {})}
        return requests.request(method, self.node.url + path, headers=told, timeout=60, **given)

    def register(self, **members: Any) -> dict[str, Any]:
        answer = self.ask("POST", SIGNATURES, json={**SIGNATURE, **members})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def run(self, model: str, prompt: str = "a", owner: "Person | None" = None, **members: Any) -> dict[str, Any]:
        path = f"/v1/models/{(owner or self).account}/{model}/predictions"
        answer = self.ask("POST", path, json={"input": {"prompt": prompt}, **members})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def shown(self, id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/predictions/{id}").json())

    def report(self, id: str, **members: Any) -> requests.Response:
        """By the token of the prediction."""
        address = f"{self.node.url}{WEBHOOK}?token={token_of(self.node, id)}"
        return requests.post(address, json={"id": id, **members}, timeout=60)

    def upload(self, name: str, content: bytes = b"bytes", **headers: str) -> requests.Response:
        return self.ask("PUT", f"{BASE}/upload/{name}", data=content, headers=headers)

    def worker(self, model: str, script: Script = echo, **options: Any) -> ScriptedRunner:
        return ScriptedRunner(self.node.url, model, self.key, script, **options)

    def socket(self, namespace: str) -> Socket:
        return Socket(self.node.url, namespace, key=self.key)


def token_of(node: LiveNode, id: str) -> str:
    return webhook_token(node_secret(node.data), id)


@contextlib.contextmanager
def yard(folder: Path, **settings: Any) -> Iterator[LiveNode]:
    """A node without the jobs that are no part of this."""
    with running_node(folder, **{"errand_threads": 0, **settings}) as node:
        yield node
