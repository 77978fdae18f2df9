"""A node whose limits are out of the way, and miners that are there when a test asks for them."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bittensor_wallet import Keypair

from grid_node.database import GroupCommitStore, make_engine
from tests.miners import Miner, SignedHttp, allow, game, new_keypair, put_games
from tests.nodes import LiveNode, running_node
from tests.proxy import Proxy, proxied
from tests.stores import call, sqlite_template, store

__all__ = ["sqlite_template", "store"]

LIFTED: dict[str, Any] = {
    "worker_api_keys": False,
    "prediction_rate": 1e6,
    "prediction_burst": 10**6,
    "prediction_daily_limit": "1000000.00",
}
"""A grid of hotkeys; rates and the daily limit stand in the way of nobody."""


@contextlib.contextmanager
def started(folder: Path, **settings: Any) -> Iterator[LiveNode]:
    """A node with one game."""
    with running_node(folder, **{**LIFTED, **settings}) as node:
        put_games(node, game())
        yield node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNode]:
    with started(tmp_path_factory.mktemp("promises")) as live:
        yield live


@pytest.fixture
def new_hotkey(node: LiveNode) -> Callable[[], Keypair]:
    """Hotkeys that the node lets in."""

    def make() -> Keypair:
        made = new_keypair()
        allow(node, made)
        return made

    return make


@pytest.fixture
def hotkey(new_hotkey: Callable[[], Keypair]) -> Keypair:
    return new_hotkey()


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Closes after the test what was passed through it."""
    with contextlib.ExitStack() as stack:

        def track(opened: Any) -> Any:
            stack.callback(opened.close)
            return opened

        yield track


@pytest.fixture
def connect(node: LiveNode, closing: Callable[[Any], Any]) -> Callable[..., Miner]:
    """Opens sockets of a hotkey."""

    def open_socket(keypair: Keypair, **options: Any) -> Miner:
        miner: Miner = closing(Miner(node, keypair, **options))
        return miner

    return open_socket


@pytest.fixture
def miner(connect: Callable[..., Miner], hotkey: Keypair) -> Miner:
    return connect(hotkey)


@pytest.fixture
def http(node: LiveNode, hotkey: Keypair, closing: Callable[[Any], Any]) -> SignedHttp:
    """The routes, for the same hotkey as `miner`."""
    opened: SignedHttp = closing(SignedHttp(node, hotkey))
    return opened


@pytest.fixture
def proxy(node: LiveNode) -> Iterator[Proxy]:
    with proxied(node.port) as line:
        yield line


@pytest.fixture
def sqlite_store(tmp_path: Path, sqlite_template: Path) -> Iterator[GroupCommitStore]:
    """The store of a node on SQLite, on a real disk."""
    path = tmp_path / "grid.db"
    shutil.copy(sqlite_template, path)
    made = GroupCommitStore(make_engine(f"sqlite:///{path}"), call)
    yield made
    made.close()
