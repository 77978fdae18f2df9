"""The HTTP face of the chain on a Flask app of its own, over a scripted chain: no process, no socket."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from grid_node.chain.access import ChainAccess
from grid_node.chain.metrics import ChainMetrics
from grid_node.chain.pylon import PylonSettings
from grid_node.chain.reads import ChainReads
from grid_node.chain.weights import Weights
from grid_node.chain.writes import ChainWrites
from grid_node.clock import ManualClock
from grid_node.database import DirectStore, plain_call
from grid_node.http.bodies import leave_no_rest
from grid_node.http.chain import register_chain
from grid_node.http.chain_fast import ChainFirst
from grid_node.http.documents import make_api
from grid_node.http.errors import register_errors
from grid_node.http.idle import IdleConnections
from grid_node.metrics import Metrics
from grid_node.settings import Settings
from tests.chain_stub import StubChain, neuron_of, stub_link

OPEN = "open-secret"
SN1, SN2 = "one-secret", "two-secret"
ENVIRON = {
    "PYLON_OPEN_ACCESS_TOKEN": OPEN,
    "PYLON_METRICS_TOKEN": "metrics-secret",
    "PYLON_IDENTITIES": '["sn1","sn2"]',
    "PYLON_ID_SN1_WALLET_NAME": "w",
    "PYLON_ID_SN1_HOTKEY_NAME": "h",
    "PYLON_ID_SN1_NETUID": "1",
    "PYLON_ID_SN1_TOKEN": SN1,
    "PYLON_ID_SN2_WALLET_NAME": "w",
    "PYLON_ID_SN2_HOTKEY_NAME": "h2",
    "PYLON_ID_SN2_NETUID": "2",
    "PYLON_ID_SN2_TOKEN": SN2,
}
OA = "/api/v1/subnet/1"
ID = "/api/v1/identity/sn1/subnet/1"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class ChainHouse:
    """Subnets 1 (8 neurons) and 2 (2 neurons) on a chain whose head is block 1002."""

    def __init__(self, engine: Engine, folder: Path, *, pylon: dict[str, str] | None = None, **settings: Any) -> None:
        self.clock = ManualClock(1_800_000_090.0)
        self.settings = Settings.load({}, data_dir=folder, **settings)
        self.pylon = PylonSettings.load({**ENVIRON, **(pylon or {})})
        self.stub = StubChain()
        self.stub.seed(1, 8)
        self.stub.seed(2, 2)
        self.stub.hotkeys["sn1"] = neuron_of(0).hotkey
        self.link = stub_link(self.stub, self.settings, self.pylon, self.clock)
        self.metrics = Metrics()
        self.services = self._services(engine)
        self.chain = self.services.chain
        self.link.on_beat, self.link.on_samples = self.chain.reads.on_beat, self.chain.metrics.absorb
        self.app = self._app()
        self.link.start()

    def _services(self, engine: Engine) -> Any:
        measured = ChainMetrics(self.metrics.registry)
        reads = ChainReads(self.link, self.clock, self.settings, self.pylon, measured)
        chain = SimpleNamespace(
            pylon=self.pylon,
            backend="local",
            access=ChainAccess(self.settings, self.pylon, self.clock, b"s" * 32),
            link=self.link,
            reads=reads,
            weights=Weights(
                DirectStore(engine), self.clock, self.settings, self.pylon, reads, self.link, spawn=lambda wake: wake()
            ),
            writes=ChainWrites(self.link, reads),
            metrics=measured,
        )
        hosting = SimpleNamespace(offload=plain_call)
        return SimpleNamespace(settings=self.settings, metrics=self.metrics, chain=chain, hosting=hosting)

    def _app(self) -> Flask:
        app = Flask("chain_house")
        app.url_map.strict_slashes = False
        app.url_map.merge_slashes = False
        app.after_request(leave_no_rest)
        register_errors(app, self.services)
        idle = IdleConnections()
        api = make_api(app)
        door = register_chain(app, api, self.services)
        self.flask_app = app.wsgi_app
        app.wsgi_app = ChainFirst(app.wsgi_app, self.services, door, idle)  # type: ignore[method-assign]
        return app

    def client(self) -> FlaskClient:
        return self.app.test_client()

    def slowly(self) -> None:
        """From now on everything goes through Flask."""
        self.app.wsgi_app = self.flask_app  # type: ignore[method-assign]

    def close(self) -> None:
        self.chain.reads.stop()
        self.link.stop(1)
