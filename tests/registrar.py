"""Registration of models on a clock that stands still, over a provider of tunnels that fails when told to."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select

from grid_node.clock import Clock, ManualClock
from grid_node.database import Store
from grid_node.errors import TunnelProviderFailed
from grid_node.runners.models import models
from grid_node.runners.ports import Reply, Runner, RunnerCaller
from grid_node.runners.prediction import QUEUED, Prediction, by_number
from grid_node.runners.registration import Registration
from grid_node.runners.replays import Replays
from grid_node.runners.secrets_box import SecretsBox
from grid_node.settings import Settings
from tests.booth import Booth

SEED = {
    "inputs": [
        {"name": "prompt", "type": "str", "validation": {"description": "this is a prompt"}},
        {"name": "seed", "type": "int", "validation": {"description": "seed"}},
        {
            "name": "steps",
            "type": "int",
            "validation": {"default": "50", "description": "steps", "ge": "0", "le": "1000"},
        },
        {
            "name": "guidance_scale",
            "type": "float",
            "validation": {"default": "5.0", "description": "guidance_scale", "ge": "0", "le": "20"},
        },
    ],
    "outputs": "list[Path]",
}
"""The signature of the document that this API comes from."""


class FakeTunnels:
    """TunnelProvider that keeps names in a set. `failing` are operations that raise; `before` is called first."""

    name = "socketio"

    def __init__(self) -> None:
        self.tunnels: dict[str, dict[str, Any]] = {}
        self.hostnames: dict[str, str] = {}
        self.failing: set[str] = set()
        self.before: Callable[[str, str], None] = lambda operation, id: None
        self.asked: list[tuple[str, str]] = []

    def create_tunnel(self, id: str) -> dict[str, Any]:
        self._ask("create_tunnel", id)
        if id not in self.tunnels:
            tunnel, secret = f"00000000-0000-4000-8000-{len(self.asked):012d}", base64.b64encode(id.encode()).decode()
            credentials = {"AccountTag": "acc", "TunnelID": tunnel, "TunnelName": id, "TunnelSecret": secret}
            token = base64.b64encode(json.dumps({"a": "acc", "t": tunnel, "s": secret}).encode()).decode()
            self.tunnels[id] = {"id": tunnel, "name": id, "credentials_file": credentials, "token": token}
        return {"success": True, "errors": [], "messages": [], "result": self.tunnels[id]}

    def create_hostname(self, id: str, target_content: str) -> dict[str, Any]:
        self._ask("create_hostname", id)
        self.hostnames[id] = target_content
        return {"success": True, "errors": [], "messages": [], "result": {"id": f"record of {id}"}}

    def delete(self, id: str) -> None:
        self._ask("delete", id)
        self.hostnames.pop(id, None)
        self.tunnels.pop(id, None)

    def runners(self, model: str) -> list[Runner]:
        return []

    def call(
        self,
        model: str,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
        runner: str | None = None,
    ) -> Reply:
        raise AssertionError("registration calls no worker")

    def _ask(self, operation: str, id: str) -> None:
        self.asked.append((operation, id))
        self.before(operation, id)
        if operation in self.failing:
            raise TunnelProviderFailed()


KINDS = ("cog", "text_to_3d")
"""Of generation tasks that models may do."""


class Registrar:
    """One process of a node: `booth` has the predictions on its models."""

    def __init__(self, store: Store, clock: Any, provider: Any = None, **settings: Any) -> None:
        self.store, self.clock = store, clock
        self.booth = Booth(store, clock, **settings)
        self.settings: Settings = self.booth.settings
        self.provider = provider or FakeTunnels()
        self.box = SecretsBox("", b"n" * 32)
        self.slept: Callable[[], None] = lambda: None
        self.registration = self.another(clock)

    def another(self, clock: Clock, **settings: Any) -> Registration:
        """Of another process, or with other settings."""
        return Registration(
            self.store,
            clock,
            Settings.load({}, **settings) if settings else self.settings,
            self.provider,
            self.box,
            Replays(b"secret", "model"),
            self.booth.changes,
            self._sleep,
            KINDS,
        )

    def _sleep(self, seconds: float) -> None:
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
        else:
            time.sleep(seconds)
        self.slept()

    def rows(self) -> list[Any]:
        return list(self.store.read(lambda tx: tx.execute(select(models).order_by(models.c.created_at)).all()))

    def row(self, id: str) -> Any:
        return next((row for row in self.rows() if row.id == id), None)

    def run(self, caller: RunnerCaller, id: str, state: str = QUEUED) -> int:
        """A prediction of this model; its number."""
        made = self.booth.run(caller, f"{caller.account}/{id}", input={"prompt": "a cat", "seed": 1})
        if state != QUEUED:
            self.booth.report(made, state=state)
        return made.number

    def prediction(self, number: int) -> Prediction:
        found = self.store.read(lambda tx: by_number(tx, number))
        assert found is not None
        return found
